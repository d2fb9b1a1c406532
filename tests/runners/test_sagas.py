"""Sagas end to end in virtual time: what moves, in which order, and where things stand when something goes wrong.

The world itself fails a test on any write that would send traffic to a copy without room or shrink one in use.
"""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.actions.capacity import Demand
from control_plane.actions.journal import EntryKind, Saga, SagaState, saga_json
from control_plane.actions.planning import cutover_plan, restore_plan, rollback_plan, scale_plan
from control_plane.actions.plans import Plan, PlanPolicy
from control_plane.errors import ActuationRefused, StaleFence
from control_plane.ports import Freeze
from control_plane.runners.sagas import EventKind, SagaRunner
from control_plane.topology import MONOLITH, SERVICES, Backend, Weights
from tests.actions.suite_world import NOON, World, a_world
from tests.runners.saga_desk import Desk, MemoryAudit, Samples, ended

POLICY = PlanPolicy()
CHAT = "ai-gateway-service"
ON_SERVICE, ON_MONOLITH = Weights(100, 0), Weights(0, 100)


def rollback(world: World, target: str = CHAT, policy: PlanPolicy = POLICY) -> Plan:
    return rollback_plan(target, world.reading(), world.demand, policy)


def on_the_monolith(world: World, service: str = CHAT) -> World:
    """The world after a rollback."""
    world.weights[service] = ON_MONOLITH
    world.deployments[service].desired = world.deployments[service].ready = 1
    world.deployments[MONOLITH].desired = world.deployments[MONOLITH].ready = 2
    return world


# --- a rollback that goes well


async def test_a_rollback_moves_the_traffic_and_keeps_one_replica_warm() -> None:
    world = a_world(error_share={(CHAT, Backend.SERVICE): 0.2})
    desk = Desk(world)
    state, outcome = ended(await desk.carry_out(rollback(world)))
    assert state is SagaState.DONE, outcome
    assert world.weights[CHAT] == ON_MONOLITH
    assert world.writes == [f"weights {CHAT} 50/50", f"weights {CHAT} 0/100", f"scale {CHAT} 1"]
    assert all(world.weights[other] == ON_SERVICE for other in SERVICES if other != CHAT)


async def test_with_a_warm_monolith_traffic_has_moved_within_ten_seconds_of_the_decision() -> None:
    world = a_world(error_share={(CHAT, Backend.SERVICE): 0.2})
    desk = Desk(world)
    await desk.carry_out(rollback(world))
    moved = next(e for e in desk.events if e.kind is EventKind.STEP_DONE and e.step_kind == "prove_moved")
    assert moved.at - NOON < timedelta(seconds=10)
    assert moved.took is not None


async def test_more_of_the_monolith_is_ready_before_the_first_request_goes_there() -> None:
    world = a_world()
    world.demand[CHAT] = Demand(60.0)
    desk = Desk(world)
    assert ended(await desk.carry_out(rollback(world)))[0] is SagaState.DONE
    assert world.writes[:2] == [f"scale {MONOLITH} 2", f"weights {CHAT} 50/50"]


async def test_the_smoke_test_is_pinned_to_the_monolith_and_comes_before_the_first_shift() -> None:
    world = a_world()
    desk = Desk(world)
    seen: list[bool] = []
    world.on_write = lambda w: seen.append((CHAT, Backend.MONOLITH) in w.passed_journeys)
    await desk.carry_out(rollback(world))
    assert all(seen)
    assert desk.journeys.runs[0] == (CHAT, Backend.MONOLITH, 12)
    assert desk.journeys.runs[-1] == (CHAT, None, 12)


async def test_dead_replicas_do_not_hinder_a_rollback() -> None:
    world = a_world()
    world.deployments[CHAT].ready = 0
    desk = Desk(world)
    state, outcome = ended(await desk.carry_out(rollback(world)))
    assert state is SagaState.DONE, outcome
    assert world.weights[CHAT] == ON_MONOLITH


