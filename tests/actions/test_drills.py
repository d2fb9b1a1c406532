"""Whose fault a failed request was, and when a drill may call itself passed."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from control_plane.actions.drills import FAULTS, Blame, DrillTimes, FailedRequest, blame, drill_result, fault_for
from control_plane.errors import InvalidDefinition

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
SERVICE = "ai-gateway-service"


def a_failure(**changes: Any) -> FailedRequest:
    return replace(FailedRequest(NOON, SERVICE, "status", 500, None, "r1", ""), **changes)


def some_times(**changes: Any) -> DrillTimes:
    """Everything happened, five seconds apart, the first failure a second after the injection."""
    steps = ("detected", "decided", "capacity_ready", "moved", "recovered")
    times = {step: NOON + timedelta(seconds=1 + 5 * (number + 1)) for number, step in enumerate(steps)}
    return replace(DrillTimes(NOON, NOON + timedelta(seconds=1), **times), **changes)


def a_result(**changes: Any) -> dict[str, Any]:
    values: dict[str, Any] = {
        "fault": FAULTS["errors"],
        "service": SERVICE,
        "times": some_times(),
        "action": ("roll_back", SERVICE),
        "sent": 1000,
        "blamed": Blame((), ()),
        "problems": [],
        "next_step": None,
    }
    return drill_result(**(values | changes))


def test_an_answer_with_the_faults_marker_is_the_faults() -> None:
    blamed = blame([a_failure(fault="errors")], FAULTS["errors"], ())
    assert (len(blamed.by_fault), len(blamed.by_shift)) == (1, 0)


@pytest.mark.parametrize("kind", ["status", "timeout", "reset", "wrong_body", "broken_stream", "auth", "shed"])
def test_a_failure_without_the_marker_is_lost_to_the_shift_however_it_looks(kind: str) -> None:
    assert len(blame([a_failure(kind=kind)], FAULTS["errors"], {"r1"}).by_shift) == 1


def test_the_marker_of_another_fault_excuses_nothing() -> None:
    assert blame([a_failure(fault="latency")], FAULTS["errors"], ()).by_shift


def test_a_crash_is_blamed_only_where_the_gateway_saw_the_faulty_backend() -> None:
    failures = [a_failure(request_id="seen", kind="reset"), a_failure(request_id="unseen", kind="reset")]
    blamed = blame(failures, FAULTS["crash"], {"seen"})
    assert [f.request_id for f in blamed.by_fault] == ["seen"]
    assert [f.request_id for f in blamed.by_shift] == ["unseen"]


def test_shed_requests_are_the_overloads_only_when_overload_is_the_drill() -> None:
    assert blame([a_failure(kind="shed", status=503)], FAULTS["saturation"], ()).by_fault


def test_a_drill_passes_when_everything_was_seen_and_nothing_was_lost() -> None:
    result = a_result()
    assert result["outcome"] == "passed"
    assert result["detected_after_s"] == 5
    assert result["moved_after_s"] == 20
    assert result["requests"] == {"sent": 1000, "failed_by_fault": 0, "lost_to_shift": 0}


@pytest.mark.parametrize(
    "changes",
    [
        {"times": some_times(detected=None, decided=None, moved=None, recovered=None), "action": None},
        {"times": some_times(recovered=None)},
        {"action": ("roll_back", "identity-service")},
        {"action": ("scale", SERVICE)},
        {"blamed": Blame((), (a_failure(),))},
        {"problems": ["A message was lost."]},
    ],
)
def test_a_drill_fails_when_anything_is_missing_wrong_or_lost(changes: dict[str, Any]) -> None:
    result = a_result(**changes)
    assert result["outcome"] == "failed"
    assert result["problems"]


def test_unknown_drills_and_services_are_refused_with_what_there_is() -> None:
    with pytest.raises(InvalidDefinition, match="errors, latency, crash, saturation"):
        fault_for("gremlins", SERVICE)
    with pytest.raises(InvalidDefinition, match="identity-service"):
        fault_for("errors", "billing-service")
    with pytest.raises(InvalidDefinition, match="not on file-service"):
        fault_for("saturation", "file-service")
