"""Drills over a world in virtual time: they show what was seen, put everything back, and never harm for nothing."""

from __future__ import annotations

import asyncio

import pytest

from control_plane.actions.journal import Entry, EntryKind, Saga
from control_plane.actions.planning import scale_plan
from control_plane.actions.plans import PlanKind, PlanPolicy
from control_plane.decisions.evidence import Drill, Evidence
from control_plane.decisions.policy import decide
from control_plane.errors import ActuationRefused, InvalidDefinition, SourceUnavailable
from control_plane.runners.drills import WATCH_SECONDS
from control_plane.runners.sagas import EventKind, SagaEvent
from control_plane.slo.state import Kind, Verdict
from control_plane.topology import MONOLITH, SERVICES, Backend, Weights
from tests.decisions.decision_builders import AUTO, a_reading, a_service, an_evidence, failing
from tests.runners.drill_desk import CALLER, CHAT, DrillDesk, a_drill_desk, a_failure, moment, on_the_monolith

SEARCH = "search-service"


# --- the whole story


async def test_a_drill_of_errors_is_detected_mended_counted_and_put_back() -> None:
    desk = await a_drill_desk()
    desk.ground.failures = [a_failure(1.5), a_failure(2.5)]
    result = await desk.run()
    assert result["outcome"] == "passed", result["problems"]
    assert result["action"] == {"kind": "roll_back", "target": CHAT}
    assert result["requests"] == {"sent": 1000, "failed_by_fault": 2, "lost_to_shift": 0}
    assert result["next_step"] is None
    assert desk.world.weights[CHAT] == Weights(100, 0)
    assert desk.world.deployments[CHAT].desired == 2
    assert desk.world.deployments[MONOLITH].desired == 1
    assert desk.ground.faults == {}


async def test_the_timeline_tells_the_story_in_order() -> None:
    desk = await a_drill_desk()
    desk.ground.failures = [a_failure(1.5)]
    drill_id = await desk.begin()
    await desk.result_of(drill_id)
    told = [event for event in desk.timeline(drill_id) if event not in ("grow", "smoke_test", "shift", "watch")]
    assert told == [
        "injected",
        "first failure",
        "detected",
        "decided",
        "capacity ready",
        "traffic moved",
        "drained",
        "recovered",
        "shrink",
        "plan ended",
        "healed",
        "put back",
    ]


async def test_times_count_from_the_first_failed_request_and_come_from_the_right_events() -> None:
    desk = await a_drill_desk()
    desk.ground.failures = [a_failure(3.0), a_failure(1.5)]
    result = await desk.run()
    saga = next(s for s in desk.desk.journal.sagas.values() if s.plan.kind is PlanKind.ROLLBACK)
    done = {str(saga.plan.steps[i].kind): entry.at for i, entry in saga.progress.done.items()}
    assert result["first_failure_after_s"] == 1.5
    assert result["detected_after_s"] == result["decided_after_s"] == 3.5  # the engine looked at second 5
    for time, step in (("capacity_ready", "await_ready"), ("moved", "prove_moved"), ("recovered", "verify")):
        assert result[f"{time}_after_s"] == (done[step] - moment(1.5)).total_seconds()


async def test_a_latency_drill_counts_from_its_injection() -> None:
    desk = await a_drill_desk()
    desk.ground.failures = [a_failure(2.0, fault="latency", kind="timeout")]
    result = await desk.run("latency")
    assert result["first_failure_after_s"] is None
    assert result["detected_after_s"] == 5.0
    assert result["outcome"] == "passed", result["problems"]


async def test_a_first_failure_that_was_not_the_faults_starts_no_clock() -> None:
    desk = await a_drill_desk()
    desk.ground.failures = [a_failure(0.5, fault=None, kind="auth", status=401), a_failure(2.0)]
    result = await desk.run()
    assert result["first_failure_after_s"] == 2.0
    assert result["requests"]["lost_to_shift"] == 1
    assert result["outcome"] == "failed"


async def test_requests_that_failed_before_the_injection_are_nobodys() -> None:
    desk = await a_drill_desk()
    desk.ground.failures = [a_failure(-0.5, fault=None), a_failure(1.0)]
    result = await desk.run()
    assert result["requests"]["failed_by_fault"] == 1
    assert result["requests"]["lost_to_shift"] == 0


