"""Each request is judged by what came back, and recorded as what it was."""

import asyncio
import json
import time
from typing import Any

import pytest

from services.load.gateway import Gateway, Pin, Reply, StepFailed, Visit
from services.load.recorder import Recorder
from services.load.settings import LoadSettings
from tests.services.load.crooked_gateway import a_crooked_gateway

AI = "ai-gateway-service"


def a_visit(gateway: Gateway, **changes: Any) -> tuple[Visit, Recorder]:
    recorder = Recorder(time.time)
    return Visit(gateway, recorder, "chat", **changes), recorder


def the_failure(recorder: Recorder) -> dict[str, Any]:
    told = recorder.outcomes()
    assert (told["sent"], told["ok"]) == (1, 0)
    [failure] = told["failures"]
    return dict(failure)


@pytest.mark.parametrize(
    ("way", "kind", "status", "fault"),
    [
        ("fault", "status", 500, "errors"),
        ("away", "status", 503, None),
        ("shed", "shed", 503, None),
        ("overloaded", "shed", 503, None),
        ("stranger", "auth", 401, None),
        ("silent", "timeout", None, None),
        ("reset", "reset", None, None),
        ("half", "reset", 200, None),
    ],
)
async def test_a_failure_is_called_what_it_is(way: str, kind: str, status: int | None, fault: str | None) -> None:
    async with a_crooked_gateway() as (_, gateway):
        visit, recorder = a_visit(gateway)
        with pytest.raises(StepFailed, match=kind):
            await visit.call("ask", "POST", f"/v1/{way}", json={})
        failure = the_failure(recorder)
        assert (failure["kind"], failure["status"], failure["fault"]) == (kind, status, fault)
        assert (failure["service"], failure["journey"], failure["step"]) == (AI, "chat", "ask")


@pytest.mark.parametrize(
    ("way", "fault", "detail"),
    [
        ("stream-cut", None, "it ended before its end, after 1 events"),
        ("stream-half-done", None, "it ended before its end, after 1 events"),
        ("stream-error", "errors", "Broken."),
    ],
)
async def test_a_stream_that_does_not_come_to_its_end_is_broken(way: str, fault: str | None, detail: str) -> None:
    async with a_crooked_gateway() as (_, gateway):
        visit, recorder = a_visit(gateway)
        with pytest.raises(StepFailed):
            await visit.stream("read", "GET", f"/v1/{way}")
        failure = the_failure(recorder)
        assert (failure["kind"], failure["status"], failure["fault"]) == ("broken_stream", 200, fault)
        assert failure["detail"] == detail


async def test_a_stream_that_no_slot_was_left_for_was_shed() -> None:
    async with a_crooked_gateway() as (_, gateway):
        visit, recorder = a_visit(gateway)
        with pytest.raises(StepFailed):
            await visit.stream("read", "GET", "/v1/stream-shed")
        assert the_failure(recorder)["kind"] == "shed"


async def test_a_stream_that_falls_silent_is_a_time_out() -> None:
    async with a_crooked_gateway() as (_, gateway):
        visit, recorder = a_visit(gateway)
        with pytest.raises(StepFailed):
            await visit.stream("read", "GET", "/v1/stream-silent")
        assert the_failure(recorder)["kind"] == "timeout"


async def test_a_stream_is_read_to_its_end_or_to_where_its_reader_leaves() -> None:
    async with a_crooked_gateway() as (crooked, gateway):
        visit, recorder = a_visit(gateway)
        whole = await visit.stream("read", "GET", "/v1/stream", last_event_id="0")
        assert (whole.done, whole.reconnect, whole.last_id, len(whole.events)) == (True, False, "2", 2)
        assert crooked.asked[0][1]["last-event-id"] == "0"
        part = await visit.stream("read", "GET", "/v1/stream-silent", stop_after=1)
        assert (part.done, part.last_id) == (False, "1")
        moved = await visit.stream("read", "GET", "/v1/stream-reconnect")
        assert (moved.done, moved.reconnect, moved.last_id) == (False, True, "7")
        assert recorder.outcomes()["services"][AI] == {**recorder.outcomes()["services"][AI], "sent": 3, "ok": 3}