async def test_a_whole_rollback_moves_every_service() -> None:
    world = a_world()
    desk = Desk(world)
    state, outcome = ended(await desk.carry_out(rollback(world, "all")))
    assert state is SagaState.DONE, outcome
    assert set(world.weights.values()) == {ON_MONOLITH}
    last_shift = max(i for i, write in enumerate(world.writes) if write.startswith("weights"))
    assert all(write.endswith(" 1") for write in world.writes[last_shift + 1 :])


async def test_a_plan_without_steps_writes_nothing() -> None:
    world = on_the_monolith(a_world())
    desk = Desk(world)
    assert ended(await desk.carry_out(rollback(world)))[0] is SagaState.DONE
    assert world.writes == []


async def test_streams_that_stay_open_do_not_stop_a_rollback() -> None:
    world = a_world(stuck_in_flight={(CHAT, Backend.SERVICE): 3})
    desk = Desk(world)
    saga = await desk.carry_out(rollback(world))
    assert ended(saga)[0] is SagaState.DONE
    drain = next(s for s in saga_json(saga)["steps"] if s["kind"] == "drain")
    assert "3 requests" in drain["detail"]


async def test_when_users_are_quiet_journeys_prove_the_move_and_the_check_says_what_is_missing() -> None:
    world = a_world(rate=0.1)
    desk = Desk(world)
    state, outcome = ended(await desk.carry_out(rollback(world)))
    assert state is SagaState.HELD
    assert "208 are needed" in outcome
    assert world.weights[CHAT] == ON_MONOLITH
    assert f"scale {CHAT} 1" not in world.writes


# --- a destination that is no good


async def test_a_monolith_that_fails_its_smoke_test_gets_no_traffic() -> None:
    world = a_world(journeys_fail_on={(CHAT, Backend.MONOLITH)})
    world.demand[CHAT] = Demand(60.0)
    desk = Desk(world)
    state, outcome = ended(await desk.carry_out(rollback(world)))
    assert state is SagaState.REVERTED
    assert "wrong body" in outcome
    assert world.writes == [f"scale {MONOLITH} 2", f"scale {MONOLITH} 1"]


async def test_a_monolith_that_does_not_get_ready_gets_no_traffic() -> None:
    world = a_world()
    world.demand[CHAT] = Demand(60.0)
    world.deployments[MONOLITH].can_start = False
    desk = Desk(world)
    state, outcome = ended(await desk.carry_out(rollback(world)))
    assert state is SagaState.REVERTED
    assert "1 of 2 replicas of librechat-monolith are ready after 90 s" in outcome
    assert world.weights[CHAT] == ON_SERVICE


async def test_a_monolith_worse_than_the_service_loses_what_it_was_given() -> None:
    world = a_world(rate=100.0, error_share={(CHAT, Backend.SERVICE): 0.2, (CHAT, Backend.MONOLITH): 0.9})
    desk = Desk(world)
    state, outcome = ended(await desk.carry_out(rollback(world)))
    assert state is SagaState.REVERTED, outcome
    assert "with errors; the other backend" in outcome
    assert world.weights[CHAT] == ON_SERVICE


async def test_a_monolith_bad_but_better_than_the_service_keeps_the_traffic_and_a_person_is_asked() -> None:
    world = a_world(rate=100.0, error_share={(CHAT, Backend.SERVICE): 1.0, (CHAT, Backend.MONOLITH): 0.4})
    desk = Desk(world)
    state, outcome = ended(await desk.carry_out(rollback(world)))
    assert state is SagaState.HELD
    assert "are needed to rule out 1.44%" in outcome
    assert world.weights[CHAT] == ON_MONOLITH


async def test_a_monolith_that_loses_its_room_between_two_shifts_gets_no_more() -> None:
    world = a_world(rate=1.0)
    world.demand[CHAT] = Demand(60.0)

    def one_dies(w: World) -> None:
        if w.writes[-1] == f"weights {CHAT} 50/50":
            w.deployments[MONOLITH].ready = 1

    world.on_write = one_dies
    state, outcome = ended(await Desk(world).carry_out(rollback(world)))
    assert state is SagaState.HELD
    assert "1 ready replicas and needs 2" in outcome
    assert world.weights[CHAT] == Weights(50, 50)


