"""The built-in provider: what it writes and how long it takes."""

from __future__ import annotations

import asyncio
import statistics
from datetime import timedelta

import pytest

from services.ai_gateway.builtin import BuiltInProvider
from services.ai_gateway.configuration import BuiltInProviderSettings
from services.peers import ChatMessage, ChatRequest


def a_provider(**changes: timedelta) -> BuiltInProvider:
    return BuiltInProvider(BuiltInProviderSettings(name="builtin", kind="builtin", model="librechat-1", **changes))


def a_request(question: str = "How do I plan a sailing trip?", **changes: int) -> ChatRequest:
    return ChatRequest([ChatMessage("user", question)], **changes)  # type: ignore[arg-type]


async def reply_of(provider: BuiltInProvider, request: ChatRequest) -> tuple[str, str | None]:
    deltas = [delta async for delta in provider.reply(request)]
    assert [d.finish_reason for d in deltas[:-1]] == [None] * (len(deltas) - 1)
    return "".join(d.text for d in deltas), deltas[-1].finish_reason


@pytest.fixture
def slept(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Waits that were asked for, none of them waited."""
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    monkeypatch.setattr(asyncio, "sleep", sleep)
    return waits


async def test_the_same_chat_gets_the_same_reply_at_the_same_pace(slept: list[float]) -> None:
    first = await reply_of(a_provider(), a_request())
    pace = list(slept)
    slept.clear()
    assert await reply_of(a_provider(), a_request()) == first
    assert slept == pace


async def test_another_seed_gets_another_reply(slept: list[float]) -> None:
    replies = {await reply_of(a_provider(), a_request(seed=seed)) for seed in range(10)}
    assert len(replies) > 8


async def test_a_reply_speaks_of_what_was_asked(slept: list[float]) -> None:
    text, reason = await reply_of(a_provider(), a_request("What is the best lighthouse?"))
    assert "lighthouse" in text.casefold()
    assert reason == "stop"


@pytest.mark.parametrize("question", ["", "?", "{topic} {0} %s", "a" * 5000, "日本語の質問"])
async def test_any_question_gets_a_reply(slept: list[float], question: str) -> None:
    text, _ = await reply_of(a_provider(), a_request(question))
    assert text


async def test_a_limit_on_tokens_cuts_and_says_so(slept: list[float]) -> None:
    text, reason = await reply_of(a_provider(), a_request(max_tokens=5))
    assert (len(text.split()), reason) == (5, "length")


async def test_its_timing_is_that_of_a_hosted_model(slept: list[float]) -> None:
    firsts, totals = [], []
    for index in range(400):
        slept.clear()
        await reply_of(a_provider(), a_request(f"question {index}"))
        firsts.append(slept[0])
        totals.append(sum(slept))
    assert 0.25 < statistics.median(firsts) < 0.35
    assert statistics.quantiles(firsts, n=20)[-1] < 1.0  # the 95th percentile
    assert 0.65 < statistics.median(totals) < 0.95
    deciles = statistics.quantiles(totals, n=10)
    assert deciles[0] > 0.4
    assert deciles[-1] < 1.6


async def test_waiting_costs_the_event_loop_nothing() -> None:
    provider = a_provider(first_token_median=timedelta(milliseconds=50), token_interval=timedelta(milliseconds=1))
    async with asyncio.timeout(3):
        await asyncio.gather(*(reply_of(provider, a_request(f"question {index}")) for index in range(200)))
