"""Safety properties of decisions: whatever the evidence, these hold."""

from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.decisions.capacity import Demand
from control_plane.decisions.evidence import ActiveSaga, Change, ChangeKind, Evidence, RecentAction, ServiceEvidence
from control_plane.decisions.policy import Decision, decide
from control_plane.decisions.reasons import Action, Move, Reason
from control_plane.decisions.terms import Limit, Policy
from control_plane.slo.state import Kind, Verdict
from control_plane.topology import SERVICES, Weights
from control_plane.tracing.call_attribution import Symptom
from tests.decisions.decision_builders import (
    AUTO,
    GATEWAY,
    IDENTITY,
    NOON,
    OBSERVING,
    a_deployment,
    a_monolith,
    a_reading,
    a_service,
    an_action,
    an_evidence,
    blaming,
    decided,
    failing,
    fired,
    only_acting,
    overrun,
    quiet,
    slots_used,
    slow,
    suspect,
)

SOME = SERVICES[:4]  # enough for three independent culprits
verdicts = st.sampled_from(Verdict)
SHAPES: tuple[Callable[[str], ServiceEvidence], ...] = (a_service, failing, slow, overrun)


@st.composite
def services(draw: st.DrawFn, name: str) -> ServiceEvidence:
    """Anything that could be seen of a service, contradictions included."""
    service = draw(st.sampled_from(SHAPES))(name)
    if draw(st.booleans()):
        culprit = draw(st.sampled_from(SOME))
        confidence = draw(st.sampled_from((0.2, 0.9)))
        service = replace(
            service, attributions=tuple(blaming(name, culprit, symptom, confidence=confidence) for symptom in Symptom)
        )
    if draw(st.booleans()):
        service = replace(service, fast_paths=draw(st.sampled_from(((), (suspect(name),), (quiet(name),)))))
    percent = draw(st.sampled_from((0, 5, 50, 100)))
    desired = draw(st.integers(0, 6))
    return replace(
        service,
        slos=(
            a_reading(name, verdict=draw(verdicts)),
            a_reading(name, Kind.LATENCY, verdict=draw(verdicts)),
        ),
        saturation=draw(st.sampled_from((None, slots_used(0.0), slots_used(20.0), slots_used(60.0)))),
        peak=draw(st.sampled_from((None, Demand(0.0), Demand(50.0)))),
        demand=draw(st.sampled_from((None, Demand(3.0), Demand(500.0)))),
        weights=draw(st.sampled_from((None, Weights(percent, 100 - percent)))),
        deployment=draw(
            st.sampled_from((None, a_deployment(name, desired=desired, ready=draw(st.integers(0, desired)))))
        ),
        restarts_recently=draw(st.integers(0, 3)),
        changes=draw(
            st.sampled_from(
                ((), (Change(NOON - timedelta(minutes=draw(st.integers(0, 90))), ChangeKind.DEPLOY, "v2"),))
            )
        ),
    )


@st.composite
def evidences(draw: st.DrawFn) -> Evidence:
    monolith = a_monolith(
        load=draw(st.sampled_from((None, Demand(0.0), Demand(200.0)))),
        restarts_recently=draw(st.integers(0, 3)),
        answered=100.0,
        failed=draw(st.sampled_from((0.0, 50.0))),
    )
    ready = draw(st.integers(0, 2))
    assert monolith.deployment is not None
    monolith = replace(monolith, deployment=replace(monolith.deployment, ready=ready, desired=2))
    actions = st.builds(
        an_action, st.sampled_from(Move), st.sampled_from((*SERVICES, "all")), st.floats(0, 90), drill=st.booleans()
    )
    return Evidence(
        at=NOON - timedelta(seconds=draw(st.integers(0, 30))),
        services=tuple(draw(services(name)) for name in SOME),
        monolith=draw(st.sampled_from((None, monolith, a_monolith()))),
        recent_actions=draw(st.one_of(st.none(), st.lists(actions, max_size=6).map(tuple))),
        kill_switch=draw(st.sampled_from((None, None, "maintenance"))),
        active_sagas=draw(st.sampled_from(((), (ActiveSaga("s", "rollback", GATEWAY, (GATEWAY,), True),)))),
    )


def by_name(evidence: Evidence) -> dict[str, ServiceEvidence]:
    return {service.service: service for service in evidence.services}


