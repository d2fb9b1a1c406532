"""What a saga sees when it looks, and how counters of the data plane are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from control_plane.actions.soundness import SampleCounts
from control_plane.topology import Backend, BackendTraffic, RuntimeState


@dataclass(frozen=True, slots=True)
class Observation:
    """One look at the world."""

    at: datetime
    elapsed: timedelta  # since the current step or the retreat began in this process, by a clock that never jumps
    runtime: RuntimeState | None  # None while the runtime does not answer
    problem: str = ""  # why the runtime did not answer or the last effect was not made
    earlier: RuntimeState | None = None  # a reading of the same step, at least a second older
    samples: SampleCounts | None = None  # None where the current step asks for none, or latency is not measured
    samples_problem: str = ""  # why samples that should be there are not
    stop: str | None = None  # why a person or the kill switch wants the plan to stop
    others: frozenset[str] = frozenset()  # services that other plans move: all of each may come to the monolith


Counters = Mapping[str, Any]
"""Counters of one service as an entry keeps them: backend to [completed, server errors, active]."""


def counters_of(service: str, state: RuntimeState) -> dict[str, list[int]]:
    """What an entry keeps of the data plane; empty when the runtime reports nothing for the service."""
    return {
        backend.value: [traffic.completed, traffic.server_errors, traffic.active]
        for backend, traffic in state.traffic.get(service, {}).items()
    }


@dataclass(frozen=True, slots=True)
class Answers:
    """What a backend answered between two readings."""

    total: int
    bad: int

    @property
    def share(self) -> float | None:
        """Share of bad ones; None without answers."""
        return self.bad / self.total if self.total else None


def answers_since(base: Counters, service: str, backend: Backend, state: RuntimeState) -> Answers | None:
    """Answers of a backend since the counters in `base`; None when either reading lacks it.

    A counter that fell says that the gateway restarted: what it counted since then is all there is.
    """
    now = state.traffic.get(service, {}).get(backend)
    before = base.get(backend.value)
    if now is None or before is None:
        return None
    completed, server_errors = int(before[0]), int(before[1])
    if now.completed < completed or now.server_errors < server_errors:
        return Answers(now.completed, now.server_errors)
    return Answers(now.completed - completed, now.server_errors - server_errors)


def gets_nothing(then: BackendTraffic, now: BackendTraffic) -> bool:
    """Whether no request reached a backend between two readings.

    Requests begun are those completed and those in flight; in-flight ones may finish, so only their sum must stand
    still. It may fall, when callers give up.
    """
    if now.completed < then.completed:  # the gateway restarted: nothing is proven
        return False
    return now.completed + now.active <= then.completed + then.active