@pytest.mark.parametrize(
    "check",
    [lambda reply: "other words", lambda reply: reply.json()["missing"], lambda reply: reply.json()["answer"]["x"]],
)
async def test_a_right_status_with_wrong_content_is_a_failure(check: Any) -> None:
    async with a_crooked_gateway() as (_, gateway):
        visit, recorder = a_visit(gateway)
        with pytest.raises(StepFailed):
            await visit.call("ask", "GET", "/v1/fine", check=check)
        failure = the_failure(recorder)
        assert (failure["kind"], failure["status"]) == ("wrong_body", 200)


async def test_a_stream_with_wrong_content_is_a_failure_too() -> None:
    async with a_crooked_gateway() as (_, gateway):
        visit, recorder = a_visit(gateway)
        with pytest.raises(StepFailed):
            await visit.stream(
                "read", "GET", "/v1/stream", check=lambda stream: json.loads(stream.events[0].data)["text"]
            )
        assert the_failure(recorder)["kind"] == "wrong_body"


async def test_the_request_id_is_ours_so_it_is_known_even_without_an_answer() -> None:
    async with a_crooked_gateway() as (crooked, gateway):
        visit, recorder = a_visit(gateway)
        with pytest.raises(StepFailed):
            await visit.call("ask", "GET", "/v1/silent")
        assert the_failure(recorder)["request_id"] == crooked.asked[0][1]["x-request-id"]


async def test_a_gateway_that_is_not_there_is_a_reset() -> None:
    gateway = Gateway(LoadSettings(gateway_url="http://127.0.0.1:9"))
    visit, recorder = a_visit(gateway)
    with pytest.raises(StepFailed):
        await visit.call("ask", "GET", "/v1/models")
    assert the_failure(recorder)["kind"] == "reset"
    await gateway.close()


async def test_what_we_cut_short_ourselves_is_not_counted() -> None:
    async with a_crooked_gateway(request_timeout_seconds=30) as (crooked, gateway):
        visit, recorder = a_visit(gateway)
        task = asyncio.create_task(visit.call("ask", "GET", "/v1/silent"))
        while not crooked.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert recorder.outcomes()["sent"] == 0


async def test_latency_counts_from_when_the_request_was_due() -> None:
    async with a_crooked_gateway() as (_, gateway):
        visit, recorder = a_visit(gateway, due=time.monotonic() - 1.5)
        await visit.call("ask", "GET", "/v1/fine")
        await visit.call("ask", "GET", "/v1/fine")  # due when the first was answered
        numbers = recorder.outcomes()["services"][AI]
        assert (numbers["sent"], numbers["p50_ms"] < 500, numbers["p95_ms"]) == (2, True, 2000)


async def test_only_requests_of_the_pinned_service_are_pinned() -> None:
    async with a_crooked_gateway() as (crooked, gateway):
        visit, _ = a_visit(gateway, pin=Pin(AI, "monolith", "secret"))
        visit.token = "jwt"
        await visit.call("ask", "GET", "/v1/fine")
        await visit.call("list", "GET", "/api/files")
        pinned, free = (headers for _, headers in crooked.asked)
        assert (pinned["x-backstay-backend"], pinned["x-backstay-token"]) == ("monolith", "secret")
        assert not {"x-backstay-backend", "x-backstay-token"} & set(free)
        assert free["authorization"] == "Bearer jwt"
        assert "secret" not in repr(Pin(AI, "monolith", "secret"))


async def test_a_check_sees_the_answer_as_it_came() -> None:
    seen: list[Reply] = []
    async with a_crooked_gateway() as (_, gateway):
        visit, recorder = a_visit(gateway)
        await visit.call("ask", "GET", "/v1/fine", check=lambda reply: seen.append(reply))
        assert seen[0].json() == {"answer": "sailing"}
        assert recorder.outcomes()["ok"] == 1
