"""Everything that a decision may rest on, as one frozen value. What is not known is None, never zero."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import StrEnum

from control_plane.decisions.capacity import Demand
from control_plane.decisions.reasons import Move
from control_plane.decisions.saturation import Saturation
from control_plane.decisions.statistics import FastPathResult, fast_path
from control_plane.decisions.terms import FastPathTerms
from control_plane.slo.state import Kind, SloState, Verdict
from control_plane.topology import Deployment, Weights
from control_plane.tracing.call_attribution import Answers, Attribution

ALL_SERVICES = "all"
NEVER = datetime.min.replace(tzinfo=UTC)
"""When evidence was measured that never was."""

SETTLES_AFTER = timedelta(seconds=15)
"""Once more replicas came: until then gauges, averaged this long, and requests that queued tell of the time before."""


@dataclass(frozen=True, slots=True)
class SloReading:
    """What a decision needs of one SLO's state, without its samples."""

    name: str
    kind: Kind
    target: str
    verdict: Verdict
    reason: str
    burn_rate_5m: float | None
    burn_rate_1h: float | None
    budget_remaining_ratio: float | None
    coverage_ratio: float | None
    firing: tuple[str, ...]  # tiers of the burn-rate alerts that fire
    last_sample_at: datetime | None


@dataclass(frozen=True, slots=True)
class FastPath:
    """A fast-path test of one SLO."""

    slo: str
    kind: Kind
    result: FastPathResult


class ChangeKind(StrEnum):
    DEPLOY = "deploy"
    CONFIG = "config"
    WEIGHTS_FORWARD = "weights_forward"  # more traffic to the microservice
    WEIGHTS_BACK = "weights_back"
    SCALE = "scale"


@dataclass(frozen=True, slots=True)
class Change:
    """Something that was changed about a service."""

    at: datetime
    kind: ChangeKind
    summary: str  # "v1.4.2", "25 -> 50 %"
    drill: bool = False  # part of a drill, or its putting things back: nothing that a breach is blamed on


@dataclass(frozen=True, slots=True)
class ServiceEvidence:
    """What is known of one service."""

    service: str
    slos: tuple[SloReading, ...] = ()
    fast_paths: tuple[FastPath, ...] = ()
    attributions: tuple[Attribution, ...] = ()  # of this service's trouble, by symptom; empty when nobody asked
    answers: Answers | None = None  # of its own deployment, as it counts them itself, over the last half minute
    saturation: Saturation | None = None  # of its own deployment
    peak: Demand | None = None  # largest demand on its own deployment while `ScaleTerms.stable_for` went by
    demand: Demand | None = None  # on all backends, before any breach that goes on now
    requests_per_second: float | None = None  # at the gateway
    usual_requests_per_second: float | None = None  # over the last hour or what there is of it, the breach left out
    deployment: Deployment | None = None
    weights: Weights | None = None
    restarts_recently: int = 0  # of its replicas, within a minute
    changes: tuple[Change, ...] = ()
    breach_since: datetime | None = None  # begin of the breach that goes on now
    unknown_since: datetime | None = None
    judged_since: datetime | None = None  # end of the last action that concerns it: older events prove nothing


@dataclass(frozen=True, slots=True)
class DestinationEvidence:
    """The monolith, as the place that users would be moved to."""

    deployment: Deployment | None
    load: Demand | None  # slots in use and waiting now; None is not known
    restarts_recently: int = 0
    answered: float = 0.0  # by the monolith, all services together, over the last half minute
    failed: float = 0.0


@dataclass(frozen=True, slots=True)
class ActiveSaga:
    """A plan that is being carried out."""

    id: str
    kind: str
    target: str  # a service, a deployment or "all"
    services: tuple[str, ...] = ()  # whose traffic it moves
    to_monolith: bool = False


@dataclass(frozen=True, slots=True)
class RecentAction:
    """An automatic action of the past, remembered across restarts."""

    at: datetime
    move: Move
    target: str
    drill: bool = False  # uses up neither cooldown nor budget
    ended_at: datetime | None = None  # None while it goes on


@dataclass(frozen=True, slots=True)
class Drill:
    """A drill that runs now."""

    name: str
    service: str


@dataclass(frozen=True, slots=True)
class Evidence:
    """Everything that is known at one moment. `at` is when the newest part of it was measured, NEVER if nothing was."""

    at: datetime
    services: tuple[ServiceEvidence, ...]
    monolith: DestinationEvidence | None  # None: the runtime does not answer
    recent_actions: tuple[RecentAction, ...] | None  # None: the memory of actions cannot be read
    kill_switch: str | None = None  # the reason given with `freeze`
    active_sagas: tuple[ActiveSaga, ...] = ()
    drill: Drill | None = None
    blind: tuple[str, ...] = ()  # sources that do not answer, one plain phrase each


def slo_reading(state: SloState) -> SloReading:
    """The state of an SLO as far as decisions look at it."""
    return SloReading(
        name=state.name,
        kind=state.kind,
        target=state.target,
        verdict=state.verdict,
        reason=state.reason,
        burn_rate_5m=state.burn_rates.get("5m"),
        burn_rate_1h=state.burn_rates.get("1h"),
        budget_remaining_ratio=state.budget_remaining_ratio,
        coverage_ratio=state.coverage_ratio,
        firing=tuple(alert.tier for alert in state.alerts if alert.firing),
        last_sample_at=state.last_sample_at,
    )


def fast_paths(
    states: Iterable[SloState], terms: FastPathTerms, judged_since: datetime | None = None
) -> tuple[FastPath, ...]:
    """The fast-path tests of one service's SLOs. What is unknown is not tested."""
    since = None if judged_since is None else judged_since.timestamp()
    tests: list[FastPath] = []
    for state in states:
        times_budget = {
            Kind.ERRORS: terms.errors_times_budget,
            Kind.LATENCY: terms.latency_times_budget,
        }.get(state.kind)
        if times_budget is None or state.recent is None or state.verdict is Verdict.UNKNOWN:
            continue
        null_share = min(0.5, times_budget * float(1 - Decimal(state.target)))
        result = fast_path(
            state.recent,
            null_share,
            alpha=terms.alpha,
            windows=terms.windows_seconds,
            bad_seconds=terms.bad_seconds,
            since=since,
        )
        tests.append(FastPath(state.name, state.kind, result))
    return tuple(tests)


def breach_since(previous: datetime | None, tests: Iterable[FastPath]) -> datetime | None:
    """Begin of the breach that goes on now; None when none does.

    `previous` is the answer of the tick before: a breach keeps its begin as long as it goes on, also when its first
    events have left the windows.
    """
    fired = [test.result.began_at for test in tests if test.result.fired and test.result.began_at is not None]
    if not fired:
        return None
    began = datetime.fromtimestamp(min(fired), UTC)
    return began if previous is None else min(previous, began)


def judged_since(
    service: str,
    actions: Sequence[RecentAction],
    callers: Mapping[str, frozenset[str]],
    now: datetime,
    within: timedelta = timedelta(minutes=10),
) -> datetime | None:
    """End of the last action that changed what `service` or a service it depends on does; drills count as well.

    `callers` names, by service, all that depend on it: their users recover with it, and not a moment before.
    """
    ends = [
        action.ended_at + (SETTLES_AFTER if action.move is Move.SCALE_OUT else timedelta(0))
        for action in actions
        if action.ended_at is not None
        and now - action.ended_at <= within
        and (action.target in (service, ALL_SERVICES) or service in callers.get(action.target, frozenset()))
    ]
    return max(ends, default=None)
