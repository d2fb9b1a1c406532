"""What Backstay asks of a trace store, on fakes at the wire for bad days. The contract suite runs on real stores."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from control_plane.adapters.jaeger import JaegerTraces
from control_plane.errors import SourceUnavailable
from control_plane.ports import TraceQuery

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
A_QUERY = TraceQuery("a", NOON, NOON + timedelta(seconds=50), limit=12)


def a_source(
    answer: Callable[[httpx.Request], httpx.Response], *, timeout: float = 2.0, max_bytes: int = 100_000
) -> JaegerTraces:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://jaeger")
    return JaegerTraces(client, timedelta(seconds=timeout), max_bytes)


def an_answer(*traces: object) -> httpx.Response:
    return httpx.Response(200, json={"data": list(traces), "errors": None})


async def test_a_time_range_is_asked_for_in_parts_that_share_the_limit() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return an_answer()

    await a_source(answer).traces(A_QUERY)
    start = int(NOON.timestamp() * 1_000_000)
    assert [(int(r.url.params["start"]) - start, int(r.url.params["end"]) - start) for r in asked] == [
        (number * 10_000_000, (number + 1) * 10_000_000) for number in range(5)
    ]
    assert [r.url.params["limit"] for r in asked] == ["3", "3", "2", "2", "2"]


async def test_everything_that_was_asked_for_is_sent() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return an_answer()

    query = TraceQuery(
        "a", NOON, NOON + timedelta(seconds=1), 1, "GET /x", timedelta(milliseconds=1500), {"error": "true"}
    )
    await a_source(answer).traces(query)
    parameters = dict(asked[0].url.params)
    assert parameters["operation"] == "GET /x"
    assert parameters["minDuration"] == "1500000us"
    assert parameters["tags"] == '{"error":"true"}'


async def test_a_trace_that_spans_two_parts_comes_back_once() -> None:
    trace = {"traceID": "t", "spans": [], "processes": {}}
    assert [t.trace_id for t in await a_source(lambda _: an_answer(trace)).traces(A_QUERY)] == ["t"]


async def test_names_with_a_slash_stay_one_part_of_the_path() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200, json={"data": None})

    assert await a_source(answer).operations("a/b") == []
    assert asked[0].url.raw_path == b"/api/services/a%2Fb/operations"


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (
            httpx.Response(500, json={"data": None, "errors": [{"code": 500, "msg": "storage is down"}]}),
            "storage is down",
        ),
        (httpx.Response(200, json={"data": [], "errors": [{"code": 413, "msg": "there are more"}]}), "there are more"),
        (httpx.Response(200, text="<html>", headers={"content-type": "text/html"}), "query port"),
        (httpx.Response(200, content=b'{"data": [{'), "no JSON"),
        (httpx.Response(200, json=[]), "200"),
        (httpx.Response(200, json={"data": {"not": "a list"}}), "cannot be read"),
        (httpx.Response(200, content=b"x" * 100_001), "larger than"),
    ],
    ids=["error", "partial", "markup", "truncated", "no object", "no list", "too large"],
)
async def test_an_answer_that_is_none_says_why(reply: httpx.Response, words: str) -> None:
    with pytest.raises(SourceUnavailable, match=words):
        await a_source(lambda _: reply).traces(A_QUERY)


async def test_a_store_that_is_down_is_unavailable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(SourceUnavailable, match="connection refused"):
        await a_source(refuse).services()


async def test_a_slow_store_is_given_up_in_time() -> None:
    async def hang(request: httpx.Request) -> httpx.Response:
        await asyncio.sleep(30)
        return an_answer()

    client = httpx.AsyncClient(transport=httpx.MockTransport(hang), base_url="http://jaeger")
    with pytest.raises(SourceUnavailable, match=r"within 0\.05 s"):
        await JaegerTraces(client, timedelta(seconds=0.05)).traces(A_QUERY)


async def test_an_empty_time_range_asks_nothing() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing should be asked")

    assert await a_source(answer).traces(TraceQuery("a", NOON, NOON)) == []
