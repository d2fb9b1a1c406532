"""What Backstay knows at the end of a tick, as one frozen value: console, API and alerts read nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum

from control_plane.slo.state import SloState
from control_plane.topology import RuntimeState


class Tone(StrEnum):
    """How an entry of the timeline is meant: harm, repair, a change by somebody, or a remark."""

    BAD = "bad"
    GOOD = "good"
    CHANGE = "change"
    NOTE = "note"


@dataclass(frozen=True, slots=True)
class Moment:
    """One entry of the timeline: something that happened, in plain words."""

    at: datetime
    tone: Tone
    title: str  # short: "ROLL BACK ai-gateway-service"
    text: str = ""  # one sentence with its numbers
    service: str | None = None
    link: str | None = None  # path inside the console


@dataclass(frozen=True, slots=True)
class SourceHealth:
    """Whether one outside system answers. `detail` says what was last seen or what went wrong."""

    name: str
    ok: bool
    detail: str


@dataclass(frozen=True, slots=True)
class RunningPlan:
    """A plan that is being carried out now."""

    saga_id: str
    kind: str  # rollback, scale, cutover, restore
    target: str
    step: str
    started_at: datetime


@dataclass(frozen=True, slots=True)
class Situation:
    """One consistent picture; `at` is the end of the tick that made it."""

    at: datetime
    states: tuple[SloState, ...] = ()
    runtime: RuntimeState | None = None  # None while the runtime does not answer
    plans: tuple[RunningPlan, ...] = ()
    sources: tuple[SourceHealth, ...] = ()
    request_rates: Mapping[str, float] = field(default_factory=dict)  # requests/s at the gateway by service
    capacity_estimates: Mapping[str, float] = field(default_factory=dict)  # requests/s by service, no load test
    drill: str | None = None  # name and target of the drill that runs now
    frozen: str | None = None  # the reason given with `freeze`; None when automatic action is allowed
    automatic: bool = False  # whether the policy lets Backstay act by itself
    tick_took: timedelta | None = None
    queries: int = 0  # sent to Prometheus in this tick