async def test_weights_that_are_written_and_never_applied_are_noticed() -> None:
    world = a_world(deaf_to_weights=True)
    state, outcome = ended(await Desk(world).carry_out(rollback(world)))
    assert state is SagaState.REVERTED
    assert f"weights of {CHAT} are 100/0" in outcome


async def test_errors_after_the_move_are_not_called_a_recovery() -> None:
    world = a_world(error_share={(CHAT, Backend.MONOLITH): 0.05})
    state, outcome = ended(await Desk(world).carry_out(rollback(world)))
    assert state is SagaState.HELD
    assert f"{CHAT} verified" in outcome
    assert f"scale {CHAT} 1" not in world.writes


async def test_journeys_that_are_wrong_by_content_are_not_called_a_recovery() -> None:
    world = a_world()
    world.on_write = lambda w: w.journeys_fail_on.add((CHAT, Backend.MONOLITH))
    state, outcome = ended(await Desk(world).carry_out(rollback(world)))
    assert state is SagaState.HELD
    assert "wrong body" in outcome


async def test_only_requests_after_convergence_are_judged() -> None:
    world = a_world(error_share={(CHAT, Backend.SERVICE): 1.0})
    world.flows[CHAT, Backend.MONOLITH].completed = 1000
    world.flows[CHAT, Backend.MONOLITH].server_errors = 900
    samples = Samples()
    desk = Desk(world, samples=samples)
    saga = await desk.carry_out(rollback(world))
    assert ended(saga)[0] is SagaState.DONE
    drained = next(e for e in saga.entries if e.kind is EntryKind.DONE and saga.plan.steps[e.step or 0].kind == "drain")
    assert set(samples.asked) == {(CHAT, drained.at)}


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (Samples(total=500, slow=100), "100 of 500 slow"),
        (Samples(total=500, bad=50), "users saw 50 errors"),
        (Samples(total=0), "users saw 0 errors in 0 requests"),
        (Samples(down=True), "latency could not be seen: Prometheus did not answer"),
    ],
)
async def test_what_users_saw_counts_as_well(samples: Samples, words: str) -> None:
    world = a_world()
    state, outcome = ended(await Desk(world, samples=samples).carry_out(rollback(world)))
    assert state is SagaState.HELD
    assert words in outcome
    assert world.weights[CHAT] == ON_MONOLITH


# --- sources and stores that fail


async def test_a_runtime_that_never_answers_ends_the_saga_without_a_write() -> None:
    world = a_world()
    plan = rollback(world)
    world.runtime_down = True
    state, outcome = ended(await Desk(world).carry_out(plan))
    assert state is SagaState.REVERTED
    assert "the runtime does not answer" in outcome
    assert world.writes == []


async def test_a_runtime_that_is_away_for_a_while_does_not_matter() -> None:
    world = a_world()
    desk = Desk(world)

    def away(_: SagaRunner) -> None:
        world.runtime_down = 2 < world.now < 8

    desk.at_pause = away
    assert ended(await desk.carry_out(rollback(world)))[0] is SagaState.DONE


async def test_a_runtime_lost_between_two_shifts_is_said_so() -> None:
    world = a_world()
    world.on_write = lambda w: setattr(w, "runtime_down", True)
    state, outcome = ended(await Desk(world).carry_out(rollback(world)))
    assert state is SagaState.HELD
    assert "did not answer" in outcome


async def test_journeys_that_cannot_be_run_prove_nothing() -> None:
    world = a_world(journeys_down=True)
    state, outcome = ended(await Desk(world).carry_out(rollback(world)))
    assert state is SagaState.REVERTED
    assert "the load API did not answer" in outcome
    assert world.writes == []


async def test_nothing_is_done_while_the_journal_cannot_be_written_and_it_goes_on_when_it_can() -> None:
    world = a_world()
    desk = Desk(world)

    def disk(_: SagaRunner) -> None:
        desk.journal.full = 0.5 <= world.now < 60

    desk.at_pause = disk
    world.on_write = lambda w: pytest.fail("an effect without its intent") if desk.journal.full else None
    assert ended(await desk.carry_out(rollback(world)))[0] is SagaState.DONE
    assert [e.detail for e in desk.events if e.kind is EventKind.WAITING] == ["Nothing was written: the disk is full."]