@settings(max_examples=80, deadline=None)
@given(evidences())
def test_whatever_is_seen_every_action_is_allowed(evidence: Evidence) -> None:
    """Unknown never acts, nothing acts against a guard, nobody is moved onto a broken target, limits hold."""
    decisions = decide(evidence, AUTO, NOON)
    seen = by_name(evidence)
    assert [d.service for d in decisions if d.service in seen] == list(SOME)
    for decision in only_acting(decisions):
        assert all(guard.passed for guard in decision.guards)
        assert evidence.kill_switch is None
        assert evidence.recent_actions is not None
        assert NOON - evidence.at <= AUTO.max_evidence_age
        if decision.service in seen:
            errors = next(reading for reading in seen[decision.service].slos if reading.kind is Kind.ERRORS)
            assert errors.verdict is not Verdict.UNKNOWN
            assert seen[decision.service].weights is not None
            assert seen[decision.service].deployment is not None
        if decision.action in (Action.ROLL_BACK, Action.FULL_ROLLBACK):
            assert decision.weights == Weights(0, 100)
            monolith = evidence.monolith
            assert monolith is not None
            assert monolith.deployment is not None
            assert monolith.deployment.ready > 0
            assert monolith.restarts_recently < AUTO.crash_restarts
            assert monolith.failed == 0
            assert monolith.load is not None
            assert decision.replicas is not None
            assert decision.replicas <= monolith.deployment.max_replicas
        if decision.action is Action.SCALE and decision.service in seen:
            deployment = seen[decision.service].deployment
            assert deployment is not None
            assert decision.replicas is not None
            assert decision.replicas <= deployment.max_replicas
            if decision.move is Move.SCALE_IN:
                assert decision.replicas == deployment.desired - 1 >= deployment.min_replicas
                assert seen[decision.service].saturation is not None
                assert seen[decision.service].peak is not None
    assert sum(d.action is Action.ROLL_BACK for d in decisions) <= AUTO.limits[Move.ROLL_BACK].actions


@settings(max_examples=25, deadline=None)
@given(evidences())
def test_the_same_evidence_gives_the_same_decisions_and_ids(evidence: Evidence) -> None:
    first, second = decide(evidence, AUTO, NOON), decide(evidence, AUTO, NOON)
    assert first == second
    assert [d.id for d in first] == [d.id for d in second]
    assert len({d.id for d in first}) == len(first)


@settings(max_examples=25, deadline=None)
@given(evidences())
def test_a_dry_run_decides_the_same_and_executes_nothing(evidence: Evidence) -> None:
    watching = decide(evidence, OBSERVING, NOON)
    assert not any(decision.executes for decision in watching)
    if not any(decision.service == "all" for decision in watching):
        acting = decide(evidence, AUTO, NOON)
        assert [(d.service, d.action, d.reason) for d in watching] == [(d.service, d.action, d.reason) for d in acting]


@pytest.mark.parametrize("name", SERVICES)
def test_unknown_never_acts(name: str) -> None:
    unknown = failing(name, slos=(a_reading(name, verdict=Verdict.UNKNOWN),))
    victim = GATEWAY if name != GATEWAY else IDENTITY
    decisions = decided(an_evidence(unknown, failing(victim, attributions=(blaming(victim, name),))))
    assert decisions[name].reason is Reason.UNKNOWN
    assert not only_acting(decisions)


def test_the_kill_switch_stops_everything_and_still_says_what_would_be_done() -> None:
    evidence = an_evidence(failing(GATEWAY), overrun(IDENTITY), kill_switch="maintenance until 14:00")
    decisions = decided(evidence)
    assert not only_acting(decisions)
    assert {d.reason for d in decisions.values()} == {Reason.KILL_SWITCH}
    assert decisions[GATEWAY].move is Move.ROLL_BACK
    assert decisions[GATEWAY].pages
    assert "maintenance until 14:00" in decisions[GATEWAY].sentence


