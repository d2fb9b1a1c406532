from __future__ import annotations

import json
from datetime import timedelta

import httpx
import pytest

from control_plane.adapters.journeys import LoadJourneys
from control_plane.errors import SourceUnavailable
from control_plane.topology import Backend


class ALoadProcess:
    """Answers as told, and keeps what it was asked."""

    def __init__(self, answer: httpx.Response | Exception) -> None:
        self.answer = answer
        self.asked: list[httpx.Request] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.asked.append(request)
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer

    @property
    def journeys(self) -> LoadJourneys:
        return LoadJourneys(httpx.AsyncClient(base_url="http://load", transport=httpx.MockTransport(self)))


async def test_journeys_are_asked_for_by_service_and_backend_and_their_failures_are_told() -> None:
    failures = [f"journey {n} broke" for n in range(20)]
    load = ALoadProcess(httpx.Response(200, json={"sent": 25, "passed": 5, "failures": failures}))
    result = await load.journeys.run("file-service", Backend.MONOLITH, 25, timedelta(seconds=7))
    assert (result.sent, result.passed, result.failures) == (25, 5, tuple(failures[:10]))
    [asked] = load.asked
    assert (asked.method, asked.url.path) == ("POST", "/v1/journeys")
    assert json.loads(asked.content) == {
        "service": "file-service",
        "backend": "monolith",
        "count": 25,
        "timeout_seconds": 7.0,
    }


async def test_journeys_that_follow_the_weights_pin_nothing() -> None:
    load = ALoadProcess(httpx.Response(200, json={"sent": 1, "passed": 1, "failures": []}))
    await load.journeys.run("file-service", None, 1, timedelta(seconds=1))
    assert json.loads(load.asked[0].content)["backend"] is None


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.Response(503, json={"error": "no users yet"}),
        httpx.Response(200, json={"sent": 3}),
        httpx.Response(200, text="<html>"),
    ],
)
async def test_journeys_that_nobody_ran_prove_nothing(answer: httpx.Response | Exception) -> None:
    with pytest.raises(SourceUnavailable):
        await ALoadProcess(answer).journeys.run("file-service", None, 1, timedelta(seconds=1))
