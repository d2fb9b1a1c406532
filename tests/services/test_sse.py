"""Server-Sent Events, in and out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from services.sse import KEEP_ALIVE, Event, parse

EVENTS = [Event('{"a": 1}', name="delta", id="1"), Event("[DONE]"), Event("größer", id="3")]


async def parsed(chunks: list[bytes]) -> list[Event]:
    async def source() -> AsyncIterator[bytes]:
        for chunk in chunks:
            yield chunk

    return [event async for event in parse(source())]


@given(st.lists(st.integers(0, 200), max_size=8))
async def test_however_the_bytes_were_cut_the_same_events_arrive(cuts: list[int]) -> None:
    whole = KEEP_ALIVE + b"".join(event.encode() for event in EVENTS)
    places = sorted({0, len(whole), *(cut for cut in cuts if cut < len(whole))})
    chunks = [whole[start:end] for start, end in pairwise(places)]
    assert await parsed(chunks) == EVENTS


async def test_an_event_without_its_end_is_none() -> None:
    assert await parsed([b"data: whole\n\ndata: half"]) == [Event("whole")]


async def test_carriage_returns_are_endings_too() -> None:
    assert await parsed([b"event: delta\r\ndata: x\r\n\r\n"]) == [Event("x", name="delta")]


@given(st.binary(max_size=300))
async def test_noise_breaks_nothing(noise: bytes) -> None:
    await parsed([noise])