async def test_an_audit_log_that_is_down_does_not_block_a_rollback() -> None:
    world = a_world()
    desk = Desk(world, audit=MemoryAudit(down=True))
    assert ended(await desk.carry_out(rollback(world)))[0] is SagaState.DONE


async def test_every_write_is_in_the_audit_log_before_it_takes_effect() -> None:
    world = a_world()
    desk = Desk(world)
    recorded: list[int] = []
    world.on_write = lambda w: recorded.append(len(desk.audit.records) - 1)  # the first record is the beginning
    await desk.carry_out(rollback(world))
    assert recorded == list(range(1, len(world.writes) + 1))


async def test_an_observer_that_fails_does_not_stop_a_saga() -> None:
    world = a_world()
    desk = Desk(world)
    desk.events = FailingList()
    assert ended(await desk.carry_out(rollback(world)))[0] is SagaState.DONE


class FailingList(list):  # type: ignore[type-arg]
    def append(self, _: object) -> None:
        raise RuntimeError("the timeline is broken")


@pytest.mark.parametrize("jump", [timedelta(hours=1), timedelta(hours=-1)])
async def test_a_wall_clock_that_jumps_changes_nothing(jump: timedelta) -> None:
    world = a_world()
    desk = Desk(world)

    def jumps(_: SagaRunner) -> None:
        if world.now > 1:
            desk.clock_offset = jump

    desk.at_pause = jumps
    assert ended(await desk.carry_out(rollback(world)))[0] is SagaState.DONE
    assert world.writes == [f"weights {CHAT} 50/50", f"weights {CHAT} 0/100", f"scale {CHAT} 1"]


# --- stopping


def stop_when(desk: Desk, condition: str) -> None:
    """Stops all sagas once the newest write is `condition`; before the first one if it is empty."""

    def at_pause(runner: SagaRunner) -> None:
        if (desk.world.writes[-1] if desk.world.writes else "") == condition:
            runner.stop_all("frozen by ana: maintenance")

    desk.at_pause = at_pause


async def test_stopped_before_the_first_shift_nothing_has_moved() -> None:
    world = a_world()
    world.demand[CHAT] = Demand(60.0)
    world.deployments[MONOLITH].starts_in = 30
    desk = Desk(world)
    stop_when(desk, f"scale {MONOLITH} 2")
    state, outcome = ended(await desk.carry_out(rollback(world)))
    assert state is SagaState.HELD
    assert outcome == "stopped: frozen by ana: maintenance"
    assert world.weights[CHAT] == ON_SERVICE


async def test_stopped_between_two_shifts_of_a_rollback_traffic_is_left_on_the_monolith() -> None:
    world = a_world(rate=1.0)
    desk = Desk(world)
    stop_when(desk, f"weights {CHAT} 50/50")
    assert ended(await desk.carry_out(rollback(world)))[0] is SagaState.HELD
    assert world.weights[CHAT] == ON_MONOLITH
    assert world.writes[-1] == f"weights {CHAT} 0/100"


async def test_stopped_in_the_middle_of_a_cutover_traffic_is_left_on_the_monolith() -> None:
    world = on_the_monolith(a_world())
    desk = Desk(world)
    plan = cutover_plan(CHAT, 100, world.reading(), world.demand, POLICY)
    stop_when(desk, f"weights {CHAT} 25/75")
    assert ended(await desk.carry_out(plan))[0] is SagaState.HELD
    assert world.weights[CHAT] == ON_MONOLITH


async def test_the_kill_switch_stops_what_runs_and_what_is_automatic_but_not_a_person() -> None:
    freeze = Freeze(NOON - timedelta(hours=1), "ana", "maintenance")
    world = a_world()
    saga = await Desk(world, freeze=freeze).carry_out(rollback(world))
    assert ended(saga) == (SagaState.HELD, "stopped: frozen by ana: maintenance")
    assert world.writes == []
    world = a_world()
    saga = await Desk(world, freeze=freeze).carry_out(rollback(world), by="bogdan", automatic=False)
    assert ended(saga)[0] is SagaState.DONE
    world = a_world()
    late = Freeze(NOON + timedelta(seconds=1), "ana", "maintenance")
    saga = await Desk(world, freeze=late).carry_out(rollback(world), by="bogdan", automatic=False)
    assert ended(saga)[0] is SagaState.HELD


