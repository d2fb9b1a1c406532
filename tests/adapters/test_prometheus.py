from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs

import httpx
import pytest

from control_plane.adapters.prometheus import MOST_POINTS, PrometheusEvents
from control_plane.errors import SourceUnavailable
from control_plane.slo.events import Selector

NOON = datetime(2026, 11, 24, 12, 0, 0, 250_000, tzinfo=UTC)
REQUESTS = Selector("requests", (("code", "=", "200"),))
HALF_A_MINUTE = timedelta(seconds=30)
Answer = Callable[[httpx.Request], httpx.Response]


def matrix(*result: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"status": "success", "data": {"resultType": "matrix", "result": list(result)}, **more}


ONE_SERIES = {
    "metric": {"__name__": "requests", "code": "200", "job": "gateway"},
    "values": [[1764000000.123, "17"], [1764000001.123, "1.8e+01"], [1764000002.123, "NaN"]],
}


def events(answer: Answer, timeout: float = 1, most_bytes: int = 1_000_000) -> PrometheusEvents:
    http = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://prometheus")
    return PrometheusEvents(http, timedelta(seconds=timeout), most_bytes)


def form(request: httpx.Request) -> dict[str, str]:
    return {name: values[0] for name, values in parse_qs(request.content.decode()).items()}


async def test_raw_samples_keep_their_own_timestamps() -> None:
    (series,) = await events(lambda _: httpx.Response(200, json=matrix(ONE_SERIES))).samples(
        [REQUESTS], HALF_A_MINUTE, NOON
    )
    assert series.labels["job"] == "gateway"
    assert series.timestamps.tolist() == [1764000000.123, 1764000001.123, 1764000002.123]
    assert series.values[:2].tolist() == [17, 18]
    assert series.values[2] != series.values[2]  # NaN is handed on: the core says what it means


async def test_a_reading_is_one_posted_range_query_a_metric_at_the_time_that_was_asked_for() -> None:
    sent: list[tuple[str, str, dict[str, str]]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append((request.method, request.url.path, form(request)))
        return httpx.Response(200, json=matrix())

    wanted = [REQUESTS, Selector("requests", (("code", "=", "500"),)), Selector("errors")]
    source = events(answer)
    assert await source.samples(wanted, HALF_A_MINUTE, NOON) == []
    stamp = f"{NOON.timestamp():.3f}"
    assert sorted(sent, key=str) == [
        ("POST", "/api/v1/query", {"query": "errors[30000ms]", "time": stamp}),
        ("POST", "/api/v1/query", {"query": 'requests{code=~"200|500"}[30000ms]', "time": stamp}),
    ]
    assert source.queries == 2


async def test_history_is_cut_into_ranges_that_prometheus_answers_and_joined_again() -> None:
    sent: list[dict[str, str]] = []

    def answer(request: httpx.Request) -> httpx.Response:
        sent.append(form(request))
        start = float(sent[-1]["start"])
        return httpx.Response(200, json=matrix({"metric": {"__name__": "errors"}, "values": [[start, "1"]]}))

    start = NOON - timedelta(seconds=MOST_POINTS + 5)
    (series,) = await events(answer).history([Selector("errors")], start, NOON, timedelta(seconds=1))
    assert [request["step"] for request in sent] == ["1.000", "1.000"]
    points = sum(round(float(r["end"]) - float(r["start"])) + 1 for r in sent)
    assert points == MOST_POINTS + 6  # both ends, and no reading twice
    assert len(series.timestamps) == 2
    assert series.timestamps[0] < series.timestamps[1]


def failing(response: httpx.Response) -> Answer:
    return lambda _: response


@pytest.mark.parametrize(
    ("answer", "says"),
    [
        (failing(httpx.Response(200, json=matrix(ONE_SERIES, warnings=["1 store is down"]))), "in part: 1 store"),
        (failing(httpx.Response(503, json={"status": "error", "error": "query timed out"})), "503: query timed out"),
        (failing(httpx.Response(200, json={"status": "error", "error": "bad_data"})), "refused"),
        (failing(httpx.Response(502, text="<html>Bad gateway</html>")), "status 502 and something else than its API"),
        (failing(httpx.Response(200, text="<html>login</html>")), "<html>login"),
        (failing(httpx.Response(200, json={"status": "success", "data": {"resultType": "vector"}})), "something else"),
        (failing(httpx.Response(200, json=matrix({"metric": {}, "values": [["x", "y"]]}))), "something else"),
        (failing(httpx.Response(200, content=b"")), "something else"),
        (failing(httpx.Response(200, content=b"x" * 2_000_000)), "more than 1000000 bytes"),
    ],
)  # fmt: skip
async def test_a_bad_answer_is_no_evidence_and_says_why(answer: Answer, says: str) -> None:
    with pytest.raises(SourceUnavailable, match=says) as refused:
        await events(answer).samples([REQUESTS], HALF_A_MINUTE, NOON)
    assert "requests{" in str(refused.value)


async def test_a_prometheus_that_is_down_is_no_evidence() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(SourceUnavailable, match="connection refused"):
        await events(answer).samples([REQUESTS], HALF_A_MINUTE, NOON)


async def test_an_answer_that_trickles_in_is_cut_off_in_time() -> None:
    class Trickle(httpx.AsyncByteStream):
        async def __aiter__(self) -> AsyncIterator[bytes]:
            while True:
                await asyncio.sleep(0.01)
                yield b" "

    began = asyncio.get_running_loop().time()
    with pytest.raises(SourceUnavailable, match=r"within 0\.1 s"):
        await events(lambda _: httpx.Response(200, stream=Trickle()), timeout=0.1).samples(
            [REQUESTS], HALF_A_MINUTE, NOON
        )
    assert asyncio.get_running_loop().time() - began < 1


async def test_one_family_that_fails_fails_the_reading() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        return httpx.Response(503 if "errors" in form(request)["query"] else 200, text=json.dumps(matrix()))

    with pytest.raises(SourceUnavailable, match="errors"):
        await events(answer).samples([REQUESTS, Selector("errors")], HALF_A_MINUTE, NOON)