async def test_a_crash_is_blamed_by_the_gateways_log() -> None:
    desk = await a_drill_desk()
    desk.ground.failures = [
        a_failure(2.0, fault=None, kind="reset", request_id="a"),
        a_failure(3.0, fault=None, kind="status", request_id="outer", caused_by="b"),
    ]
    desk.ground.seen_at_backend = frozenset({"a", "b"})
    result = await desk.run("crash")
    assert result["requests"] == {"sent": 1000, "failed_by_fault": 2, "lost_to_shift": 0}
    assert f"requests_seen_at {CHAT}.{Backend.SERVICE.value}" in desk.ground.calls


async def test_a_saturation_ends_in_more_replicas_and_takes_them_away_again() -> None:
    desk = await a_drill_desk()
    desk.ground.failures = [a_failure(1.0, fault=None, kind="shed", status=503)]
    drill_id = await desk.begin("saturation")
    result = await desk.result_of(drill_id)
    assert result["outcome"] == "passed", result["problems"]
    assert result["action"] == {"kind": "scale", "target": CHAT}
    assert result["moved_after_s"] == result["capacity_ready_after_s"]
    assert result["recovered_after_s"] > result["moved_after_s"]
    assert "traffic moved" not in desk.timeline(drill_id)
    assert desk.ground.overloads == {}
    assert desk.world.deployments[CHAT].desired == 2


async def test_an_overload_fills_the_slots_twice_with_what_runs_already() -> None:
    desk = await a_drill_desk(provider_seconds=lambda: 4.0)
    rates: list[float] = []
    desk.at_tick = lambda: rates.extend(desk.ground.overloads.values())
    await desk.run("saturation")
    assert rates[0] == (2 * 32 - 8) / 4.0  # slots of both replicas, less the demand, by seconds each


# --- what a drill may use up and what it covers


async def test_plans_of_a_drill_carry_its_mark_and_putting_back_is_the_callers_order() -> None:
    desk = await a_drill_desk()
    await desk.run()
    rollback, restore = desk.desk.journal.sagas.values()
    assert (rollback.drill, rollback.automatic, rollback.by) == (True, True, "backstay")
    assert (restore.drill, restore.automatic, restore.by) == (True, False, "ada")
    assert restore.plan.kind is PlanKind.RESTORE


async def test_the_drill_is_announced_while_its_fault_can_be_seen() -> None:
    desk = await a_drill_desk()
    await desk.run()
    assert desk.announced == [Drill("errors", CHAT), None]
    assert all(decision.drill for decision in desk.decided)


async def test_what_is_left_of_a_fault_after_its_drill_still_counts_as_the_drills() -> None:
    desk = await a_drill_desk(blind=True)
    drill_id = await desk.begin()
    seen_by: list[Drill | None] = []

    def lingering() -> None:
        """The engine sees the fault at last, when it is gone."""
        if CHAT not in desk.ground.faults and len(seen_by) < 3:
            seen_by.append(desk.drilled)
            desk.evidence = an_evidence(failing(CHAT, breach_since=desk.world.clock))

    desk.at_tick = lingering
    result = await desk.result_of(drill_id)
    assert result["outcome"] == "failed"
    assert set(seen_by) == {Drill("errors", CHAT)}
    assert desk.announced[-1] is None


async def test_exclusions_cover_the_service_and_its_callers_from_before_the_fault_to_the_end() -> None:
    desk = await a_drill_desk()
    open_at_ticks: list[set[str]] = []
    desk.at_tick = lambda: open_at_ticks.append(desk.exclusions.open_services)
    await desk.run()
    assert open_at_ticks[0] == {CHAT, CALLER}
    assert desk.exclusions.open_services == set()
    assert {each.reason for each in desk.exclusions.kept.values()} == {f"drill errors on {CHAT}"}
    assert all(each.ended_at == desk.world.clock for each in desk.exclusions.kept.values())


async def test_what_was_lost_after_the_move_fails_the_drill() -> None:
    desk = await a_drill_desk()
    desk.ground.missing = ("message",)
    result = await desk.run()
    assert result["outcome"] == "failed"
    assert "Lost after the move: message" in result["problems"]


async def test_an_incomplete_count_fails_the_drill() -> None:
    desk = await a_drill_desk()
    desk.ground.complete = False
    result = await desk.run()
    assert any("not all could be counted" in problem for problem in result["problems"])


async def test_an_action_on_another_service_is_a_problem() -> None:
    desk = await a_drill_desk()
    stray = next(d for d in decide(an_evidence(failing(SEARCH)), AUTO, moment(0)) if d.target == SEARCH and d.executes)
    desk.also_decided = [stray]
    result = await desk.run()
    assert f"Backstay also chose roll_back of {SEARCH}." in result["problems"]