@pytest.mark.parametrize(
    "changes",
    [
        {"restarts_recently": 2},
        {"answered": 100.0, "failed": 20.0},
        {"deployment": replace(a_deployment("librechat-monolith"), ready=0)},
        {"deployment": None},
    ],
    ids=["restarting", "failing", "not ready", "unknown"],
)
def test_nobody_is_rolled_back_onto_a_broken_target(changes: dict[str, Any]) -> None:
    decision = decided(an_evidence(failing(GATEWAY), monolith=a_monolith(**changes)))[GATEWAY]
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.DESTINATION_UNHEALTHY)
    assert decision.pages


def test_nobody_is_rolled_back_onto_a_target_that_cannot_be_made_large_enough() -> None:
    decision = decided(an_evidence(failing(GATEWAY, demand=Demand(300.0))))[GATEWAY]
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.DESTINATION_WITHOUT_CAPACITY)
    assert decision.pages


def test_nobody_is_rolled_back_when_the_targets_load_is_not_known() -> None:
    decision = decided(an_evidence(failing(GATEWAY), monolith=a_monolith(load=None)))[GATEWAY]
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.DESTINATION_WITHOUT_CAPACITY)


def test_a_monolith_that_is_scaled_to_zero_on_purpose_is_a_place_to_go() -> None:
    asleep = a_monolith(deployment=replace(a_deployment("librechat-monolith"), desired=0, ready=0), load=None)
    [decision] = only_acting(decided(an_evidence(failing(GATEWAY), monolith=asleep)))
    assert decision.replicas == 1


def test_an_irreversible_service_is_never_rolled_back() -> None:
    decision = decided(an_evidence(failing(GATEWAY)), replace(AUTO, irreversible=(GATEWAY,)))[GATEWAY]
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.IRREVERSIBLE)


def test_a_missing_limit_denies() -> None:
    limits: dict[Move, Limit] = {move: limit for move, limit in AUTO.limits.items() if move is not Move.ROLL_BACK}
    decision = decided(an_evidence(failing(GATEWAY)), replace(AUTO, limits=limits))[GATEWAY]
    assert (decision.action, decision.reason, decision.pages) == (Action.HOLD, Reason.LIMIT_MISSING, True)


def test_a_lost_memory_of_actions_denies() -> None:
    decision = decided(an_evidence(failing(GATEWAY), recent_actions=None))[GATEWAY]
    assert (decision.action, decision.reason, decision.pages) == (Action.HOLD, Reason.LIMIT_MISSING, True)


def test_a_cooldown_holds_and_pages() -> None:
    before = (an_action(Move.ROLL_BACK, GATEWAY, 29),)
    decision = decided(an_evidence(failing(GATEWAY), recent_actions=before))[GATEWAY]
    assert (decision.action, decision.reason, decision.pages) == (Action.HOLD, Reason.COOLDOWN, True)
    later = decided(an_evidence(failing(GATEWAY), recent_actions=(an_action(Move.ROLL_BACK, GATEWAY, 30),)))[GATEWAY]
    assert later.action is Action.ROLL_BACK


def test_a_spent_budget_of_actions_holds_and_pages() -> None:
    before = tuple(an_action(Move.ROLL_BACK, IDENTITY, minutes) for minutes in (50, 40, 31))
    decision = decided(an_evidence(failing(GATEWAY), recent_actions=before))[GATEWAY]
    assert (decision.action, decision.reason, decision.pages) == (Action.HOLD, Reason.ACTION_BUDGET_SPENT, True)


def test_a_short_budget_goes_to_the_surest_harm() -> None:
    before = tuple(an_action(Move.ROLL_BACK, "search-service", minutes) for minutes in (50, 40))
    mild = failing(GATEWAY, fast_paths=(fired(GATEWAY, p_value=1e-8),))
    decisions = decided(an_evidence(mild, failing(IDENTITY), recent_actions=before))
    assert decisions[IDENTITY].action is Action.ROLL_BACK
    assert decisions[GATEWAY].reason is Reason.ACTION_BUDGET_SPENT


def test_drills_use_up_neither_cooldown_nor_budget() -> None:
    drills = tuple(an_action(Move.ROLL_BACK, GATEWAY, minutes, drill=True) for minutes in range(1, 20))
    assert decided(an_evidence(failing(GATEWAY), recent_actions=drills))[GATEWAY].action is Action.ROLL_BACK


