"""Drills as values: which faults there are, whose fault a failed request was, and whether the drill passed."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from control_plane.errors import InvalidDefinition
from control_plane.topology import SERVICES

FAULT_LIMIT = timedelta(minutes=4)
"""Longest time that a fault stays on; the runtime takes it away by itself after that."""


@dataclass(frozen=True, slots=True)
class Fault:
    """One way to break a service, and what Backstay is expected to do about it."""

    name: str
    summary: str
    expected_action: str  # roll_back or scale
    parameters: Mapping[str, float] = field(default_factory=dict)
    services: tuple[str, ...] = SERVICES


FAULTS: Mapping[str, Fault] = {
    fault.name: fault
    for fault in (
        Fault("errors", "20 % of its requests are answered 500", "roll_back", {"share": 0.2}),
        Fault("latency", "50 % of its requests take 400 ms longer", "roll_back", {"share": 0.5, "delay_ms": 400}),
        Fault("crash", "every replica exits 2 s after each start", "roll_back"),
        # Only requests that wait (for a model provider) can fill slots without filling this machine's two cores.
        Fault("saturation", "twice as many requests as its slots can hold", "scale", services=("ai-gateway-service",)),
    )
}


def fault_for(name: str, service: str) -> Fault:
    """The fault of that name for that service; InvalidDefinition names what there is."""
    fault = FAULTS.get(name)
    if fault is None:
        raise InvalidDefinition(f"There is no drill {name!r}. There are: {', '.join(FAULTS)}.")
    if service not in SERVICES:
        raise InvalidDefinition(f"There is no service {service!r}. There are: {', '.join(SERVICES)}.")
    if service not in fault.services:
        raise InvalidDefinition(f"The drill {name} works on {', '.join(fault.services)}, not on {service}.")
    return fault


@dataclass(frozen=True, slots=True)
class FailedRequest:
    """A request that did not get what it asked for, as its sender saw it."""

    at: datetime
    service: str
    kind: str  # status, timeout, reset, wrong_body, broken_stream, auth, shed
    status: int | None
    fault: str | None  # the marker header of the answer
    request_id: str | None
    detail: str
    caused_by: str | None = None  # id of the call between services whose failure the answer passes on


@dataclass(frozen=True, slots=True)
class Blame:
    """Failed requests, parted by whose fault they were."""

    by_fault: tuple[FailedRequest, ...]
    by_shift: tuple[FailedRequest, ...]


def blame(failures: Sequence[FailedRequest], fault: Fault, seen_at_faulty_backend: Collection[str]) -> Blame:
    """Whose fault each failure was.

    By the fault: the answer carries its marker; or, for a crash, an access log names the faulty backend as the upstream
    of that request, or of the call that it was `caused_by` (`seen_at_faulty_backend` holds such request ids); or, for
    saturation, the request was shed. Everything else was lost to the shift: a wrong body, a 401 after the move, a
    broken stream are never excused.
    """

    def by_fault(failure: FailedRequest) -> bool:
        if failure.fault == fault.name:
            return True
        if fault.name == "crash":
            return failure.request_id in seen_at_faulty_backend or failure.caused_by in seen_at_faulty_backend
        return fault.name == "saturation" and failure.kind == "shed"

    return Blame(
        tuple(failure for failure in failures if by_fault(failure)),
        tuple(failure for failure in failures if not by_fault(failure)),
    )


@dataclass(frozen=True, slots=True)
class DrillTimes:
    """When things happened; None is "did not happen"."""

    injected: datetime | None = None
    first_failure: datetime | None = None  # first request that the fault harmed
    detected: datetime | None = None
    decided: datetime | None = None
    capacity_ready: datetime | None = None
    moved: datetime | None = None
    recovered: datetime | None = None

    def after(self, moment: datetime | None) -> float | None:
        """Seconds from the first harmed request (from the injection where none was seen) to `moment`."""
        start = self.first_failure or self.injected
        return None if moment is None or start is None else max(0.0, (moment - start).total_seconds())


def drill_result(
    fault: Fault,
    service: str,
    times: DrillTimes,
    action: tuple[str, str] | None,
    sent: int,
    blamed: Blame,
    problems: Sequence[str],
    next_step: str | None,
) -> dict[str, Any]:
    """The result in the shape that programs rely on. `problems` are what else went wrong, one sentence each."""
    found = list(problems)
    if times.injected is None:
        found = found or ["The fault was not injected."]
    elif times.detected is None:
        found.append("The fault was not detected in time.")
    elif times.decided is None:
        found.append("The fault was detected, but nothing was decided.")
    elif action is not None and action != (fault.expected_action, service):
        found.append(f"Backstay chose {action[0]} of {action[1]}; expected was {fault.expected_action} of {service}.")
    if times.decided is not None and times.recovered is None:
        found.append("Recovery was not seen before the drill's time was over.")
    if blamed.by_shift:
        found.append(f"{len(blamed.by_shift)} requests were lost to the shift.")
        found += [f"  {f.at:%H:%M:%S} {f.service}: {f.kind} {f.status or ''} {f.detail}" for f in blamed.by_shift[:5]]
    return {
        "drill": fault.name,
        "service": service,
        "outcome": "failed" if found else "passed",
        "first_failure_after_s": None
        if times.first_failure is None or times.injected is None
        else (times.first_failure - times.injected).total_seconds(),
        "detected_after_s": times.after(times.detected),
        "decided_after_s": times.after(times.decided),
        "capacity_ready_after_s": times.after(times.capacity_ready),
        "moved_after_s": times.after(times.moved),
        "recovered_after_s": times.after(times.recovered),
        "action": None if action is None else {"kind": action[0], "target": action[1]},
        "requests": {
            "sent": sent,
            "failed_by_fault": len(blamed.by_fault),
            "lost_to_shift": len(blamed.by_shift),
        },
        "problems": found,
        "next_step": next_step,
    }