async def test_a_plan_about_something_else_neither_times_nor_ends_the_drill() -> None:
    desk = await a_drill_desk(blind=True)
    drill_id = await desk.begin()

    def another() -> None:
        plan = scale_plan(MONOLITH, 2, desk.world.reading(), {}, PlanPolicy())
        ended = Entry(EntryKind.ENDED, desk.world.clock, None, {"state": "DONE", "outcome": "done"})
        saga = Saga("other", plan, "backstay", "r", True, desk.world.clock, drill=True, entries=(ended,))
        for kind, step in ((EventKind.STEP_DONE, "await_ready"), (EventKind.ENDED, "")):
            desk.drills.saw_saga(SagaEvent(kind, desk.world.clock, saga, 1, step))

    desk.at_tick = another
    result = await desk.result_of(drill_id)
    assert result["capacity_ready_after_s"] is None
    assert "plan ended" not in desk.timeline(drill_id)


async def test_what_fired_before_the_injection_is_no_detection() -> None:
    desk = await a_drill_desk()
    drill_id = await desk.begin()
    evidence = an_evidence(failing(CHAT))
    desk.drills.saw_tick(evidence, decide(evidence, AUTO, moment(0)), moment(0))
    assert desk.timeline(drill_id) == []
    await desk.result_of(drill_id)


# --- when it does not go well


async def test_a_fault_that_nobody_mends_ends_with_the_drills_time() -> None:
    desk = await a_drill_desk(blind=True)
    result = await desk.run()
    assert result["outcome"] == "failed"
    assert f"It was not over after {WATCH_SECONDS:.0f} s." in result["problems"]
    assert "The fault was not detected in time." in result["problems"]
    assert desk.ground.faults == {}
    assert desk.exclusions.open_services == set()
    assert WATCH_SECONDS <= desk.world.now < WATCH_SECONDS + 30


async def test_a_fault_that_is_refused_fails_with_its_sentence_and_leaves_nothing_behind() -> None:
    desk = await a_drill_desk()
    desk.ground.refuses = "identity-service has the fault latency already."
    result = await desk.run()
    assert result["outcome"] == "failed"
    assert result["problems"] == ["identity-service has the fault latency already."]
    assert result["detected_after_s"] is None
    assert desk.exclusions.open_services == set()
    assert desk.announced[-1] is None
    assert desk.desk.journal.sagas == {}
    assert not any(call.startswith("clear") for call in desk.ground.calls)  # it is somebody else's fault


async def test_a_fault_without_an_answer_may_be_there_and_is_taken_away() -> None:
    desk = await a_drill_desk()
    desk.ground.down = {"inject"}
    result = await desk.run()
    assert "inject did not answer" in result["problems"]
    assert f"clear {CHAT}" in desk.ground.calls
    assert desk.exclusions.open_services == set()


async def test_without_markers_nothing_is_broken() -> None:
    desk = await a_drill_desk()
    desk.ground.down = {"write_markers"}
    result = await desk.run()
    assert result["problems"] == ["write_markers did not answer"]
    assert desk.exclusions.kept == {}
    assert desk.ground.calls == ["write_markers"]


async def test_an_exclusion_that_cannot_be_opened_stops_the_drill_and_the_others_are_closed() -> None:
    desk = await a_drill_desk()
    desk.exclusions.most = 1
    result = await desk.run()
    assert result["outcome"] == "failed"
    assert not any(call.startswith("inject") for call in desk.ground.calls)
    assert desk.exclusions.open_services == set()


@pytest.mark.parametrize("call", ["missing_markers", "outcomes"])
async def test_a_part_that_does_not_answer_fails_the_drill_and_everything_is_put_back_all_the_same(call: str) -> None:
    desk = await a_drill_desk()
    desk.ground.down = {call}
    result = await desk.run()
    assert result["outcome"] == "failed"
    assert any(f"{call} did not answer" in problem for problem in result["problems"])
    assert desk.world.weights[CHAT] == Weights(100, 0)
    assert desk.exclusions.open_services == set()
    assert desk.announced[-1] is None


async def test_while_the_fault_stays_the_service_is_not_put_back_and_the_next_step_is_said() -> None:
    desk = await a_drill_desk()
    desk.ground.down = {"clear"}
    result = await desk.run()
    assert "clear did not answer" in result["problems"]
    assert desk.world.weights[CHAT] == Weights(0, 100)
    assert "ends by itself 4 min after its injection" in result["next_step"]
    assert desk.exclusions.open_services == set()


