"""What the journal says of the past: what cools down, what is blamed, what goes on."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from control_plane.actions.journal import Entry, EntryKind, Saga
from control_plane.actions.planning import cutover_plan, restore_plan, rollback_plan, scale_plan
from control_plane.actions.plans import Plan, PlanPolicy
from control_plane.actions.steps import Shift, Shrink
from control_plane.decisions.evidence import ActiveSaga, ChangeKind
from control_plane.decisions.reasons import Move
from control_plane.ports import Change
from control_plane.runners.memory import active_sagas, changes_by_service, move_of, recent_actions
from control_plane.topology import MONOLITH, Weights
from tests.actions.suite_world import NOON, World, a_world, demand_of

CHAT = "ai-gateway-service"
SEARCH = "search-service"
POLICY = PlanPolicy()
MINUTE = timedelta(minutes=1)


def on_the_monolith() -> World:
    world = a_world()
    world.weights[CHAT] = Weights(0, 100)
    world.deployments[CHAT].desired = world.deployments[CHAT].ready = 1
    return world


def a_rollback(target: str = CHAT) -> Plan:
    world = a_world()
    return rollback_plan(target, world.reading(), demand_of(world), POLICY)


def a_scale(deployment: str, replicas: int) -> Plan:
    world = a_world()
    return scale_plan(deployment, replicas, world.reading(), demand_of(world), POLICY)


def a_cutover(percent: int = 100) -> Plan:
    world = on_the_monolith()
    return cutover_plan(CHAT, percent, world.reading(), demand_of(world), POLICY)


def a_restore() -> Plan:
    world = on_the_monolith()
    return restore_plan(CHAT, {CHAT: 2}, Weights(100, 0), world.reading(), demand_of(world), POLICY)


def a_saga(plan: Plan, *, done: int | None = 0, ended: bool = True, **changes: Any) -> Saga:
    """Steps before `done` (None: all) were done, a minute apart; then it ended."""
    steps = len(plan.steps) if done is None else done
    entries = []
    for index in range(steps):
        at = NOON + (index + 1) * MINUTE
        entries += [Entry(EntryKind.STARTED, at, index), Entry(EntryKind.DONE, at, index, {"met": True})]
    if ended:
        outcome = {"state": "DONE", "outcome": ""}
        entries.append(Entry(EntryKind.ENDED, NOON + (steps + 1) * MINUTE, None, outcome))
    header: dict[str, Any] = {"by": "backstay", "automatic": True, "drill": False}
    values = header | changes
    return Saga("s1", plan, values["by"], "reason", values["automatic"], NOON, values["drill"], None, tuple(entries))


@pytest.mark.parametrize(
    ("plan", "move"),
    [
        (a_rollback(), Move.ROLL_BACK),
        (a_rollback("all"), Move.FULL_ROLLBACK),
        (a_scale(SEARCH, 4), Move.SCALE_OUT),
        (a_scale(SEARCH, 1), Move.SCALE_IN),
        (a_cutover(), None),
        (a_restore(), None),
    ],
)
def test_every_plan_is_remembered_as_the_move_that_it_carries_out(plan: Plan, move: Move | None) -> None:
    assert move_of(plan) is move


def test_an_automatic_action_is_remembered_from_its_beginning_to_its_end() -> None:
    (action,) = recent_actions([a_saga(a_rollback())])
    assert (action.at, action.move, action.target, action.drill) == (NOON, Move.ROLL_BACK, CHAT, False)
    assert action.ended_at == NOON + MINUTE


def test_an_action_that_goes_on_has_no_end() -> None:
    (action,) = recent_actions([a_saga(a_rollback(), ended=False)])
    assert action.ended_at is None


@pytest.mark.parametrize("changes", [{"drill": True}, {"automatic": False, "by": "ada"}])
def test_drills_and_what_people_ordered_use_up_nothing_but_are_remembered(changes: dict[str, Any]) -> None:
    (action,) = recent_actions([a_saga(a_rollback(), **changes)])
    assert action.drill
    assert action.ended_at is not None  # what came before it proves nothing about what is after it


@pytest.mark.parametrize("plan", [a_cutover(), a_restore()])
def test_a_move_forward_ends_what_was_measured_before_it(plan: Plan) -> None:
    (action,) = recent_actions([a_saga(plan, automatic=False)])
    assert (action.target, action.drill) == (CHAT, True)


def test_only_running_plans_are_active_and_say_where_they_lead() -> None:
    running = a_saga(a_rollback(), ended=False)
    assert active_sagas([running, a_saga(a_scale(SEARCH, 4))]) == (
        ActiveSaga("s1", "rollback", CHAT, (CHAT,), to_monolith=True),
    )
    assert not active_sagas([a_saga(a_cutover(), ended=False)])[0].to_monolith
    assert active_sagas([a_saga(a_scale(MONOLITH, 3), ended=False)])[0].services == ()


def test_traffic_that_a_plan_moved_forward_is_a_change_that_can_be_blamed() -> None:
    plan = a_cutover()
    changes = changes_by_service((), [a_saga(plan, done=None)])[CHAT]
    shifts = [index for index, step in enumerate(plan.steps) if isinstance(step, Shift)]
    assert [change.summary for change in changes] == ["0 -> 5 %", "0 -> 25 %", "0 -> 50 %", "0 -> 100 %"]
    assert {change.kind for change in changes} == {ChangeKind.WEIGHTS_FORWARD}
    assert [change.at for change in changes] == [NOON + (index + 1) * MINUTE for index in shifts]


def test_a_rollback_is_a_change_back_and_takes_replicas_away() -> None:
    changes = changes_by_service((), [a_saga(a_rollback(), done=None)])[CHAT]
    assert [change.kind for change in changes] == [
        ChangeKind.WEIGHTS_BACK,
        ChangeKind.WEIGHTS_BACK,
        ChangeKind.SCALE,
    ]
    assert changes[-1].summary == "2 -> 1 replicas"


def test_replicas_that_came_are_no_change_that_explains_full_slots() -> None:
    assert changes_by_service((), [a_saga(a_scale(SEARCH, 4), done=None)]) == {}


def test_what_a_drill_changed_carries_its_mark() -> None:
    saga = a_saga(a_restore(), done=None, drill=True, automatic=False)
    assert all(change.drill for change in changes_by_service((), [saga])[CHAT])


def test_only_what_was_done_is_a_change() -> None:
    plan = a_rollback()
    assert not any(isinstance(step, Shift | Shrink) for step in plan.steps[:2])
    assert changes_by_service((), [a_saga(plan, done=2, ended=False)]) == {}


def test_deploys_and_configuration_are_changes_and_other_words_are_none() -> None:
    told = [
        Change(NOON + MINUTE, SEARCH, "deploy", "v2", "ci"),
        Change(NOON, SEARCH, "config", "limits", "ada"),
        Change(NOON, SEARCH, "weather", "rain", "ada"),
    ]
    changes = changes_by_service(told, ())[SEARCH]
    assert [(change.kind, change.summary) for change in changes] == [
        (ChangeKind.CONFIG, "limits"),
        (ChangeKind.DEPLOY, "v2"),
    ]
