"""Plans: which steps, in which order, on which numbers."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.actions.capacity import Demand
from control_plane.actions.planning import cutover_plan, restore_plan, rollback_plan, scale_plan
from control_plane.actions.plans import Plan, PlanPolicy, plan_from_json, plan_json
from control_plane.actions.steps import AwaitReady, Grow, Shift, Shrink, SmokeTest, Verify, Watch
from control_plane.errors import ActuationRefused, InvalidDefinition
from control_plane.topology import MONOLITH, SERVICES, Weights
from tests.actions.suite_world import a_world

POLICY = PlanPolicy()
CHAT = "ai-gateway-service"


def kinds(plan: Plan) -> list[str]:
    return [step.kind for step in plan.steps]


def test_a_rollback_makes_before_it_breaks() -> None:
    world = a_world()
    plan = rollback_plan(CHAT, world.reading(), world.demand, POLICY)
    assert kinds(plan) == [
        "grow",
        "await_ready",
        "smoke_test",
        "shift",
        "watch",
        "shift",
        "prove_moved",
        "drain",
        "verify",
        "shrink",
    ]
    assert [step.weights for step in plan.steps if isinstance(step, Shift)] == [Weights(50, 50), Weights(0, 100)]


def test_the_monolith_is_scaled_to_all_it_will_hold_times_the_headroom() -> None:
    world = a_world()
    world.weights["search-service"] = Weights(0, 100)
    world.demand |= {CHAT: Demand(40.0), "search-service": Demand(30.0)}
    plan = rollback_plan(CHAT, world.reading(), world.demand, POLICY)
    assert isinstance(plan.steps[0], Grow)
    assert plan.steps[0].replicas == 2  # (40 + 30) x 1.2 = 84 slots on replicas of 48


def test_a_rollback_never_takes_a_replica_of_the_monolith_away() -> None:
    world = a_world()
    world.deployments[MONOLITH].desired = world.deployments[MONOLITH].ready = 4
    plan = rollback_plan(CHAT, world.reading(), world.demand, POLICY)
    grow, ready = plan.steps[0], plan.steps[1]
    assert isinstance(grow, Grow)
    assert grow.replicas == 4
    assert isinstance(ready, AwaitReady)
    assert ready.replicas == 1  # one warm replica has room for it: traffic need not wait for the others


def test_services_that_others_move_are_counted_in_full() -> None:
    world = a_world()
    world.demand |= {CHAT: Demand(30.0), "file-service": Demand(30.0)}
    alone = rollback_plan(CHAT, world.reading(), world.demand, POLICY)
    together = rollback_plan(CHAT, world.reading(), world.demand, POLICY, also_moving={"file-service"})
    assert [step.replicas for plan in (alone, together) for step in plan.steps if isinstance(step, Grow)] == [1, 2]


def test_demand_that_was_not_measured_counts_as_all_slots_and_is_said_so() -> None:
    world = a_world()
    del world.demand[CHAT]
    plan = rollback_plan(CHAT, world.reading(), world.demand, POLICY)
    assert plan.demand[CHAT] == Demand(32.0)
    assert CHAT in plan.notes[0]


def test_a_rollback_that_the_monolith_cannot_hold_is_refused_with_the_numbers() -> None:
    world = a_world()
    world.demand[CHAT] = Demand(400.0)
    with pytest.raises(ActuationRefused, match=r"would need 10 replicas .* its limit is 6"):
        rollback_plan(CHAT, world.reading(), world.demand, POLICY)


def test_streams_need_room_of_their_own() -> None:
    world = a_world()
    state = world.reading()
    monolith = state.deployments[MONOLITH]
    deployments = {**state.deployments, MONOLITH: replace(monolith, stream_slots_per_replica=48)}
    state = replace(state, deployments=deployments)
    plan = rollback_plan(CHAT, state, world.demand | {CHAT: Demand(1.0, streams=100.0)}, POLICY)
    assert isinstance(plan.steps[0], Grow)
    assert plan.steps[0].replicas == 3  # 120 streams on replicas of 48


def test_a_service_that_is_on_the_monolith_already_needs_nothing() -> None:
    world = a_world()
    world.weights[CHAT] = Weights(0, 100)
    world.deployments[CHAT].desired = world.deployments[CHAT].ready = 1
    plan = rollback_plan(CHAT, world.reading(), world.demand, POLICY)
    assert plan.steps == ()
    assert "Nothing to do" in plan.lines()[1]


def test_a_rollback_cut_off_after_the_move_is_finished_by_the_next_one() -> None:
    world = a_world()
    world.weights[CHAT] = Weights(0, 100)
    plan = rollback_plan(CHAT, world.reading(), world.demand, POLICY)
    assert kinds(plan) == ["drain", "verify", "shrink"]


def test_a_whole_rollback_tests_every_service_before_the_first_shift_and_shrinks_after_the_last_check() -> None:
    world = a_world()
    plan = rollback_plan("all", world.reading(), world.demand, POLICY)
    order = kinds(plan)
    assert {step.service for step in plan.steps if isinstance(step, Verify)} == set(SERVICES)
    assert max(i for i, kind in enumerate(order) if kind == "smoke_test") < order.index("shift")
    assert max(i for i, kind in enumerate(order) if kind == "verify") < order.index("shrink")
    assert isinstance(plan.steps[0], Grow)
    assert plan.steps[0].replicas == 2  # 7 x 10 x 1.2 = 84 slots


def test_an_empty_target_set_makes_an_empty_plan() -> None:
    state = a_world(weights={}, flows={}).reading()
    assert rollback_plan("all", state, {}, POLICY).steps == ()


def test_a_cutover_climbs_with_a_gate_after_each_step() -> None:
    world = a_world()
    world.weights[CHAT] = Weights(0, 100)
    plan = cutover_plan(CHAT, 100, world.reading(), world.demand, POLICY)
    assert [step.weights.service for step in plan.steps if isinstance(step, Shift)] == [5, 25, 50, 100]
    assert kinds(plan).count("watch") == 4
    assert kinds(plan)[:3] == ["grow", "await_ready", "smoke_test"]


def test_a_cutover_goes_on_from_where_the_weights_are_and_stops_where_it_is_told() -> None:
    world = a_world()
    world.weights[CHAT] = Weights(10, 90)
    plan = cutover_plan(CHAT, 40, world.reading(), world.demand, POLICY)
    assert [step.weights.service for step in plan.steps if isinstance(step, Shift)] == [25, 40]


def test_a_cutover_downwards_makes_room_on_the_monolith_first() -> None:
    world = a_world()
    plan = cutover_plan(CHAT, 50, world.reading(), world.demand, POLICY)
    assert kinds(plan) == ["grow", "await_ready", "smoke_test", "shift", "verify"]
    assert isinstance(plan.steps[0], Grow)
    assert plan.steps[0].deployment == MONOLITH


def test_a_restore_climbs_in_two_gated_steps_and_puts_the_monolith_back_last() -> None:
    world = a_world()
    world.weights[CHAT] = Weights(0, 100)
    world.deployments[CHAT].desired = world.deployments[CHAT].ready = 1
    world.deployments[MONOLITH].desired = world.deployments[MONOLITH].ready = 2
    before = {CHAT: 2, MONOLITH: 1}
    plan = restore_plan(CHAT, before, Weights(100, 0), world.reading(), world.demand, POLICY)
    assert [step.weights.service for step in plan.steps if isinstance(step, Shift)] == [50, 100]
    assert {step.requests for step in plan.steps if isinstance(step, Watch)} == {60}
    assert isinstance(plan.steps[0], Grow)
    assert plan.steps[0].replicas == 2
    last = plan.steps[-1]
    assert isinstance(last, Shrink)
    assert (last.deployment, last.replicas) == (MONOLITH, 1)


def test_scaling_in_below_what_is_needed_is_refused() -> None:
    world = a_world()
    world.demand[CHAT] = Demand(20.0)
    with pytest.raises(ActuationRefused, match="needs 2 replicas"):
        scale_plan(CHAT, 1, world.reading(), world.demand, POLICY)


def test_scaling_beyond_the_limit_is_refused() -> None:
    world = a_world()
    with pytest.raises(ActuationRefused, match="at most 6"):
        scale_plan(CHAT, 7, world.reading(), world.demand, POLICY)


def test_an_unknown_service_is_named_with_those_that_exist() -> None:
    world = a_world()
    with pytest.raises(InvalidDefinition, match="search-service"):
        rollback_plan("sarch-service", world.reading(), world.demand, POLICY)


def test_a_policy_that_cannot_work_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="headroom"):
        PlanPolicy(headroom=0.9)
    with pytest.raises(InvalidDefinition, match="rollback_percents"):
        PlanPolicy(rollback_percents=(50, 40, 100))
    with pytest.raises(InvalidDefinition, match="rollback_percents"):
        PlanPolicy(rollback_percents=(50,))


def test_two_plans_conflict_over_a_service_or_over_scaling_the_monolith_by_hand() -> None:
    world = a_world()
    state = world.reading()
    chat = rollback_plan(CHAT, state, world.demand, POLICY)
    files = rollback_plan("file-service", state, world.demand, POLICY)
    everything = rollback_plan("all", state, world.demand, POLICY)
    monolith = scale_plan(MONOLITH, 3, state, world.demand, POLICY)
    assert not chat.conflicts_with(files)
    assert chat.conflicts_with(chat)
    assert chat.conflicts_with(everything)
    assert chat.conflicts_with(monolith)
    assert monolith.conflicts_with(chat)


def test_a_plan_reads_as_numbered_sentences_with_its_deadlines() -> None:
    world = a_world()
    text = "\n".join(rollback_plan(CHAT, world.reading(), world.demand, POLICY).lines())
    assert "roll ai-gateway-service back to librechat-monolith" in text
    assert "route 50 % of ai-gateway-service to itself and 50 % to librechat-monolith" in text
    assert "at most 15 s, else put everything back" in text


@given(
    service=st.sampled_from(SERVICES),
    weight=st.integers(0, 100),
    replicas=st.integers(1, 6),
    slots=st.floats(0, 100, allow_nan=False),
    forward=st.booleans(),
    to=st.integers(0, 100),
)
def test_every_plan_survives_its_json_moves_one_way_in_whole_weights_and_gives_each_step_a_deadline(
    service: str, weight: int, replicas: int, slots: float, forward: bool, to: int
) -> None:
    world = a_world()
    world.weights[service] = Weights(weight, 100 - weight)
    world.deployments[service].desired = world.deployments[service].ready = replicas
    world.demand[service] = Demand(slots)
    try:
        plan = (
            cutover_plan(service, to, world.reading(), world.demand, POLICY)
            if forward
            else rollback_plan(service, world.reading(), world.demand, POLICY)
        )
    except ActuationRefused:
        return
    again = plan_from_json(plan_json(plan))
    assert again == plan
    assert again.hash == plan.hash
    assert all(step.deadline.total_seconds() > 0 for step in plan.steps)
    path = [weight] + [step.weights.service for step in plan.steps if isinstance(step, Shift)]
    moves = [after - before for before, after in pairwise(path)]
    assert all(move > 0 for move in moves) or all(move < 0 for move in moves)
    first_shift = next((i for i, step in enumerate(plan.steps) if isinstance(step, Shift)), None)
    if first_shift is not None:
        assert any(isinstance(step, SmokeTest) for step in plan.steps[:first_shift])
        assert any(isinstance(step, AwaitReady) for step in plan.steps[:first_shift])


def test_another_plan_has_another_hash() -> None:
    world = a_world()
    one = rollback_plan(CHAT, world.reading(), world.demand, POLICY)
    world.demand[CHAT] = Demand(11.0)
    assert rollback_plan(CHAT, world.reading(), world.demand, POLICY).hash != one.hash


def test_stored_json_that_is_no_plan_is_refused() -> None:
    with pytest.raises(InvalidDefinition, match="cannot be read"):
        plan_from_json({"kind": "rollback"})
