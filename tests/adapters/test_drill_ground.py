"""The ground of drills: what is sent to the stack, what is made of its answers, and who the access logs blame."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.actions.drills import FAULTS
from control_plane.adapters.drill_ground import LocalDrillGround
from control_plane.errors import ActuationRefused, SourceUnavailable
from control_plane.ports import DrillGround

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
CHAT = "ai-gateway-service"
FAULTY = f"{CHAT}.service"


class Stack:
    """Both APIs of the local stack, with the answers that a test wants; keeps what was asked."""

    def __init__(self, answer: Callable[[httpx.Request], httpx.Response] | None = None) -> None:
        self.asked: list[tuple[str, str, Any]] = []
        self._answer = answer or (lambda request: httpx.Response(200, json={}))

    def _handle(self, request: httpx.Request) -> httpx.Response:
        body = json.loads(request.content) if request.content else None
        self.asked.append((request.method, str(request.url.copy_with(scheme="http")), body))
        return self._answer(request)

    def ground(self, *logs: Path) -> LocalDrillGround:
        def client(url: str) -> httpx.AsyncClient:
            return httpx.AsyncClient(base_url=url, transport=httpx.MockTransport(self._handle))

        return LocalDrillGround(client("http://cluster"), client("http://load"), logs)


def answering(status: int, body: Any) -> Stack:
    return Stack(lambda request: httpx.Response(status, json=body))


def a_failure(**changes: Any) -> dict[str, Any]:
    return {
        "at": NOON.timestamp(),
        "service": CHAT,
        "journey": "chat",
        "step": "ask",
        "method": "POST",
        "path": "/v1/chat/completions",
        "status": 500,
        "kind": "status",
        "fault": "errors",
        "request_id": "r1",
        "detail": "answered 500",
        "caused_by": None,
    } | changes


def outcomes(**changes: Any) -> dict[str, Any]:
    body = {"from": int(NOON.timestamp()), "to": 0, "sent": 100, "ok": 99, "services": {}, "failures": []}
    return {**body, "truncated": False, **changes}


def test_it_is_what_a_drill_asks_for() -> None:
    ground: DrillGround = Stack().ground()
    assert ground


# --- orders


async def test_a_fault_goes_to_the_cluster_with_its_parameters_and_its_limit() -> None:
    stack = Stack()
    await stack.ground().inject(FAULTS["errors"], CHAT, timedelta(minutes=4))
    assert stack.asked == [
        ("PUT", f"http://cluster/v1/faults/{CHAT}", {"kind": "errors", "seconds": 240.0, "share": 0.2})
    ]


async def test_a_fault_is_taken_away_by_name() -> None:
    stack = Stack()
    await stack.ground().clear(CHAT)
    assert stack.asked == [("DELETE", f"http://cluster/v1/faults/{CHAT}", None)]


async def test_extra_load_goes_to_the_load_process() -> None:
    stack = Stack()
    await stack.ground().overload(CHAT, 28.5, timedelta(minutes=4))
    await stack.ground().end_overload(CHAT)
    assert stack.asked == [
        ("PUT", f"http://load/v1/extra-load/{CHAT}", {"rate_per_second": 28.5, "seconds": 240.0}),
        ("DELETE", f"http://load/v1/extra-load/{CHAT}", None),
    ]


@pytest.mark.parametrize("status", [401, 404, 409, 422])
async def test_what_the_stack_refuses_changed_nothing_and_its_sentence_is_told(status: int) -> None:
    with pytest.raises(ActuationRefused, match="has the fault latency already"):
        await answering(status, {"error": "It has the fault latency already."}).ground().clear(CHAT)


async def test_a_refusal_in_other_words_is_told_too() -> None:
    stack = Stack(lambda request: httpx.Response(404, text="Not Found"))
    with pytest.raises(ActuationRefused, match="Not Found"):
        await stack.ground().clear(CHAT)


@pytest.mark.parametrize("status", [301, 500, 502, 503])
async def test_an_answer_that_is_none_may_have_changed_something(status: int) -> None:
    with pytest.raises(SourceUnavailable, match=str(status)):
        await answering(status, {"error": "no"}).ground().clear(CHAT)


async def test_no_answer_names_who_is_silent() -> None:
    def silent(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("refused", request=request)

    with pytest.raises(SourceUnavailable, match="http://load/v1/markers/write did not answer"):
        await Stack(silent).ground().write_markers()


# --- what users got


async def test_outcomes_are_asked_since_an_instant_and_read_whole() -> None:
    stack = answering(200, outcomes(failures=[a_failure(caused_by="r0"), a_failure(status=None, detail=None)]))
    found = await stack.ground().outcomes(NOON + timedelta(milliseconds=250), NOON + timedelta(seconds=9))
    assert stack.asked[0][1] == (
        f"http://load/v1/outcomes?since={NOON.timestamp():.0f}.250&until={NOON.timestamp() + 9:.3f}"
    )
    assert (found.sent, found.complete) == (100, True)
    first, second = found.failures
    assert (first.at, first.fault, first.request_id, first.caused_by) == (NOON, "errors", "r1", "r0")
    assert first.detail == "POST /v1/chat/completions answered 500"
    assert (second.status, second.detail) == (None, "POST /v1/chat/completions")


async def test_outcomes_that_were_not_all_kept_are_incomplete() -> None:
    assert not (await answering(200, outcomes(truncated=True)).ground().outcomes(NOON)).complete


async def test_users_that_started_again_in_between_know_only_a_part() -> None:
    later = outcomes(**{"from": int(NOON.timestamp()) + 30})
    assert not (await answering(200, later).ground().outcomes(NOON)).complete


@pytest.mark.parametrize("body", [{}, [], {"sent": "many"}, outcomes(failures=[{"at": "x"}])])
async def test_an_answer_in_another_shape_is_no_answer(body: Any) -> None:
    with pytest.raises(SourceUnavailable, match="not known"):
        await answering(200, body).ground().outcomes(NOON)


async def test_markers_are_written_and_looked_for_by_their_token() -> None:
    assert await answering(200, {"token": "t1"}).ground().write_markers() == "t1"
    stack = answering(200, {"missing": ["message", "file"]})
    assert await stack.ground().missing_markers("t1") == ("message", "file")
    assert stack.asked == [("POST", "http://load/v1/markers/read", {"token": "t1"})]


async def test_markers_that_could_not_be_looked_for_are_not_called_there() -> None:
    with pytest.raises(SourceUnavailable):
        await answering(200, {}).ground().missing_markers("t1")


# --- what the gateway saw


def a_line(**changes: Any) -> str:
    """A request that the faulty backend answered 503, a second after noon."""
    entry = {
        "start_time": "2026-11-24T12:00:01.000Z",
        "request_id": "r1",
        "upstream_cluster": FAULTY,
        "response_code": 503,
        "response_flags": "UC",
        "duration": 12,
    }
    return json.dumps(entry | changes) + "\n"


def blamed(folder: Path, *lines: str, since: datetime = NOON) -> set[str]:
    log = folder / "gateway-access.json"
    log.write_text("".join(lines))
    return set(Stack().ground(log).requests_seen_at(FAULTY, since))


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"response_code": 500, "response_flags": "-"},
        {"response_code": 0, "response_flags": "UC,DC"},
        {"response_code": None},
        {"response_code": "503"},
        {"response_code": 200, "response_flags": "UC"},  # a stream that broke off
        {"response_code": 200, "response_flags": "UPE"},
    ],
)
def test_what_went_wrong_at_the_backend_is_blamed_on_it(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert blamed(tmp_path, a_line(**changes)) == {"r1"}


@pytest.mark.parametrize(
    "changes",
    [
        {"response_code": 200, "response_flags": "-"},
        {"response_code": 404, "response_flags": "-"},
        {"response_code": 200, "response_flags": None},
        {"response_code": 200, "response_flags": "DC"},  # the caller left
        {"upstream_cluster": f"{CHAT}.monolith"},
        {"upstream_cluster": f"{FAULTY}.old"},
        {"upstream_cluster": None, "detail": FAULTY},
        {"start_time": "2026-11-24T11:59:58.000Z"},
        {"start_time": "soon"},
        {"request_id": None},
    ],
)
def test_what_went_well_or_elsewhere_or_before_is_not(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert blamed(tmp_path, a_line(**changes)) == set()


def test_a_request_that_began_before_the_fault_and_broke_by_it_counts(tmp_path: Path) -> None:
    early = {"start_time": "2026-11-24T11:59:57.000Z"}
    assert blamed(tmp_path, a_line(**early, duration=5000), a_line(**early, request_id="r2", duration=900)) == {"r1"}


def test_a_line_that_is_half_written_or_none_of_ours_is_skipped(tmp_path: Path) -> None:
    lines = [a_line(), "\n", f'"{FAULTY}"\n', f"[{FAULTY}\n", a_line(request_id="r2")[:-30]]
    assert blamed(tmp_path, *lines) == {"r1"}


def test_both_listeners_and_their_rotated_logs_are_read(tmp_path: Path) -> None:
    logs = [tmp_path / "gateway-access.json", tmp_path / "mesh-access.json"]
    for number, log in enumerate(logs):
        log.write_text(a_line(request_id=f"new{number}"))
        log.with_name(f"{log.name}.1").write_text(a_line(request_id=f"old{number}"))
    found = Stack().ground(*logs).requests_seen_at(FAULTY, NOON)
    assert set(found) == {"new0", "new1", "old0", "old1"}


def test_logs_that_are_not_there_yet_blame_nobody(tmp_path: Path) -> None:
    assert set(Stack().ground(tmp_path / "none.json").requests_seen_at(FAULTY, NOON)) == set()