# --- forward


async def test_a_cutover_climbs_gate_by_gate() -> None:
    world = on_the_monolith(a_world())
    plan = cutover_plan(CHAT, 100, world.reading(), world.demand, POLICY)
    desk = Desk(world)
    state, outcome = ended(await desk.carry_out(plan))
    assert state is SagaState.DONE, outcome
    shifts = [write for write in world.writes if write.startswith("weights")]
    assert shifts == [f"weights {CHAT} {percent}" for percent in ("5/95", "25/75", "50/50", "100/0")]


async def test_a_gate_that_sees_errors_sends_everything_back_at_once() -> None:
    world = on_the_monolith(a_world(error_share={(CHAT, Backend.SERVICE): 0.2}))
    plan = cutover_plan(CHAT, 100, world.reading(), world.demand, POLICY)
    desk = Desk(world)
    state, outcome = ended(await desk.carry_out(plan))
    assert state is SagaState.REVERTED
    assert "with errors" in outcome
    assert world.weights[CHAT] == ON_MONOLITH
    assert desk.world.now < 60
    assert f"weights {CHAT} 25/75" not in world.writes


async def test_a_restore_puts_weights_and_replicas_back() -> None:
    world = on_the_monolith(a_world())
    plan = restore_plan(CHAT, {CHAT: 2, MONOLITH: 1}, ON_SERVICE, world.reading(), world.demand, POLICY)
    state, outcome = ended(await Desk(world).carry_out(plan, drill=True))
    assert state is SagaState.DONE, outcome
    assert world.weights[CHAT] == ON_SERVICE
    assert (world.deployments[CHAT].desired, world.deployments[MONOLITH].desired) == (2, 1)


async def test_a_restore_whose_fault_is_still_there_leaves_the_service_on_the_monolith() -> None:
    world = on_the_monolith(a_world(error_share={(CHAT, Backend.SERVICE): 0.2}))
    plan = restore_plan(CHAT, {CHAT: 2, MONOLITH: 1}, ON_SERVICE, world.reading(), world.demand, POLICY)
    assert ended(await Desk(world).carry_out(plan))[0] is SagaState.REVERTED
    assert world.weights[CHAT] == ON_MONOLITH
    assert world.deployments[MONOLITH].desired == 2


async def test_the_monolith_is_not_shrunk_while_another_plan_counts_on_it() -> None:
    world = on_the_monolith(a_world())
    world.demand["file-service"] = Demand(60.0)
    desk = Desk(world)
    runner = desk.runner()
    await runner.start()
    restore = restore_plan(CHAT, {CHAT: 2, MONOLITH: 1}, ON_SERVICE, world.reading(), world.demand, POLICY)
    one = await runner.begin(restore, by="drill", reason="drill is over", automatic=True, drill=True)
    other = rollback_plan("file-service", world.reading(), world.demand, POLICY, also_moving=runner.moving())
    two = await runner.begin(other, by="backstay", reason="errors", automatic=True)
    assert len(runner.running()) == 2
    await runner.wait(one)
    assert ended(await runner.wait(two))[0] is SagaState.DONE
    assert world.weights == {**dict.fromkeys(SERVICES, ON_SERVICE), "file-service": ON_MONOLITH}
    assert world.deployments[MONOLITH].desired == 2


async def test_a_scale_out_waits_until_its_replicas_are_ready_and_a_scale_in_drains() -> None:
    world = a_world()
    plan = scale_plan(CHAT, 4, world.reading(), world.demand, POLICY)
    assert ended(await Desk(world).carry_out(plan))[0] is SagaState.DONE
    assert world.deployments[CHAT].ready == 4
    plan = scale_plan(CHAT, 1, world.reading(), world.demand, POLICY)
    assert ended(await Desk(world).carry_out(plan))[0] is SagaState.DONE
    assert world.deployments[CHAT].desired == 1


