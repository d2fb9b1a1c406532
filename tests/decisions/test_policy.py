"""What is decided about a service, rule by rule."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from control_plane.decisions.capacity import Demand
from control_plane.decisions.evidence import ActiveSaga, Change, ChangeKind, Drill
from control_plane.decisions.reasons import Action, Autonomy, Move, Reason
from control_plane.slo.state import Kind, Verdict
from control_plane.topology import MONOLITH, Weights
from control_plane.tracing.call_attribution import Answers, Culprit, Symptom
from tests.decisions.decision_builders import (
    AUTO,
    FILES,
    GATEWAY,
    IDENTITY,
    NOON,
    OBSERVING,
    SEARCH,
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


def test_a_healthy_suite_is_left_alone() -> None:
    decisions = decided(an_evidence())
    assert {d.reason for d in decisions.values()} == {Reason.WITHIN_BUDGET}
    assert not any(d.pages for d in decisions.values())
    assert decisions[GATEWAY].sentence == "Every objective is kept; the tightest error budget has 90 % left."


def test_errors_with_room_roll_the_service_back_and_nothing_else() -> None:
    decisions = decided(an_evidence(failing(GATEWAY)))
    [decision] = only_acting(decisions)
    assert (decision.action, decision.target) == (Action.ROLL_BACK, GATEWAY)
    assert decision.reason is Reason.ERRORS_WITHOUT_SATURATION
    assert decision.weights == Weights(0, 100)
    assert decision.executes
    assert decision.pages
    assert "40 of 200 requests failed in the last 10 s (20 %" in decision.sentence
    assert "50 % of its slots are asked for" in decision.sentence
    assert all(guard.passed for guard in decision.guards)


def test_slow_requests_with_room_roll_the_service_back() -> None:
    [decision] = only_acting(decided(an_evidence(slow(FILES))))
    assert (decision.action, decision.target) == (Action.ROLL_BACK, FILES)
    assert decision.reason is Reason.LATENCY_WITHOUT_SATURATION


def test_the_culprit_is_rolled_back_and_its_victim_left_alone() -> None:
    victim = slow(GATEWAY, attributions=(blaming(GATEWAY, IDENTITY, Symptom.LATENCY),))
    decisions = decided(an_evidence(victim, slow(IDENTITY)))
    [decision] = only_acting(decisions)
    assert decision.target == IDENTITY
    assert decisions[GATEWAY].reason is Reason.CULPRIT_ELSEWHERE
    assert decisions[GATEWAY].culprit == IDENTITY
    assert not decisions[GATEWAY].pages


def test_a_culprit_whose_own_objectives_are_kept_is_rolled_back_for_its_callers() -> None:
    victim = failing(GATEWAY, attributions=(blaming(GATEWAY, IDENTITY),))
    decisions = decided(an_evidence(victim))
    [decision] = only_acting(decisions)
    assert (decision.target, decision.reason) == (IDENTITY, Reason.CULPRIT_OF_OTHERS)
    assert GATEWAY in decision.sentence


def test_a_culprit_that_only_services_call_is_rolled_back_although_no_user_asks_it() -> None:
    victim = failing(GATEWAY, attributions=(blaming(GATEWAY, SEARCH),))
    silent = a_service(SEARCH, slos=(a_reading(SEARCH, verdict=Verdict.NO_TRAFFIC),))
    [decision] = only_acting(decided(an_evidence(victim, silent)))
    assert decision.target == SEARCH


def test_an_unclear_culprit_is_left_to_a_person() -> None:
    shares = (Culprit(IDENTITY, 0.5), Culprit(GATEWAY, 0.5))
    unclear = blaming(GATEWAY, IDENTITY, confidence=0.35, culprits=shares, inherited_share=0.5)
    decisions = decided(an_evidence(failing(GATEWAY, attributions=(unclear,))))
    assert not only_acting(decisions)
    assert decisions[GATEWAY].reason is Reason.CULPRIT_UNSURE
    assert decisions[GATEWAY].pages
    assert "identity-service 50 %, ai-gateway-service 50 %" in decisions[GATEWAY].sentence


def test_a_service_whose_peers_all_answer_can_only_be_its_own_culprit() -> None:
    few_events = blaming(GATEWAY, GATEWAY, confidence=0.4, inherited_share=0.0)
    [decision] = only_acting(decided(an_evidence(failing(GATEWAY, attributions=(few_events,)))))
    assert decision.target == GATEWAY


def test_a_crash_loop_is_rolled_back_without_any_metric_of_the_service_itself() -> None:
    crashing = failing(
        FILES,
        slos=(a_reading(FILES), a_reading(FILES, Kind.LATENCY, verdict=Verdict.UNKNOWN)),
        attributions=(),
        answers=None,
        saturation=None,
        deployment=a_deployment(FILES, ready=0),
        restarts_recently=3,
    )
    [decision] = only_acting(decided(an_evidence(crashing)))
    assert (decision.action, decision.target, decision.reason) == (Action.ROLL_BACK, FILES, Reason.CRASH_LOOP)
    assert "0 of 2 replicas ready, 3 restarts within a minute" in decision.sentence


def test_refused_requests_with_full_slots_are_saturation_and_scale_out() -> None:
    [decision] = only_acting(decided(an_evidence(overrun(GATEWAY))))
    assert (decision.action, decision.move, decision.target) == (Action.SCALE, Move.SCALE_OUT, GATEWAY)
    assert decision.reason is Reason.SATURATED
    assert decision.replicas == 6  # 60 slots of demand / (1 - 30 % refused) / 16 slots / 70 % is 7.7; the limit is 6
    assert not decision.pages


def test_requests_that_are_taken_and_fail_are_no_saturation_however_full_the_slots() -> None:
    both = overrun(GATEWAY, answers=Answers(1500.0, 700.0, 450.0, 600.0, 1500.0, 900.0))
    [decision] = only_acting(decided(an_evidence(both)))
    assert decision.action is Action.ROLL_BACK


def test_saturation_at_the_limit_rolls_back() -> None:
    at_limit = overrun(
        GATEWAY, deployment=a_deployment(GATEWAY, desired=6, ready=6), saturation=slots_used(140.0, replicas=6)
    )
    [decision] = only_acting(decided(an_evidence(at_limit)))
    assert (decision.action, decision.reason) == (Action.ROLL_BACK, Reason.SCALED_TO_LIMIT)


def test_saturation_at_the_limit_waits_for_replicas_that_are_still_starting() -> None:
    starting = overrun(GATEWAY, deployment=a_deployment(GATEWAY, desired=6, ready=2))
    decisions = decided(an_evidence(starting))
    assert not only_acting(decisions)
    assert decisions[GATEWAY].reason is Reason.SCALING


def test_full_slots_right_after_a_deploy_are_the_deploys_fault() -> None:
    deploy = Change(NOON - timedelta(minutes=3), ChangeKind.DEPLOY, "v1.4.2")
    [decision] = only_acting(decided(an_evidence(overrun(GATEWAY, changes=(deploy,)))))
    assert (decision.action, decision.reason) == (Action.ROLL_BACK, Reason.REGRESSION_AFTER_CHANGE)
    assert "after its deploy (v1.4.2)" in decision.sentence


@pytest.mark.parametrize(
    "change",
    [
        Change(NOON - timedelta(seconds=5), ChangeKind.DEPLOY, "newer than the breach"),
        Change(NOON - timedelta(hours=3), ChangeKind.DEPLOY, "long before it"),
        Change(NOON - timedelta(minutes=3), ChangeKind.SCALE, "more replicas"),
        Change(NOON - timedelta(minutes=3), ChangeKind.WEIGHTS_BACK, "less traffic"),
        Change(NOON - timedelta(minutes=3), ChangeKind.WEIGHTS_FORWARD, "a drill put it back", drill=True),
    ],
    ids=lambda change: change.summary,
)
def test_such_a_change_is_not_blamed(change: Change) -> None:
    [decision] = only_acting(decided(an_evidence(overrun(GATEWAY, changes=(change,)))))
    assert decision.reason is Reason.SATURATED


def test_slots_that_are_full_without_more_requests_than_usual_mean_that_it_became_slow() -> None:
    clogged = slow(GATEWAY, saturation=slots_used(32.0))
    [decision] = only_acting(decided(an_evidence(clogged)))
    assert (decision.action, decision.reason) == (Action.ROLL_BACK, Reason.SLOWER_NOT_BUSIER)


def test_slots_that_are_full_because_a_replica_is_missing_ask_for_replicas() -> None:
    short = slow(GATEWAY, saturation=slots_used(20.0, replicas=1), deployment=a_deployment(GATEWAY, desired=1, ready=1))
    shrunk = Change(NOON - timedelta(minutes=1), ChangeKind.SCALE, "2 -> 1 replicas")
    [decision] = only_acting(decided(an_evidence(replace(short, changes=(shrunk,)))))
    assert decision.move is Move.SCALE_OUT


def test_a_busy_service_is_scaled_out_before_users_notice() -> None:
    busy = a_service(SEARCH, saturation=slots_used(27.0))
    [decision] = only_acting(decided(an_evidence(busy)))
    assert (decision.move, decision.replicas) == (Move.SCALE_OUT, 3)
    assert not decision.pages


def test_unknown_saturation_beside_errors_is_left_to_a_person() -> None:
    decisions = decided(an_evidence(failing(FILES, saturation=None)))
    assert not only_acting(decisions)
    assert decisions[FILES].reason is Reason.UNKNOWN
    assert decisions[FILES].pages


def test_missing_data_pages_only_after_a_minute() -> None:
    blind = a_service(FILES, slos=(a_reading(FILES, verdict=Verdict.UNKNOWN, reason="no sample for 40 s"),))
    just_now = decided(an_evidence(replace(blind, unknown_since=NOON - timedelta(seconds=30))))[FILES]
    for_long = decided(an_evidence(replace(blind, unknown_since=NOON - timedelta(seconds=60))))[FILES]
    assert (just_now.reason, just_now.pages) == (Reason.UNKNOWN, False)
    assert (for_long.reason, for_long.pages) == (Reason.UNKNOWN, True)
    assert "no sample for 40 s" in just_now.sentence


def test_a_service_without_an_error_slo_is_unknown() -> None:
    assert decided(an_evidence(a_service(FILES, slos=())))[FILES].reason is Reason.UNKNOWN


def test_no_traffic_is_neither_good_nor_bad_and_pages_nobody() -> None:
    silent = a_service(FILES, slos=(a_reading(FILES, verdict=Verdict.NO_TRAFFIC),), saturation=slots_used(0.0))
    decision = decided(an_evidence(silent))[FILES]
    assert (decision.action, decision.reason, decision.pages) == (Action.HOLD, Reason.NO_TRAFFIC, False)


def test_a_running_plan_is_not_disturbed() -> None:
    saga = ActiveSaga("s1", "rollback", GATEWAY, (GATEWAY,), to_monolith=True)
    decisions = decided(an_evidence(failing(GATEWAY), active_sagas=(saga,)))
    assert decisions[GATEWAY].reason is Reason.SAGA_ACTIVE
    assert not only_acting(decisions)


def test_a_service_on_the_monolith_that_still_fails_is_a_persons_case() -> None:
    decision = decided(an_evidence(failing(GATEWAY, weights=Weights(0, 100))))[GATEWAY]
    assert (decision.action, decision.reason, decision.pages) == (Action.HOLD, Reason.ALREADY_ON_MONOLITH, True)


def test_a_calm_service_on_the_monolith_waits_for_a_person_to_move_it_forward() -> None:
    decision = decided(an_evidence(a_service(GATEWAY, weights=Weights(0, 100), peak=Demand(0.0))))[GATEWAY]
    assert (decision.action, decision.reason, decision.pages) == (Action.HOLD, Reason.HELD_ON_MONOLITH, False)


def test_a_slow_model_provider_is_no_reason_to_roll_back() -> None:
    first_token = "ai-gateway-service-first-token"
    slow_provider = a_service(GATEWAY, fast_paths=(quiet(GATEWAY), fired(GATEWAY, Kind.LATENCY, slo=first_token)))
    decision = decided(an_evidence(slow_provider))[GATEWAY]
    assert (decision.action, decision.reason, decision.pages) == (Action.HOLD, Reason.SHARED_WITH_MONOLITH, True)


def test_a_slow_burn_is_left_to_a_person() -> None:
    burning = a_service(FILES, slos=(a_reading(FILES, verdict=Verdict.PAGE, reason="6x over 6 h"),))
    decision = decided(an_evidence(burning))[FILES]
    assert (decision.reason, decision.pages) == (Reason.BURNING_SLOWLY, True)


def test_a_burn_that_an_action_has_just_ended_pages_nobody_again() -> None:
    settled = a_service(FILES, slos=(a_reading(FILES, verdict=Verdict.PAGE),), judged_since=NOON - timedelta(minutes=2))
    decision = decided(an_evidence(settled))[FILES]
    assert (decision.reason, decision.pages) == (Reason.BURNING_SLOWLY, False)


def test_a_suspicion_says_what_would_settle_it() -> None:
    decision = decided(an_evidence(a_service(FILES, fast_paths=(suspect(FILES),))))[FILES]
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.MORE_EVIDENCE_NEEDED)
    assert "640 more requests or 13 s would settle it" in decision.sentence


def test_replicas_that_keep_exiting_get_no_company_however_full_the_rest_is() -> None:
    full = a_service(FILES, saturation=slots_used(40.0), restarts_recently=2)
    decision = decided(an_evidence(full))[FILES]
    assert (decision.action, decision.reason) == (Action.HOLD, Reason.MORE_EVIDENCE_NEEDED)
    assert "2 restarts within a minute" in decision.sentence
    assert decided(an_evidence(replace(full, restarts_recently=0)))[FILES].reason is Reason.SATURATED


def test_three_independent_culprits_roll_everything_back() -> None:
    decisions = decided(an_evidence(failing(GATEWAY), failing(IDENTITY), slow(FILES)))
    [decision] = only_acting(decisions)
    assert (decision.action, decision.target) == (Action.FULL_ROLLBACK, "all")
    assert decision.reason is Reason.INDEPENDENT_CULPRITS
    assert decision.executes
    assert {decisions[name].reason for name in (GATEWAY, IDENTITY, FILES)} == {Reason.COVERED_BY_FULL_ROLLBACK}
    assert decisions[SEARCH].reason is Reason.WITHIN_BUDGET


def test_three_victims_of_one_culprit_are_no_reason_to_roll_everything_back() -> None:
    victims = [failing(name, attributions=(blaming(name, IDENTITY),)) for name in (GATEWAY, FILES, SEARCH)]
    [decision] = only_acting(decided(an_evidence(*victims)))
    assert decision.target == IDENTITY


def test_a_third_culprit_minutes_after_two_rollbacks_rolls_everything_back() -> None:
    before = (an_action(Move.ROLL_BACK, IDENTITY, 4), an_action(Move.ROLL_BACK, SEARCH, 3))
    [decision] = only_acting(decided(an_evidence(failing(FILES), recent_actions=before)))
    assert decision.action is Action.FULL_ROLLBACK


def test_a_full_rollback_that_needs_a_person_does_not_keep_single_services_waiting() -> None:
    asking = replace(AUTO, autonomy={**AUTO.autonomy, Move.FULL_ROLLBACK: Autonomy.APPROVE})
    decisions = decided(an_evidence(failing(GATEWAY), failing(IDENTITY), slow(FILES)), asking)
    assert decisions["all"].autonomy is Autonomy.APPROVE
    assert {d.target for d in only_acting(decisions)} == {"all", GATEWAY, IDENTITY, FILES}


def test_a_monolith_that_fills_up_is_scaled_out() -> None:
    full = a_monolith(load=Demand(44.0))
    [decision] = only_acting(decided(an_evidence(a_service(GATEWAY, weights=Weights(0, 100)), monolith=full)))
    assert (decision.target, decision.move, decision.replicas) == (MONOLITH, Move.SCALE_OUT, 2)


def test_the_monolith_is_sized_for_all_rollbacks_of_a_round_together() -> None:
    one, two = failing(GATEWAY, demand=Demand(60.0)), failing(IDENTITY, demand=Demand(60.0))
    decisions = decided(an_evidence(one, two))
    # (2 + 60) x 1.2 / 48 is 1.6, and (2 + 120) x 1.2 / 48 is 3.1
    assert sorted(d.replicas or 0 for d in only_acting(decisions)) == [2, 4]


def test_a_service_whose_demand_is_not_known_counts_with_all_its_slots() -> None:
    [decision] = only_acting(decided(an_evidence(failing(GATEWAY, demand=None))))
    assert "34.0 slots of demand x 1.2" in next(g.detail for g in decision.guards if g.name == "destination capacity")


def test_long_idle_replicas_go_one_at_a_time() -> None:
    idle = a_service(
        FILES,
        deployment=a_deployment(FILES, desired=4, ready=4),
        saturation=slots_used(5.0, replicas=4),
        peak=Demand(8.0),
    )
    [decision] = only_acting(decided(an_evidence(idle)))
    assert (decision.move, decision.replicas, decision.reason) == (Move.SCALE_IN, 3, Reason.RECOVERED)


@pytest.mark.parametrize(
    "changes",
    [
        {"peak": None},
        {"saturation": None},
        {"saturation": slots_used(5.0, replicas=3)},
        {"peak": Demand(45.0)},
        {"deployment": a_deployment(FILES, desired=4, ready=3)},
        {"deployment": a_deployment(FILES, desired=4, ready=4, min_replicas=4)},
        {"deployment": a_deployment(FILES, desired=4, ready=4, draining=1)},
        {"slos": (a_reading(FILES), a_reading(FILES, Kind.LATENCY, verdict=Verdict.UNKNOWN))},
        {"fast_paths": (suspect(FILES),)},
        {"weights": Weights(0, 100)},
    ],
    ids=str,
)
def test_a_replica_stays_while_it_may_be_needed_or_anything_is_unknown(changes: dict[str, Any]) -> None:
    idle = a_service(
        FILES,
        deployment=a_deployment(FILES, desired=4, ready=4),
        saturation=slots_used(5.0, replicas=4),
        peak=Demand(8.0),
    )
    assert not only_acting(decided(an_evidence(replace(idle, **changes))))


def test_observing_decides_the_same_and_executes_nothing() -> None:
    evidence = an_evidence(failing(GATEWAY))
    watching, acting = decided(evidence, OBSERVING)[GATEWAY], decided(evidence, AUTO)[GATEWAY]
    assert watching.action is acting.action is Action.ROLL_BACK
    assert watching.autonomy is Autonomy.OBSERVE
    assert not watching.executes


def test_autonomy_can_be_set_for_one_service() -> None:
    careful = replace(AUTO, autonomy_by_service={GATEWAY: {Move.ROLL_BACK: Autonomy.APPROVE}})
    decisions = decided(an_evidence(failing(GATEWAY), failing(IDENTITY)), careful)
    assert decisions[GATEWAY].autonomy is Autonomy.APPROVE
    assert decisions[IDENTITY].executes


def test_a_drill_marks_what_it_caused() -> None:
    decisions = decided(an_evidence(failing(GATEWAY), drill=Drill("errors", GATEWAY)))
    assert decisions[GATEWAY].drill
    assert not decisions[IDENTITY].drill


def test_every_reason_explains_itself_in_one_sentence() -> None:
    for reason in Reason:
        assert reason.sentence.endswith(".")
        assert reason.sentence[0].isupper()
