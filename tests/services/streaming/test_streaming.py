"""Streams that survive their connection, their replica and a move to the monolith."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from control_plane.topology import MONOLITH
from services.faults import Fault
from services.streaming.streams import MIGRATIONS, LeaseLost, Streams
from tests.services.live_suite import LiveSuite, a_chat, a_live_suite

pytestmark = pytest.mark.suite

STREAMING = "streaming-service"
SLOW = """
providers:
  - {name: builtin, kind: builtin, model: librechat-1, first_token_median: 50ms, token_interval: 40ms}
"""


@pytest.fixture
async def suite(tmp_path: Path) -> AsyncIterator[LiveSuite]:
    async with a_live_suite(tmp_path) as suite:
        yield suite


def events_of(text: str) -> list[tuple[int | None, str, dict[str, object]]]:
    found = []
    for block in text.strip().split("\n\n"):
        fields = dict(line.split(": ", 1) for line in block.splitlines() if not line.startswith(":"))
        if fields:
            number = int(fields["id"]) if "id" in fields else None
            found.append((number, fields["event"], json.loads(fields["data"])))
    return found


def text_of(events: list[tuple[int | None, str, dict[str, object]]]) -> str:
    return "".join(str(data["text"]) for _, name, data in events if name == "delta")


async def started(suite: LiveSuite, headers: dict[str, str], conversation: str | None = None) -> str:
    answer = await suite.http.post("/api/streams", json=a_chat(conversation, max_tokens=30), headers=headers)
    assert answer.status_code == 201
    return str(answer.json()["url"])


async def test_a_stream_carries_the_whole_reply_under_numbers(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    url = await started(suite, ana)
    events = events_of((await suite.http.get(url, headers=ana)).text)
    plain = await suite.http.post("/v1/chat/completions", json=a_chat(max_tokens=30), headers=ana)
    assert text_of(events) == plain.json()["choices"][0]["message"]["content"]
    assert [number for number, _, _ in events] == list(range(1, len(events) + 1))
    assert events[-1][1:] == ("done", {"finish_reason": "length"})


async def test_a_reader_goes_on_after_the_event_it_saw_last_also_on_the_monolith(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    url = await started(suite, ana)
    whole = events_of((await suite.http.get(url, headers=ana)).text)
    for pin in ({}, {"x-pin": MONOLITH}):
        rest = events_of((await suite.http.get(url, headers={**ana, **pin, "last-event-id": "1"})).text)
        assert rest == whole[1:]


async def test_a_stream_begun_on_the_service_is_read_live_on_the_monolith(tmp_path: Path) -> None:
    (tmp_path / "ai-gateway.yaml").write_text(SLOW)
    async with a_live_suite(tmp_path) as suite:
        ana = await suite.a_user()
        url = await started(suite, ana)
        inside = {**ana, "x-pin": MONOLITH}
        there, here = await asyncio.gather(suite.http.get(url, headers=inside), suite.http.get(url, headers=ana))
        assert events_of(there.text) == events_of(here.text)
        assert len(events_of(here.text)) > 3


async def test_a_draining_replica_tells_its_readers_to_reconnect_and_loses_nothing(tmp_path: Path) -> None:
    (tmp_path / "ai-gateway.yaml").write_text(SLOW)
    async with a_live_suite(tmp_path) as suite:
        ana = await suite.a_user()
        url = await started(suite, ana)
        reading = asyncio.create_task(suite.http.get(url, headers=ana))
        await asyncio.sleep(0.4)
        suite.context(STREAMING).drain.start()
        seen = events_of((await reading).text)
        assert seen[-1][1] == "reconnect"
        last = max((number or 0 for number, _, _ in seen), default=0)
        headers = {**ana, "x-pin": MONOLITH, "last-event-id": str(last)}
        rest = events_of((await suite.http.get(url, headers=headers)).text)
        assert rest[-1][1] == "done"
        whole = events_of((await suite.http.get(url, headers={**ana, "x-pin": MONOLITH})).text)
        assert seen[:-1] + rest == whole
        labels = {"service": STREAMING, "endpoint": "/api/streams/{stream_id}", "outcome": "reconnect"}
        assert suite.sample(STREAMING, "http_stream_ends_total", **labels) == 1


async def test_a_stream_whose_replica_died_is_taken_over_and_its_exchange_kept_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with a_live_suite(tmp_path) as suite:
        ana = await suite.a_user()
        conversation = await suite.a_conversation(ana)
        context = suite.context(STREAMING)
        streams = Streams(context.storage.database("streaming", MIGRATIONS))
        me = (await suite.http.get("/api/users/me", headers=ana)).json()["id"]
        request = {"messages": [{"role": "user", "content": "How do I plan a sailing trip?"}], "model": "librechat-1"}
        request |= {"conversation_id": conversation, "exchange_id": "s-1"}
        await streams.add("s-1", me, json.dumps(request), "a replica that died", now=0.0)
        half = [("delta", '{"text":"Half a rep"}')]
        await streams.append("s-1", "a replica that died", half, now=0.0)
        readers = [suite.http.get("/api/streams/s-1", headers={**ana, **pin}) for pin in ({}, {"x-pin": MONOLITH})]
        first, second = [events_of(answer.text) for answer in await asyncio.gather(*readers)]
        assert first == second
        names = [name for _, name, _ in first]
        assert (names[0], names.count("restart"), names[-1]) == ("delta", 1, "done")
        assert [role for role, _ in await suite.messages(conversation, ana)] == ["user", "assistant"]


async def test_who_lost_the_lease_cannot_write(suite: LiveSuite) -> None:
    streams = Streams(suite.context(STREAMING).storage.database("streaming", MIGRATIONS))
    await streams.add("s-1", "ana", "{}", "first", now=0.0)
    assert not await streams.take_over("s-1", "second", now=1.0)
    assert await streams.take_over("s-1", "second", now=100.0)
    with pytest.raises(LeaseLost):
        await streams.append("s-1", "first", [("delta", "{}")], now=100.0)
    assert (await streams.after("s-1", 0))[0] == []


async def test_streams_are_forgotten_after_an_hour_with_their_events(suite: LiveSuite) -> None:
    streams = Streams(suite.context(STREAMING).storage.database("streaming", MIGRATIONS))
    await streams.add("old", "ana", "{}", "first", now=0.0)
    await streams.append("old", "first", [("delta", "{}")], now=0.0)
    await streams.add("new", "ana", "{}", "first", now=3700.0)
    assert await streams.find("old", "ana") is None
    assert (await streams.after("old", 0))[:2] == ([], True)


async def test_a_failed_reply_ends_the_stream_with_an_error_that_names_the_fault(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    suite.crowd.replicas["ai-gateway-service"].faults.set(Fault(kind="errors", share=1.0, until=4e9))
    url = await started(suite, ana)
    (_, name, data), *rest = events_of((await suite.http.get(url, headers=ana)).text)
    assert (name, data["status"], data["fault"], rest) == ("error", 502, "errors", [])
    labels = {"service": STREAMING, "endpoint": "/api/streams/{stream_id}", "outcome": "error"}
    assert suite.sample(STREAMING, "http_stream_ends_total", **labels) == 1


async def test_a_stream_of_someone_else_is_not_found(suite: LiveSuite) -> None:
    ana, bob = await suite.a_user(), await suite.a_user("bob@example.org")
    url = await started(suite, ana)
    assert (await suite.http.get(url, headers=bob)).status_code == 404
    assert (await suite.http.get(url)).status_code == 401


async def test_a_token_that_signed_out_starts_and_reads_nothing(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    url = await started(suite, ana)
    await suite.http.post("/api/auth/logout", headers=ana)
    assert (await suite.http.get(url, headers=ana)).status_code == 401
    assert (await suite.http.post("/api/streams", json=a_chat(), headers=ana)).status_code == 401


async def test_streams_have_slots_of_their_own(tmp_path: Path) -> None:
    (tmp_path / "ai-gateway.yaml").write_text(SLOW.replace("40ms", "500ms"))  # outlasts the test
    async with a_live_suite(tmp_path, stream_slots=1, slots=2, queue_seconds=0.1, drain_seconds=0.1) as suite:
        ana = await suite.a_user()
        url = await started(suite, ana)
        async with httpx.AsyncClient(base_url=suite.http.base_url) as http:
            async with http.stream("GET", url, headers=ana) as first:
                reading = first.aiter_bytes()  # held: an iterator that is dropped closes its answer
                await anext(reading)
                second = await suite.http.get(url, headers=ana)
                assert (second.status_code, second.headers["retry-after"]) == (503, "1")
                assert (await suite.http.post("/api/streams", json=a_chat(), headers=ana)).status_code == 201
            labels = {"service": STREAMING, "kind": "stream"}
            async with asyncio.timeout(3):
                while suite.sample(STREAMING, "http_slots_in_use", **labels):  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