# --- one actor at a time


async def test_two_plans_on_the_same_service_are_refused_and_name_each_other() -> None:
    world = a_world()
    runner = Desk(world).runner()
    await runner.start()
    orders = [
        runner.begin(rollback(world), by="ana", reason="one", automatic=False),
        runner.begin(rollback(world), by="bogdan", reason="two", automatic=False),
    ]
    results = await asyncio.gather(*orders, return_exceptions=True)
    (refused,) = [result for result in results if isinstance(result, BaseException)]
    assert isinstance(refused, ActuationRefused)
    assert f"roll {CHAT} back" in str(refused)
    await runner.close()


async def test_an_older_process_that_wakes_up_writes_nothing_more() -> None:
    world = a_world(rate=1.0)
    desk = Desk(world)
    old, new = desk.runner(), desk.runner()
    await old.start()
    saga_id = await old.begin(rollback(world), by="backstay", reason="errors", automatic=True)
    await asyncio.sleep(0)
    await new.start()
    await old.wait(saga_id)
    assert old.superseded is not None
    with pytest.raises(StaleFence):
        await old.begin(rollback(world, "file-service"), by="backstay", reason="errors", automatic=True)
    saga = await desk.to_the_end(new, saga_id)
    assert world.weights[CHAT] == ON_MONOLITH
    assert saga.progress.ended is not None


async def test_a_runner_that_was_not_started_does_nothing() -> None:
    world = a_world()
    with pytest.raises(ActuationRefused, match="not started"):
        await Desk(world).runner().begin(rollback(world), by="ana", reason="now", automatic=False)


# --- crashes


def outcome_of(world: World, saga: Saga) -> tuple[SagaState, dict[str, Weights], dict[str, int]]:
    return (
        saga.progress.state,
        dict(world.weights),
        {name: running.desired for name, running in world.deployments.items()},
    )


def a_rollback_with_scaling() -> tuple[World, Plan]:
    world = a_world(error_share={(CHAT, Backend.SERVICE): 0.2})
    world.demand[CHAT] = Demand(60.0)
    return world, rollback(world)


def a_cutover() -> tuple[World, Plan]:
    world = on_the_monolith(a_world(rate=400.0))
    return world, cutover_plan(CHAT, 100, world.reading(), world.demand, POLICY)


def a_cutover_that_fails() -> tuple[World, Plan]:
    world = on_the_monolith(a_world(error_share={(CHAT, Backend.SERVICE): 0.5}))
    world.demand[CHAT] = Demand(20.0)
    return world, cutover_plan(CHAT, 100, world.reading(), world.demand, POLICY)


def a_rollback_that_reverts() -> tuple[World, Plan]:
    world = a_world(journeys_fail_on={(CHAT, Backend.MONOLITH)})
    world.demand[CHAT] = Demand(60.0)
    return world, rollback(world)


def a_restore() -> tuple[World, Plan]:
    world = on_the_monolith(a_world())
    return world, restore_plan(CHAT, {CHAT: 2, MONOLITH: 1}, ON_SERVICE, world.reading(), world.demand, POLICY)


STORIES = [a_rollback_with_scaling, a_cutover, a_cutover_that_fails, a_rollback_that_reverts, a_restore]


@pytest.mark.parametrize("story", STORIES)
async def test_a_crash_at_any_boundary_ends_in_the_same_state(story: object) -> None:
    assert callable(story)
    world, plan = story()
    desk = Desk(world)
    expected = outcome_of(world, await desk.carry_out(plan))
    assert desk.boundaries.passed > 10
    for boundary in range(1, desk.boundaries.passed + 1):
        world, plan = story()
        saga = await Desk(world, crash_at=frozenset({boundary})).carry_out(plan)
        assert outcome_of(world, saga) == expected, f"crash at boundary {boundary}: {saga.progress.outcome}"
        resumed = any(entry.kind is EntryKind.RESUMED for entry in saga.entries)
        assert resumed or boundary == desk.boundaries.passed  # after the last entry there is nothing to resume


