"""From readings to evidence: what one tick measured, in the light of what was before."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import numpy as np
import pytest

from control_plane.decisions.capacity import Demand
from control_plane.decisions.evidence import NEVER, Evidence, RecentAction, ServiceEvidence
from control_plane.decisions.gathering import Gatherer, Readings, capacity_estimate, request_rate, slots_reach
from control_plane.decisions.policy import decide
from control_plane.decisions.reasons import Move, Reason
from control_plane.decisions.saturation import Saturation
from control_plane.slo.events import RecentEvents, Series
from control_plane.slo.state import Kind, SloState, Verdict
from control_plane.topology import MONOLITH, SERVICES, Deployment, RuntimeState, Weights
from control_plane.tracing.call_attribution import AttributionVerdict
from tests.console.console_builders import an_slo_state
from tests.decisions.decision_builders import AUTO, GATEWAY, IDENTITY, NOON, SEARCH, a_service

SECOND = timedelta(seconds=1)


def recent(now: datetime, bad: float = 0.0, total: float = 20.0, seconds: int = 60) -> RecentEvents:
    """One scrape a second up to `now`; the last ten seconds with `bad` bad events each."""
    end = int(now.timestamp())
    times = tuple(range(end - seconds + 1, end + 1))
    return RecentEvents(times, (total,) * seconds, (0.0,) * (seconds - 10) + (bad,) * 10)


def a_state(
    now: datetime, service: str = GATEWAY, kind: Kind = Kind.ERRORS, bad: float = 0.0, **changes: Any
) -> SloState:
    values: dict[str, Any] = {"recent": recent(now, bad), "last_sample_at": now - SECOND}
    if kind is Kind.LATENCY:
        values["target"] = "0.95"
    return an_slo_state(service, kind, **(values | changes))


def lost(state: SloState) -> SloState:
    return replace(state, verdict=Verdict.UNKNOWN, recent=None)


def a_counter(name: str, now: datetime, per_second: float, **labels: str) -> Series:
    """A counter of the last 75 s, scraped every five seconds."""
    end = int(now.timestamp()) // 5 * 5
    times = np.arange(end - 70, end + 1, 5, dtype=np.float64)
    labels.setdefault("instance", labels.get("service", ""))
    return Series({"__name__": name, **labels}, times, per_second * (times - 1_000_000))


def some_calls(now: datetime, *, identity_fails: bool = False, slow: bool = False) -> list[Series]:
    """The gateway answers 20 requests a second and asks identity for each. Slow: half of them take 400 ms longer."""
    failing = 4.0 if identity_fails else 0.0
    series = []
    for service in (GATEWAY, IDENTITY):
        mine = {"service": service, "backend": "service"}
        series += [
            a_counter("http_requests_total", now, 20.0 - failing, **mine, status_code="200"),
            a_counter("http_requests_total", now, failing, **mine, status_code="500"),
            a_counter("http_request_own_duration_seconds_count", now, 20.0, **mine),
            a_counter("http_request_own_duration_seconds_sum", now, 4.4 if slow else 0.4, **mine),
            a_counter("http_request_own_duration_seconds_bucket", now, 10.0 if slow else 20.0, **mine, le="0.2"),
        ]
    caller = {"service": GATEWAY, "peer": IDENTITY}
    series.append(a_counter("http_client_requests_total", now, 20.0 - failing, **caller, outcome="ok"))
    series.append(a_counter("http_client_requests_total", now, failing, **caller, outcome="error"))
    return series


def some_slots(now: datetime, used: Mapping[str, float], replicas: int = 2) -> list[Series]:
    """Slots in use by deployment; 16 slots a replica."""
    end = int(now.timestamp()) // 5 * 5
    times = np.arange(end - 615, end + 1, 5, dtype=np.float64)
    series = []
    for deployment, busy in used.items():
        where = {"deployment": deployment, "service": deployment, "kind": "request"}
        for number in range(replicas):
            replica = {"replica": str(number), "instance": f"{deployment}:{number}"}
            each = np.full(len(times), busy / replicas)
            series.append(Series({"__name__": "http_slots_in_use", **where, **replica}, times, each))
            series.append(Series({"__name__": "http_slots", **where, **replica}, times, np.full(len(times), 16.0)))
    return series


def a_runtime(now: datetime, restarts: int = 0, monolith_restarts: int = 0) -> RuntimeState:
    deployments = {name: Deployment(name, 2, 2, 0, 6, 16, restarts=restarts) for name in SERVICES}
    deployments[MONOLITH] = Deployment(MONOLITH, 1, 1, 0, 6, 48, restarts=monolith_restarts)
    return RuntimeState(now, deployments, {name: Weights(100, 0) for name in SERVICES}, {})


@dataclass
class Ticks:
    """A gatherer that is asked every five seconds; by default it reads a calm suite."""

    gatherer: Gatherer = field(default_factory=lambda: Gatherer(SERVICES, AUTO))
    now: datetime = NOON

    def gather(self, states: Sequence[SloState] | None = None, **readings: Any) -> Evidence:
        """One tick, and five seconds pass."""
        calm: dict[str, Any] = {
            "calls": some_calls(self.now),
            "slots": some_slots(self.now, {GATEWAY: 8.0, MONOLITH: 2.0}),
            "runtime": a_runtime(self.now),
        }
        if states is None:
            states = [a_state(self.now, name) for name in SERVICES]
        evidence = self.gatherer.gather(Readings(tuple(states), **(calm | readings)), self.now)
        self.now += 5 * SECOND
        return evidence

    def calm(self, seconds: float) -> Evidence:
        for _ in range(int(seconds // 5)):
            evidence = self.gather()
        return evidence


def of(evidence: Evidence, service: str = GATEWAY) -> ServiceEvidence:
    return next(each for each in evidence.services if each.service == service)


# --- what one reading says


def test_a_calm_reading_becomes_evidence_of_everything() -> None:
    evidence = Ticks().gather()
    mine = of(evidence)
    assert evidence.at == NOON - SECOND
    assert [each.service for each in evidence.services] == list(SERVICES)
    assert (mine.requests_per_second, mine.breach_since, mine.unknown_since) == (20.0, None, None)
    assert mine.answers is not None
    assert mine.answers.answered == pytest.approx(600, rel=0.1)
    assert mine.saturation is not None
    assert (mine.saturation.slots, mine.saturation.used) == (Demand(32.0), Demand(8.0))
    assert (mine.demand, mine.peak) == (Demand(8.0), Demand(8.0))
    assert mine.weights == Weights(100, 0)
    assert evidence.monolith is not None
    assert evidence.monolith.load == Demand(2.0)


def test_sources_that_did_not_answer_leave_nothing_but_not_known() -> None:
    evidence = Ticks().gather((), calls=None, slots=None, runtime=None, recent_actions=None)
    mine = of(evidence)
    assert evidence.at == NEVER
    assert (evidence.monolith, evidence.recent_actions) == (None, None)
    assert (mine.answers, mine.saturation, mine.peak, mine.demand, mine.deployment, mine.weights) == (None,) * 6
    assert (mine.requests_per_second, mine.usual_requests_per_second) == (None, None)
    assert mine.unknown_since == NOON


def test_what_was_never_measured_moves_nothing_and_says_so() -> None:
    decisions = decide(Ticks().gather(()), AUTO, NOON)
    assert {decision.reason for decision in decisions} == {Reason.EVIDENCE_STALE}
    assert decisions[0].sentence == "Nothing has been measured yet."


def test_a_service_that_counts_nothing_itself_is_not_called_idle() -> None:
    assert of(Ticks().gather(), SEARCH).answers is None


def test_the_rate_is_that_of_the_last_half_minute() -> None:
    busy = RecentEvents(tuple(range(1, 61)), (1.0,) * 30 + (30.0,) * 30, (0.0,) * 60)
    assert request_rate([a_state(NOON, recent=busy)]) == 30.0


@pytest.mark.parametrize(
    "changes", [{"verdict": Verdict.UNKNOWN}, {"recent": None}, {"recent": RecentEvents((), (), ())}]
)
def test_a_rate_that_is_not_known_is_not_zero(changes: dict[str, Any]) -> None:
    assert request_rate([a_state(NOON, **changes)]) is None


def test_without_traffic_the_rate_is_zero() -> None:
    quiet = a_state(NOON, verdict=Verdict.NO_TRAFFIC, recent=recent(NOON, total=0.0))
    assert request_rate([quiet]) == 0.0


def test_a_young_series_has_the_rate_of_what_there_is() -> None:
    assert request_rate([a_state(NOON, recent=recent(NOON, seconds=12))]) == 20.0


def test_slots_are_read_as_far_back_as_scaling_in_wants_to_know() -> None:
    assert slots_reach(AUTO) > AUTO.scale.stable_for


# --- breaches


def test_a_breach_begins_with_its_first_bad_second_and_keeps_its_begin() -> None:
    ticks = Ticks()
    ticks.calm(60)
    first = of(ticks.gather([a_state(ticks.now, bad=4.0)])).breach_since
    assert first is not None
    assert ticks.now - first == pytest.approx(15 * SECOND, abs=2 * SECOND)
    for _ in range(5):
        later = of(ticks.gather([a_state(ticks.now, bad=4.0)])).breach_since
    assert later == first


def test_a_breach_is_over_when_nothing_bad_is_seen_any_more() -> None:
    ticks = Ticks()
    ticks.gather([a_state(ticks.now, bad=4.0)])
    assert of(ticks.gather()).breach_since is None


def test_a_breach_is_not_over_because_nobody_can_see_it() -> None:
    ticks = Ticks()
    began = of(ticks.gather([a_state(ticks.now, bad=4.0)])).breach_since
    assert of(ticks.gather([lost(a_state(ticks.now))])).breach_since == began
    assert of(ticks.gather()).breach_since is None


def test_what_was_before_an_action_is_no_breach_after_it() -> None:
    ticks = Ticks()
    ended = RecentAction(NOON - 30 * SECOND, Move.ROLL_BACK, GATEWAY, ended_at=NOON)
    mine = of(ticks.gather([a_state(ticks.now, bad=4.0)], recent_actions=(ended,)))
    assert (mine.judged_since, mine.breach_since) == (NOON, None)


def test_a_caller_is_judged_anew_after_an_action_on_whom_it_calls() -> None:
    ended = RecentAction(NOON - 30 * SECOND, Move.ROLL_BACK, IDENTITY, ended_at=NOON - SECOND)
    ticks = Ticks()
    evidence = ticks.gather(recent_actions=(ended,))
    assert of(evidence, GATEWAY).judged_since == NOON - SECOND
    assert of(evidence, SEARCH).judged_since is None
    assert ticks.gatherer.callers(IDENTITY) == {GATEWAY}
    ticks.gather(calls=[])  # nothing was seen for a moment
    assert ticks.gatherer.callers(IDENTITY) == {GATEWAY}
    assert ticks.gatherer.callers(SEARCH) == frozenset()


def test_not_knowing_is_remembered_since_it_began_and_forgotten_when_it_ends() -> None:
    ticks = Ticks()
    for _ in range(3):
        evidence = ticks.gather([lost(a_state(ticks.now))])
    assert of(evidence).unknown_since == NOON
    assert of(ticks.gather()).unknown_since is None


def test_capacity_that_no_load_test_has_proven_is_no_blindness() -> None:
    ticks = Ticks()
    states = [a_state(ticks.now), lost(a_state(ticks.now, kind=Kind.THROUGHPUT))]
    assert of(ticks.gather(states)).unknown_since is None


# --- the usual


def test_demand_and_rate_are_those_of_before_the_breach() -> None:
    ticks = Ticks()
    ticks.calm(60)
    for _ in range(6):
        states = [a_state(ticks.now, bad=4.0, recent=recent(ticks.now, bad=8.0, total=40.0))]
        evidence = ticks.gather(states, slots=some_slots(ticks.now, {GATEWAY: 30.0}))
    assert of(evidence).demand == Demand(8.0)
    assert of(evidence).usual_requests_per_second == 20.0
    assert of(evidence).requests_per_second == 40.0
    assert ticks.gatherer.demand()[GATEWAY] == Demand(8.0)


def test_demand_follows_the_last_five_minutes() -> None:
    ticks = Ticks()
    ticks.calm(60)
    for _ in range(61):
        ticks.gather(slots=some_slots(ticks.now, {GATEWAY: 16.0}))
    assert ticks.gatherer.demand()[GATEWAY] == Demand(16.0)


def test_services_whose_demand_was_not_measured_are_absent_and_not_idle() -> None:
    ticks = Ticks()
    ticks.gather()
    assert SEARCH not in ticks.gatherer.demand()
    assert of(ticks.gather(), SEARCH).demand is None


# --- restarts


def test_restarts_are_those_of_the_last_minute() -> None:
    ticks = Ticks()
    ticks.gather()
    evidence = ticks.gather(runtime=a_runtime(ticks.now, restarts=3, monolith_restarts=1))
    assert of(evidence).restarts_recently == 3
    assert evidence.monolith is not None
    assert evidence.monolith.restarts_recently == 1
    for _ in range(14):
        evidence = ticks.gather(runtime=a_runtime(ticks.now, restarts=3, monolith_restarts=1))
    assert of(evidence).restarts_recently == 0


def test_restarts_from_before_the_first_look_are_no_crash_loop() -> None:
    assert of(Ticks().gather(runtime=a_runtime(NOON, restarts=50))).restarts_recently == 0


def test_a_runtime_that_counts_from_zero_again_shows_no_restarts() -> None:
    ticks = Ticks()
    ticks.gather(runtime=a_runtime(ticks.now, restarts=9))
    assert of(ticks.gather(runtime=a_runtime(ticks.now, restarts=0))).restarts_recently == 0


# --- whose fault


def test_a_victim_is_told_who_made_it_fail() -> None:
    ticks = Ticks()
    ticks.calm(60)
    states = [a_state(ticks.now, bad=4.0), a_state(ticks.now, IDENTITY, bad=4.0)]
    evidence = ticks.gather(states, calls=some_calls(ticks.now, identity_fails=True))
    (found,) = of(evidence).attributions
    assert (found.verdict, found.culprit) == (AttributionVerdict.CULPRIT, IDENTITY)


def test_nobody_is_blamed_on_a_calm_day_or_without_calls() -> None:
    ticks = Ticks()
    assert of(ticks.gather()).attributions == ()
    assert of(ticks.gather([a_state(ticks.now, bad=4.0)], calls=None)).attributions == ()


def test_a_slow_service_is_compared_with_the_calm_before_however_long_it_lasts() -> None:
    ticks = Ticks()
    ticks.calm(120)
    ticks.gather(calls=some_calls(ticks.now, slow=True))  # it has begun, and nobody can be sure of it yet
    for _ in range(40):
        slow = a_state(ticks.now, kind=Kind.LATENCY, bad=10.0)
        evidence = ticks.gather([a_state(ticks.now), slow], calls=some_calls(ticks.now, slow=True))
        (found,) = of(evidence).attributions
        assert found.culprit == GATEWAY


# --- a clock that goes back


def test_a_clock_that_goes_back_an_hour_makes_no_crash_loop_and_no_breach() -> None:
    ticks = Ticks()
    ticks.gather()
    ticks.gather(runtime=a_runtime(ticks.now, restarts=1))
    ticks.now -= timedelta(hours=1)
    evidence = ticks.gather(runtime=a_runtime(ticks.now, restarts=1))
    assert of(evidence).restarts_recently == 0
    for _ in range(15):
        ticks.gather(runtime=a_runtime(ticks.now, restarts=1))
    evidence = ticks.gather(runtime=a_runtime(ticks.now, restarts=2))
    assert of(evidence).restarts_recently == 1
    assert of(evidence).breach_since is None


def test_after_a_clock_went_back_demand_is_that_of_what_came_since() -> None:
    ticks = Ticks()
    ticks.calm(60)
    ticks.now -= timedelta(hours=1)
    ticks.gather(slots=some_slots(ticks.now, {GATEWAY: 12.0}))
    assert ticks.gatherer.demand()[GATEWAY] == Demand(12.0)


def test_blindness_is_never_in_the_future() -> None:
    ticks = Ticks()
    ticks.gather([lost(a_state(ticks.now))])
    ticks.now -= timedelta(hours=1)
    evidence = ticks.gather([lost(a_state(ticks.now))])
    assert of(evidence).unknown_since == NOON - timedelta(hours=1) + 5 * SECOND


def test_a_capacity_is_estimated_by_proportion_and_only_where_that_means_something() -> None:
    half_full = Saturation(2, Demand(32.0, 32.0), Demand(16.0, 4.0))
    fifth_full = Saturation(2, Demand(32.0, 32.0), Demand(6.4, 4.0))
    assert capacity_estimate(a_service(SEARCH, saturation=half_full)) == pytest.approx(40.0)
    assert capacity_estimate(a_service(SEARCH, saturation=fifth_full)) is None
    assert capacity_estimate(a_service(SEARCH, saturation=None)) is None
    assert capacity_estimate(a_service(SEARCH, saturation=half_full, requests_per_second=None)) is None
    assert capacity_estimate(a_service(SEARCH, saturation=half_full, weights=Weights(50, 50))) is None