async def test_a_fault_that_is_not_taken_away_at_once_is_tried_again() -> None:
    desk = await a_drill_desk()
    desk.ground.down = {"clear"}
    clear = desk.ground.clear

    async def answers_at_last(service: str) -> None:
        if sum(call.startswith("clear") for call in desk.ground.calls) >= 2:
            desk.ground.down = set()
        await clear(service)

    desk.ground.clear = answers_at_last  # type: ignore[method-assign]
    result = await desk.run()
    assert result["outcome"] == "passed", result["problems"]
    assert desk.ground.faults == {}


async def test_an_unmeasured_provider_stops_a_saturation_before_it_begins() -> None:
    def unknown() -> float:
        raise SourceUnavailable("Nobody waited for a provider lately.")

    desk = await a_drill_desk(provider_seconds=unknown)
    result = await desk.run("saturation")
    assert result["problems"] == ["Nobody waited for a provider lately."]
    assert desk.ground.overloads == {}


async def test_a_gate_that_does_not_open_leaves_the_service_on_the_monolith_and_says_how_to_go_on() -> None:
    desk = await a_drill_desk()
    desk.world.journeys_fail_on = {(CHAT, Backend.SERVICE)}
    result = await desk.run()
    assert desk.world.weights[CHAT] == Weights(0, 100)
    assert result["next_step"] == (
        f"{CHAT} stays on the monolith. To go on: .venv/bin/backstay cutover {CHAT} --to 100"
    )


async def test_a_held_plan_is_a_problem_and_the_service_is_put_back() -> None:
    desk = await a_drill_desk()
    desk.world.error_share = {(CHAT, Backend.MONOLITH): 0.05}  # not worse than the fault, and not good
    result = await desk.run()
    assert "The plan ended HELD." in result["problems"]
    assert desk.world.weights[CHAT] == Weights(100, 0)


async def test_a_runtime_that_is_gone_at_the_end_is_said_with_the_next_step() -> None:
    desk = await a_drill_desk()
    clear = desk.ground.clear

    async def clear_and_lose(service: str) -> None:
        await clear(service)
        desk.world.runtime_down = True

    desk.ground.clear = clear_and_lose  # type: ignore[method-assign]
    result = await desk.run()
    assert "It was not put back: the cluster API did not answer" in result["problems"]
    assert f"cutover {CHAT} --to 100" in result["next_step"]


async def test_a_failure_of_our_own_puts_everything_back_too() -> None:
    desk = await a_drill_desk()

    async def broken(token: str) -> tuple[str, ...]:
        raise KeyError("missing")

    desk.ground.missing_markers = broken  # type: ignore[method-assign]
    result = await desk.run()
    assert result["problems"] == ["Backstay itself failed: KeyError('missing')"]
    assert desk.world.weights[CHAT] == Weights(100, 0)
    assert desk.ground.faults == {}
    assert desk.exclusions.open_services == set()


async def test_closing_in_the_middle_takes_the_fault_away_and_ends_the_exclusions() -> None:
    desk = await a_drill_desk(blind=True)
    await desk.begin()
    for _ in range(20):
        await asyncio.sleep(0)
    assert desk.ground.faults == {CHAT: "errors"}
    await desk.drills.close()
    assert desk.ground.faults == {}
    assert desk.exclusions.open_services == set()
    assert desk.announced[-1] is None


async def test_after_a_crash_faults_extra_load_and_exclusions_of_drills_are_cleaned_up() -> None:
    desk = await a_drill_desk()
    desk.ground.faults = {CHAT: "errors", SEARCH: "crash"}
    desk.ground.overloads = {CHAT: 30.0}
    await desk.exclusions.begin(CHAT, moment(-60), f"drill errors on {CHAT}")
    await desk.exclusions.begin(SEARCH, moment(-60), "maintenance of the index")
    await desk.a_runner().clean_up()
    assert (desk.ground.faults, desk.ground.overloads) == ({}, {})
    assert desk.exclusions.open_services == {SEARCH}  # a person opened that one


async def test_cleaning_up_goes_on_where_a_part_does_not_answer() -> None:
    desk = await a_drill_desk()
    desk.ground.down = {"clear", "end_overload"}
    desk.exclusions.down = True
    await desk.drills.clean_up()
    assert {call for call in desk.ground.calls if call.startswith("clear")} == {f"clear {name}" for name in SERVICES}


# --- refusals


async def refusal(desk: DrillDesk, name: str = "errors") -> str:
    with pytest.raises(ActuationRefused) as refused:
        await desk.begin(name)
    assert desk.ground.calls == []
    assert desk.exclusions.kept == {}
    return str(refused.value)