@settings(max_examples=25, deadline=None)
@given(st.lists(st.booleans(), min_size=30, max_size=120), st.integers(10, 240))
def test_oscillating_input_gives_at_most_one_rollback_per_cooldown(sick: list[bool], step_seconds: int) -> None:
    """Somebody puts the service back at once each time, and it fails again and again."""
    done: list[RecentAction] = []
    for tick, ill in enumerate(sick):
        now = NOON + timedelta(seconds=tick * step_seconds)
        service = failing(GATEWAY) if ill else a_service(GATEWAY)
        evidence = an_evidence(services=(service,), at=now, recent_actions=tuple(done))
        decision = {d.service: d for d in decide(evidence, AUTO, now)}[GATEWAY]
        if decision.action is Action.ROLL_BACK:
            done.append(RecentAction(now, Move.ROLL_BACK, GATEWAY))
    gaps = [later.at - earlier.at for earlier, later in pairwise(done)]
    assert all(gap >= AUTO.limits[Move.ROLL_BACK].cooldown for gap in gaps)


@given(st.floats(0, 3600), st.floats(0, 7200))
def test_a_breach_older_than_the_change_does_not_blame_the_change(breach_age: float, change_age: float) -> None:
    began = NOON - timedelta(seconds=breach_age)
    change = Change(NOON - timedelta(seconds=change_age), ChangeKind.DEPLOY, "v2")
    evidence = an_evidence(failing(GATEWAY, breach_since=began, changes=(change,)))
    decision = decided(evidence)[GATEWAY]
    assert decision.action is Action.ROLL_BACK
    blamed = decision.reason is Reason.REGRESSION_AFTER_CHANGE
    assert blamed == (change.at <= began <= change.at + AUTO.change_blamed_for)


@pytest.mark.parametrize("verdict", [Verdict.UNKNOWN, Verdict.NO_TRAFFIC])
def test_an_invalid_metric_takes_no_replica_away(verdict: Verdict) -> None:
    idle = a_service(
        GATEWAY,
        slos=(a_reading(GATEWAY, verdict=verdict),),
        deployment=a_deployment(GATEWAY, desired=4, ready=4),
        saturation=slots_used(0.0, replicas=4),
        peak=Demand(0.0),
    )
    assert not only_acting(decided(an_evidence(idle)))


def test_a_replica_that_was_just_added_is_not_taken_away() -> None:
    idle = a_service(
        GATEWAY,
        deployment=a_deployment(GATEWAY, desired=4, ready=4),
        saturation=slots_used(0.0, replicas=4),
        peak=Demand(0.0),
    )
    grown = (an_action(Move.SCALE_OUT, GATEWAY, 3),)
    decision = decided(an_evidence(idle, recent_actions=grown))[GATEWAY]
    assert (decision.action, decision.reason, decision.pages) == (Action.HOLD, Reason.COOLDOWN, False)


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1), timedelta(seconds=16)])
def test_clock_jumps_and_old_evidence_change_nothing(jump: timedelta) -> None:
    evidence = an_evidence(failing(GATEWAY), overrun(IDENTITY))
    decisions = decide(evidence, AUTO, NOON + jump)
    assert {d.reason for d in decisions} == {Reason.EVIDENCE_STALE}
    assert not only_acting(decisions)


def test_an_unreachable_runtime_moves_nothing() -> None:
    blind = [failing(name, deployment=None, weights=None) for name in SERVICES]
    decisions = decided(an_evidence(*blind, monolith=None))
    assert {d.reason for d in decisions.values()} == {Reason.RUNTIME_UNKNOWN}


def test_an_empty_fleet_decides_nothing() -> None:
    assert decide(replace(an_evidence(), services=()), AUTO, NOON) == ()


def test_without_a_policy_nothing_is_done() -> None:
    decisions = decide(an_evidence(failing(GATEWAY), overrun(IDENTITY)), Policy(), NOON)
    assert not only_acting(decisions)


def pages_for(decisions: dict[str, Decision]) -> set[str]:
    return {name for name, decision in decisions.items() if decision.pages}


def test_only_who_needs_somebody_pages() -> None:
    assert pages_for(decided(an_evidence(failing(GATEWAY)))) == {GATEWAY}
    assert pages_for(decided(an_evidence(overrun(GATEWAY)))) == set()
    assert pages_for(decided(an_evidence(overrun(GATEWAY)), OBSERVING)) == {GATEWAY}