@settings(max_examples=30, deadline=None)
@given(story=st.sampled_from(STORIES), crashes=st.frozensets(st.integers(1, 80), max_size=8))
def test_any_number_of_crashes_ends_in_the_same_state(story: object, crashes: frozenset[int]) -> None:
    assert callable(story)

    async def run(crash_at: frozenset[int]) -> tuple[SagaState, dict[str, Weights], dict[str, int]]:
        world, plan = story()
        return outcome_of(world, await Desk(world, crash_at=crash_at).carry_out(plan))

    assert asyncio.run(run(crashes)) == asyncio.run(run(frozenset()))


async def test_a_process_that_keeps_dying_at_one_step_gives_the_step_up() -> None:
    world = a_world()
    desk = Desk(world, crash_at=frozenset(range(40, 300, 4)))
    state, outcome = ended(await desk.carry_out(rollback(world, "all")))
    assert state is SagaState.REVERTED, outcome
    assert "interrupted 21 times" in outcome
    assert set(world.weights.values()) == {ON_SERVICE}


fault_times = st.floats(0, 40, allow_nan=False)


@settings(max_examples=25, deadline=None)
@given(
    kind=st.sampled_from(["rollback", "all", "cutover", "restore"]),
    service_errors=st.sampled_from([0.0, 0.2, 1.0]),
    monolith_errors=st.sampled_from([0.0, 0.02, 0.5]),
    rate=st.sampled_from([0.0, 2.0, 20.0]),
    slots=st.sampled_from([2.0, 30.0, 60.0]),
    crashes=st.frozensets(st.integers(1, 60), max_size=4),
    runtime_away=st.tuples(fault_times, st.sampled_from([0.0, 5.0, 500.0])),
    journal_full=st.tuples(fault_times, st.sampled_from([0.0, 30.0])),
    monolith_dies_at=st.none() | fault_times,
    stop_at=st.none() | fault_times,
)
def test_whatever_happens_every_saga_ends_and_no_write_harms_users(
    kind: str,
    service_errors: float,
    monolith_errors: float,
    rate: float,
    slots: float,
    crashes: frozenset[int],
    runtime_away: tuple[float, float],
    journal_full: tuple[float, float],
    monolith_dies_at: float | None,
    stop_at: float | None,
) -> None:
    world = a_world(
        rate=rate,
        error_share={(CHAT, Backend.SERVICE): service_errors, (CHAT, Backend.MONOLITH): monolith_errors},
    )
    if kind in ("cutover", "restore"):
        on_the_monolith(world)
    world.demand[CHAT] = Demand(slots)
    if kind == "cutover":
        plan = cutover_plan(CHAT, 100, world.reading(), world.demand, POLICY)
    elif kind == "restore":
        plan = restore_plan(CHAT, {CHAT: 2, MONOLITH: 1}, ON_SERVICE, world.reading(), world.demand, POLICY)
    else:
        plan = rollback(world, "all" if kind == "all" else CHAT)
    desk = Desk(world, crash_at=crashes)
    before = dict(world.weights)

    def trouble(runner: SagaRunner) -> None:
        world.runtime_down = runtime_away[0] <= world.now < sum(runtime_away)
        desk.journal.full = journal_full[0] <= world.now < sum(journal_full)
        if monolith_dies_at is not None and world.now >= monolith_dies_at:
            world.deployments[MONOLITH].ready = 0
        if stop_at is not None and world.now >= stop_at:
            runner.stop_all("enough")

    desk.at_pause = trouble
    saga = asyncio.run(desk.carry_out(plan))
    state, outcome = ended(saga)
    assert state is not SagaState.RUNNING
    assert outcome
    moved = plan.services
    wanted = ON_MONOLITH if kind in ("rollback", "all") else ON_SERVICE
    if state is SagaState.DONE:
        assert all(world.weights[service] == wanted for service in moved)
    if state is SagaState.REVERTED:
        assert world.weights == before
    untouched = set(SERVICES) - set(moved)
    assert all(world.weights[service] == before[service] for service in untouched)