async def test_a_second_drill_is_refused_while_one_runs() -> None:
    desk = await a_drill_desk()
    drill_id = await desk.begin()
    with pytest.raises(ActuationRefused, match="errors on ai-gateway-service"):
        await desk.begin("latency")
    await desk.result_of(drill_id)
    assert (await desk.run())["outcome"] == "passed"  # and then it may


async def test_of_two_drills_ordered_at_the_same_time_one_is_refused() -> None:
    desk = await a_drill_desk()
    answers = await asyncio.gather(desk.begin(), desk.begin("latency"), return_exceptions=True)
    assert sorted(type(answer).__name__ for answer in answers) == ["ActuationRefused", "str"]
    await desk.drills.close()


async def test_a_drill_that_cannot_be_audited_does_not_begin_and_blocks_no_other() -> None:
    desk = await a_drill_desk()
    desk.desk.audit.down = True
    assert "audit log is down" in await refusal(desk)
    desk.desk.audit.down = False
    assert (await desk.run())["outcome"] == "passed"


async def test_unknown_drills_and_services_are_refused() -> None:
    desk = await a_drill_desk()
    with pytest.raises(InvalidDefinition, match="There is no drill 'gremlins'"):
        await desk.begin("gremlins")
    with pytest.raises(InvalidDefinition, match="There is no service 'billing'"):
        await desk.begin("errors", "billing")


async def test_where_backstay_only_observes_a_drill_would_harm_for_nothing() -> None:
    assert "only observes here" in await refusal(await a_drill_desk(acts=False))
    assert "cooldown: 4 min ago" in await refusal(await a_drill_desk(spent="cooldown: 4 min ago"))


async def test_a_service_on_the_monolith_is_brought_back_first() -> None:
    desk = await a_drill_desk()
    on_the_monolith(desk.world)
    assert f"backstay cutover {CHAT} --to 100" in await refusal(desk)


async def test_while_a_plan_runs_no_drill_begins() -> None:
    desk = await a_drill_desk()
    plan = scale_plan(SEARCH, 3, desk.world.reading(), {}, PlanPolicy())
    await desk.sagas.begin(plan, by="ada", reason="r", automatic=False)
    assert "A plan is being carried out" in await refusal(desk)
    await desk.sagas.close()


async def test_before_the_first_look_no_drill_begins() -> None:
    desk = await a_drill_desk()
    desk.evidence = None
    assert "first look" in await refusal(desk)


@pytest.mark.parametrize(
    ("evidence", "why"),
    [
        (an_evidence(kill_switch="maintenance"), r"frozen \(maintenance\)"),
        (an_evidence(failing(SEARCH, breach_since=moment(-30))), "search-service: users are being hurt already"),
        (an_evidence(a_service(CHAT, requests_per_second=None)), "no measured traffic"),
        (an_evidence(a_service(CHAT, requests_per_second=0.2)), "no measured traffic"),
        (
            an_evidence(a_service(CHAT, slos=(a_reading(CHAT, Kind.LATENCY, verdict=Verdict.UNKNOWN),))),
            "is unknown, so Backstay would not act",
        ),
    ],
)
async def test_a_system_that_is_not_sound_is_not_broken_further(evidence: Evidence, why: str) -> None:
    desk = await a_drill_desk()
    desk.evidence = evidence
    with pytest.raises(ActuationRefused, match=why):
        await desk.begin()
    assert desk.ground.calls == []


async def test_capacity_that_no_load_test_has_proven_does_not_stop_a_drill() -> None:
    desk = await a_drill_desk()
    slos = (a_reading(CHAT), a_reading(CHAT, Kind.THROUGHPUT, verdict=Verdict.UNKNOWN))
    desk.evidence = an_evidence(a_service(CHAT, slos=slos))
    assert await desk.begin()
    await desk.drills.close()


async def test_a_runtime_that_is_down_starts_no_drill() -> None:
    desk = await a_drill_desk()
    desk.world.runtime_down = True
    with pytest.raises(SourceUnavailable):
        await desk.begin()


async def test_a_dry_run_tells_the_plan_and_does_nothing() -> None:
    desk = await a_drill_desk()
    answer = await desk.drills.begin("errors", None, reason="practice", by="ada", dry_run=True)
    assert answer["drill_id"] is None
    assert answer["service"] == CHAT
    assert len(answer["lines"]) == 4
    assert (desk.ground.calls, desk.desk.audit.records) == ([], [])


async def test_a_strange_id_has_no_progress() -> None:
    assert (await a_drill_desk()).drills.progress("nothing") is None


async def test_drills_run_again_and_again() -> None:
    desk = await a_drill_desk()
    for _ in range(3):
        assert (await desk.run())["outcome"] == "passed"
