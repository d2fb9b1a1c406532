"""From readings to evidence: what one tick measured, in the light of the last hour. A state machine, no clock."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from control_plane.decisions.capacity import Demand
from control_plane.decisions.evidence import (
    NEVER,
    ActiveSaga,
    Change,
    DestinationEvidence,
    Drill,
    Evidence,
    FastPath,
    RecentAction,
    ServiceEvidence,
    breach_since,
    fast_paths,
    judged_since,
    slo_reading,
)
from control_plane.decisions.saturation import SlotUse, peak_demand, slot_use
from control_plane.decisions.terms import Policy
from control_plane.slo.events import RecentEvents, Series
from control_plane.slo.state import Kind, SloState, Verdict
from control_plane.topology import MONOLITH, Backend, RuntimeState
from control_plane.tracing.call_attribution import (
    Answers,
    Attribution,
    CallCounts,
    attribute_errors,
    attribute_latency,
    call_counts,
)

T = TypeVar("T")

CALLS_REACH = timedelta(seconds=75)
"""How far back calls are read: a minute, and the scrape before it."""
COUNTED_SECONDS = 30.0
"""Stretch over which answers and calls are counted when nothing is wrong."""
BASELINE_AGE = timedelta(seconds=60)
"""A healthy baseline is at least this old, so that the beginning of a breach is not in it."""
ESTIMATED_ABOVE = 0.2
"""Utilisation above which a capacity is estimated."""
USUAL_OVER = timedelta(hours=1)
DEMAND_OVER = timedelta(minutes=5)
RESTARTS_OVER = timedelta(seconds=60)


@dataclass(frozen=True, slots=True)
class Readings:
    """What one tick fetched. None: it could not be had."""

    states: tuple[SloState, ...]
    calls: Sequence[Series] | None  # raw samples of CALL_SELECTORS over CALLS_REACH
    slots: Sequence[Series] | None  # raw samples of SATURATION_SELECTORS over `slots_reach`
    runtime: RuntimeState | None
    changes: Mapping[str, tuple[Change, ...]] = field(default_factory=dict)  # by service
    recent_actions: tuple[RecentAction, ...] | None = ()
    active_sagas: tuple[ActiveSaga, ...] = ()
    kill_switch: str | None = None
    drill: Drill | None = None
    blind: tuple[str, ...] = ()


def slots_reach(policy: Policy) -> timedelta:
    """How far back slots are read: the policy wants to know the largest demand of that long."""
    return policy.scale.stable_for + timedelta(seconds=15)


@dataclass(slots=True)
class _Past:
    """What is remembered of one service."""

    breach_since: datetime | None = None
    unknown_since: datetime | None = None
    rates: deque[tuple[datetime, float]] = field(default_factory=deque)  # requests/s, breaches left out
    demands: deque[tuple[datetime, Demand]] = field(default_factory=deque)  # likewise
    restarts: deque[tuple[datetime, int]] = field(default_factory=deque)


class Gatherer:
    """One for all services. Call `gather` once a tick. A clock that went back makes it forget what it remembered."""

    def __init__(self, services: Sequence[str], policy: Policy) -> None:
        self._services = tuple(services)
        self._policy = policy
        self._past = {name: _Past() for name in (*services, MONOLITH)}
        self._baselines: deque[tuple[datetime, CallCounts]] = deque()  # of ticks without a breach, oldest first
        self._callers: Mapping[str, frozenset[str]] = {}

    def gather(self, readings: Readings, now: datetime) -> Evidence:
        """Everything that decisions may rest on at `now`."""
        counts = (
            None
            if readings.calls is None
            else call_counts(readings.calls, now.timestamp() - COUNTED_SECONDS, now.timestamp())
        )
        slots = None if readings.slots is None else slot_use(readings.slots, now.timestamp())
        reach = self._policy.scale.stable_for.total_seconds()
        peaks = {} if readings.slots is None else peak_demand(readings.slots, now.timestamp(), reach)
        self._count_restarts(readings.runtime, now)
        by_service: dict[str, list[SloState]] = {name: [] for name in self._services}
        for state in readings.states:
            if state.service in by_service:
                by_service[state.service].append(state)
        if counts is not None and counts.calls:
            self._callers = counts.callers()
        callers = self._callers
        tests: dict[str, tuple[FastPath, ...]] = {}
        judged: dict[str, datetime | None] = {}
        for name, states in by_service.items():
            judged[name] = judged_since(name, readings.recent_actions or (), callers, now)
            tests[name] = fast_paths(states, self._policy.fast_path, judged[name])
            past = self._past[name]
            began = breach_since(past.breach_since, tests[name])
            blind = any(state.kind is Kind.ERRORS and state.verdict is Verdict.UNKNOWN for state in states)
            if began is not None or not blind:  # a breach is not over because nobody can see it
                past.breach_since = began
            past.unknown_since = _since(past.unknown_since, now, any(map(_is_unknown, states)) or not states)
        baseline = self._baseline(counts, now)
        return Evidence(
            at=_newest(readings.states),
            services=tuple(
                self._service(
                    name, by_service[name], tests[name], judged[name], readings, counts, baseline, slots, peaks, now
                )
                for name in self._services
            ),
            monolith=self._monolith(readings.runtime, counts, slots),
            recent_actions=readings.recent_actions,
            kill_switch=readings.kill_switch,
            active_sagas=readings.active_sagas,
            drill=readings.drill,
            blind=readings.blind,
        )

    def demand(self) -> dict[str, Demand]:
        """Demand by service as it was before any breach that goes on now, for plans; unmeasured services are absent."""
        return {name: found for name in self._services if (found := self._usual_demand(name)) is not None}

    def callers(self, service: str) -> frozenset[str]:
        """Services that depend on it, directly or through others, as far as calls were seen."""
        return self._callers.get(service, frozenset())

    def _service(
        self,
        name: str,
        states: Sequence[SloState],
        tests: tuple[FastPath, ...],
        judged: datetime | None,
        readings: Readings,
        counts: CallCounts | None,
        baseline: CallCounts | None,
        slots: SlotUse | None,
        peaks: Mapping[str, Demand],
        now: datetime,
    ) -> ServiceEvidence:
        past, runtime = self._past[name], readings.runtime
        rate = request_rate(states)
        if past.breach_since is None:
            if rate is not None:
                _keep(past.rates, now, rate, USUAL_OVER)
            if slots is not None and name in slots.services:
                _keep(past.demands, now, slots.services[name], DEMAND_OVER)
        fired = [test for test in tests if test.result.fired]
        return ServiceEvidence(
            service=name,
            slos=tuple(map(slo_reading, states)),
            fast_paths=tests,
            attributions=self._attributions(name, fired, readings.calls, baseline, now) if fired else (),
            answers=None if counts is None else counts.answers.get(name, {}).get(Backend.SERVICE),
            saturation=None if slots is None else slots.deployments.get(name),
            peak=peaks.get(name),
            demand=self._usual_demand(name),
            requests_per_second=rate,
            usual_requests_per_second=_mean([value for _, value in past.rates]),
            deployment=runtime.deployments.get(name) if runtime else None,
            weights=runtime.weights.get(name) if runtime else None,
            restarts_recently=self._restarts(name, judged),
            changes=readings.changes.get(name, ()),
            breach_since=past.breach_since,
            unknown_since=past.unknown_since,
            judged_since=judged,
        )

    def _attributions(
        self,
        victim: str,
        fired: Iterable[FastPath],
        calls: Sequence[Series] | None,
        baseline: CallCounts | None,
        now: datetime,
    ) -> tuple[Attribution, ...]:
        """Whose fault each kind of trouble is, counted from its beginning, at most as far back as calls are read."""
        if calls is None:
            return ()
        began = self._past[victim].breach_since or now
        since = max(began.timestamp() - 1.0, now.timestamp() - CALLS_REACH.total_seconds() + 5.0)
        counts = call_counts(calls, min(since, now.timestamp() - 10.0), now.timestamp())
        confidence = self._policy.min_culprit_confidence
        found = []
        for kind in sorted({test.kind for test in fired}):
            if kind is Kind.ERRORS:
                found.append(attribute_errors(counts, victim, confidence))
            elif kind is Kind.LATENCY:
                found.append(attribute_latency(counts, baseline, victim, confidence))
        return tuple(found)

    def _monolith(
        self, runtime: RuntimeState | None, counts: CallCounts | None, slots: SlotUse | None
    ) -> DestinationEvidence | None:
        if runtime is None:
            return None
        own = Answers()
        for backends in (counts.answers if counts else {}).values():
            own += backends.get(Backend.MONOLITH, Answers())
        use = slots.deployments.get(MONOLITH) if slots else None
        return DestinationEvidence(
            deployment=runtime.deployments.get(MONOLITH),
            load=use.used if use else None,
            restarts_recently=self._restarts(MONOLITH, None),
            answered=own.answered,
            failed=own.failed,
        )

    def _baseline(self, counts: CallCounts | None, now: datetime) -> CallCounts | None:
        """The newest counts of a calm tick that lies far enough before the last calm one: no breach had begun by then.

        Until there are such, the oldest of a breach's eve. None while nothing is known of calm times.
        """
        calm = all(past.breach_since is None for past in self._past.values())
        if counts is not None and calm:
            _keep(self._baselines, now, counts, USUAL_OVER)
        if not self._baselines:
            return None
        newest = self._baselines[-1][0]
        while len(self._baselines) > 1 and newest - self._baselines[1][0] >= BASELINE_AGE:
            self._baselines.popleft()
        at, found = self._baselines[0]
        return found if newest - at >= BASELINE_AGE or not calm else None

    def _count_restarts(self, runtime: RuntimeState | None, now: datetime) -> None:
        if runtime is None:
            return
        for name, deployment in runtime.deployments.items():
            if name in self._past:
                _keep(self._past[name].restarts, now, deployment.restarts, RESTARTS_OVER)

    def _restarts(self, name: str, judged_since: datetime | None) -> int:
        """Within a minute; those before the end of the last action that concerns the service prove nothing."""
        seen = [count for at, count in self._past[name].restarts if judged_since is None or at >= judged_since]
        return max(0, seen[-1] - seen[0]) if seen else 0

    def _usual_demand(self, name: str) -> Demand | None:
        seen = [demand for _, demand in self._past[name].demands]
        if not seen:
            return None
        total = Demand(0.0)
        for each in seen:
            total += each
        return total * (1 / len(seen))


def capacity_estimate(service: ServiceEvidence) -> float | None:
    """Requests per second that the service's own replicas could carry, by proportion: rate / utilisation.

    None at 20 % utilisation or below, where the proportion is mostly noise, and while another backend answers too. It
    is shown and never judged: only a load test proves a capacity.
    """
    rate, saturation, weights = service.requests_per_second, service.saturation, service.weights
    if rate is None or saturation is None or weights is None or weights.service < 100:
        return None
    if saturation.utilisation <= ESTIMATED_ABOVE:
        return None
    return rate / saturation.utilisation


def request_rate(states: Iterable[SloState]) -> float | None:
    """Requests per second at the gateway over the last half minute, by the errors SLO; None when not known."""
    for state in states:
        if state.kind is Kind.ERRORS and state.recent is not None and state.verdict is not Verdict.UNKNOWN:
            return _rate(state.recent)
    return None


def _rate(recent: RecentEvents) -> float | None:
    if not recent.seconds:
        return None
    end = recent.seconds[-1]
    within = [total for second, total in zip(recent.seconds, recent.total, strict=True) if second > end - 30]
    spanned = min(30, end - recent.seconds[0] + 1)
    return sum(within) / spanned


def _is_unknown(state: SloState) -> bool:
    return state.verdict is Verdict.UNKNOWN and state.kind is not Kind.THROUGHPUT


def _since(previous: datetime | None, now: datetime, holds: bool) -> datetime | None:
    return min(previous or now, now) if holds else None


def _newest(states: Iterable[SloState]) -> datetime:
    """When the newest part was measured; NEVER, when nothing was, counts as stale."""
    return max((s.last_sample_at for s in states if s.last_sample_at is not None), default=NEVER)


def _keep(history: deque[tuple[datetime, T]], now: datetime, value: T, over: timedelta) -> None:
    if history and history[-1][0] > now:
        history.clear()
    history.append((now, value))
    while now - history[0][0] > over:
        history.popleft()


def _mean(values: Sequence[float]) -> float | None:
    return sum(values) / len(values) if values else None
