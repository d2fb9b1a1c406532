"""One tick after another over a suite in virtual time: what is seen, decided, written down, done and told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from control_plane.actions.journal import SagaState
from control_plane.actions.plans import PlanKind, PlanPolicy
from control_plane.actions.steps import Grow
from control_plane.decisions.evidence import Drill, Evidence
from control_plane.decisions.policy import Decision, decide
from control_plane.decisions.reasons import Action
from control_plane.errors import ActuationRefused
from control_plane.ports import Change, Exclusion, Freeze
from control_plane.runners.orders import Orders
from control_plane.slo.engine import SloEngine
from control_plane.slo.state import Verdict
from control_plane.topology import MONOLITH, SERVICES, Backend, Weights
from tests.decisions.decision_builders import OBSERVING
from tests.runners.tick_desk import TickDesk, a_warm_desk

CHAT = "ai-gateway-service"
SEARCH = "search-service"


@pytest.fixture
async def desk() -> AsyncIterator[TickDesk]:
    """A minute into a calm day."""
    desk = await a_warm_desk()
    yield desk
    await desk.sagas.close()


def verdicts(desk: TickDesk) -> set[Verdict]:
    return {state.verdict for state in desk.ticker.states}


def source(desk: TickDesk, name: str) -> tuple[bool, str]:
    found = next(s for s in desk.situations[-1].sources if s.name == name)
    return found.ok, found.detail


async def ended(desk: TickDesk) -> list[SagaState]:
    """The ends of all plans so far."""
    return [(await desk.sagas.wait(saga_id)).progress.state for saga_id in list(desk.journal.sagas)]


# --- calm and trouble


async def test_a_calm_tick_shows_everything_known_and_does_nothing(desk: TickDesk) -> None:
    situation = desk.situations[-1]
    assert verdicts(desk) == {Verdict.OK}
    assert all(source.ok for source in situation.sources)
    assert situation.request_rates == pytest.approx(dict.fromkeys(SERVICES, 20.0))
    assert situation.runtime is not None
    assert (situation.automatic, situation.frozen, situation.drill, situation.plans) == (True, None, None, ())
    assert desk.journal.sagas == {}
    assert desk.alerts.posts == []


async def test_a_tick_asks_prometheus_three_times_however_many_objectives_there_are(desk: TickDesk) -> None:
    before = desk.suite.queries
    situation = await desk.tick()
    assert desk.suite.queries - before == situation.queries == 3
    assert all(at == desk.world.clock for _, _, at in desk.suite.asked[-3:])


async def test_failing_requests_become_a_stored_decision_a_rollback_and_a_page(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    await desk.tick(2)
    (saga,) = desk.journal.sagas.values()
    assert (saga.plan.kind, saga.plan.target, saga.by, saga.automatic) == (
        PlanKind.ROLLBACK,
        CHAT,
        "backstay",
        True,
    )
    decided = next(record for record in desk.records(CHAT) if record.action == "roll_back")
    assert (saga.decision_id, saga.reason) == (decided.id, decided.sentence)
    assert (decided.state, decided.saga_id) == ("begun", saga.id)
    assert desk.alerts.firing == {"AiGatewayErrors"}
    assert await ended(desk) == [SagaState.DONE]
    assert desk.world.weights[CHAT] == Weights(0, 100)


async def test_a_decision_is_told_what_became_of_its_plan(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    await desk.tick(2)
    await ended(desk)
    desk.heal()
    await desk.tick()
    decided = next(record for record in desk.records(CHAT) if record.action == "roll_back")
    assert decided.state == "done"
    assert decided.saga_id in desk.journal.sagas


async def test_a_plan_counts_on_the_demand_of_before_the_breach(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    desk.suite.busy[CHAT] = 28.0  # what fails also holds its slots longer
    await desk.tick()
    desk.suite.busy[CHAT] = 30.0
    await desk.tick(3)
    assert desk.ticker.demand()[CHAT].requests < 12.0
    saga = next(iter(desk.journal.sagas.values()))
    assert saga.plan.demand[CHAT].requests < 12.0


async def test_full_slots_without_a_change_become_a_scale_out(desk: TickDesk) -> None:
    desk.suite.busy[SEARCH] = 40.0
    await desk.tick()
    (saga,) = desk.journal.sagas.values()
    assert (saga.plan.kind, saga.plan.target) == (PlanKind.SCALE, SEARCH)
    grow = saga.plan.steps[0]
    assert isinstance(grow, Grow)
    assert grow.replicas > 2


async def test_where_the_policy_only_observes_a_decision_is_stored_and_not_carried_out() -> None:
    desk = await a_warm_desk(policy=OBSERVING)
    desk.trouble(CHAT)
    situation = await desk.tick(2)
    decided = next(record for record in desk.records(CHAT) if record.action == "roll_back")
    assert decided.state == "noted"
    assert desk.journal.sagas == {}
    assert not situation.automatic
    told = desk.alerts.posts[0][0].annotations["description"]
    assert "would roll ai-gateway-service back to librechat-monolith" in told


async def test_an_action_of_a_drill_carries_its_mark_and_uses_up_no_cooldown(desk: TickDesk) -> None:
    desk.ticker.drill = Drill("errors", CHAT)
    desk.trouble(CHAT)
    situation = await desk.tick(2)
    assert situation.drill == f"errors on {CHAT}"
    decided = next(record for record in desk.records(CHAT) if record.action == "roll_back")
    (saga,) = desk.journal.sagas.values()
    assert (decided.drill, saga.drill) == (True, True)
    await ended(desk)
    desk.heal()
    desk.ticker.drill = None
    desk.world.weights[CHAT] = Weights(100, 0)
    desk.world.deployments[CHAT].desired = desk.world.deployments[CHAT].ready = 2
    await desk.tick(2, every=40.0)
    desk.trouble(CHAT)
    await desk.tick(2)
    again = [s for s in desk.journal.sagas.values() if s.plan.kind is PlanKind.ROLLBACK and not s.drill]
    assert len(again) == 1


async def test_a_second_rollback_within_the_cooldown_is_held(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    await desk.tick(2)
    await ended(desk)
    desk.heal()
    desk.world.weights[CHAT] = Weights(100, 0)
    await desk.tick(2, every=40.0)
    desk.trouble(CHAT)
    await desk.tick(2)
    assert len([s for s in desk.journal.sagas.values() if s.plan.kind is PlanKind.ROLLBACK]) == 1
    assert desk.records(CHAT)[-1].reason == "cooldown"


async def test_the_memory_reaches_as_far_back_as_the_longest_limit() -> None:
    asked: list[datetime] = []
    desk = TickDesk()
    week = {move: replace(limit, per=timedelta(days=7)) for move, limit in desk.policy.limits.items()}
    ticker = desk.a_ticker(policy=replace(desk.policy, limits=week))
    recent = desk.journal.recent

    async def remember(since: datetime, *, drills: bool | None = None) -> Any:
        asked.append(since)
        return await recent(since, drills=drills)

    desk.journal.recent = remember  # type: ignore[method-assign]
    await ticker.once()
    assert asked == [desk.world.clock - timedelta(days=7)]


# --- sources that are down


async def test_with_prometheus_down_everything_is_unknown_and_nothing_is_done(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    desk.suite.down = True
    situation = await desk.tick(2)
    assert verdicts(desk) == {Verdict.UNKNOWN}
    assert source(desk, "Prometheus") == (False, "Prometheus did not answer")
    assert situation.request_rates == {}
    assert desk.journal.sagas == {}
    assert {desk.records(service)[-1].action for service in SERVICES} == {"hold"}
    assert desk.records(CHAT)[-1].reason == "unknown"
    assert b'backstay_source_errors_total{source="Prometheus"}' in desk.metrics.text()


async def test_a_person_is_told_after_a_minute_of_blindness_and_again_when_it_is_over(desk: TickDesk) -> None:
    desk.suite.down = True
    await desk.tick(12)
    assert desk.alerts.firing == set()
    await desk.tick(2)
    assert desk.alerts.firing == {"BackstayBlind"}
    desk.suite.down = False
    await desk.tick()
    assert desk.alerts.firing == set()


async def test_prometheus_that_answers_again_is_believed_again(desk: TickDesk) -> None:
    desk.suite.down = True
    await desk.tick(2)
    desk.suite.down = False
    await desk.tick()
    assert verdicts(desk) == {Verdict.OK}
    assert source(desk, "Prometheus") == (True, "ok")


async def test_with_samples_that_end_nothing_is_done_on_the_old_ones(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    desk.suite.mute_since = desk.world.now + 4.0
    await desk.tick(6)
    assert Verdict.OK not in verdicts(desk)
    assert desk.journal.sagas == {}
    assert desk.records(CHAT)[-1].reason in ("unknown", "evidence_stale")


async def test_a_page_about_a_breach_is_not_over_because_prometheus_is_down(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    await desk.tick(2)
    desk.suite.down = True
    await desk.tick(2)
    assert "AiGatewayErrors" in desk.alerts.firing
    evidence = desk.ticker.evidence
    assert evidence is not None
    assert next(s for s in evidence.services if s.service == CHAT).breach_since is not None


async def test_with_the_runtime_down_nothing_is_done_and_it_says_so(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    desk.world.runtime_down = True
    situation = await desk.tick(2)
    assert situation.runtime is None
    assert source(desk, "runtime") == (False, "the cluster API did not answer")
    assert desk.journal.sagas == {}
    assert desk.records(CHAT)[-1].reason == "runtime_unknown"
    assert verdicts(desk) != {Verdict.UNKNOWN}  # users are still seen


async def test_a_runtime_that_is_gone_for_a_minute_pages(desk: TickDesk) -> None:
    desk.world.runtime_down = True
    await desk.tick(14)
    assert desk.alerts.firing == {"BackstayBlind"}
    assert "runtime" in desk.alerts.posts[-1][0].annotations["summary"]


async def test_sources_that_hang_are_given_up_before_the_next_tick_is_due() -> None:
    desk = TickDesk()
    desk.suite.hangs = True
    ticker = desk.a_ticker(period=timedelta(seconds=0.2))
    async with asyncio.timeout(5.0):
        situation = await ticker.once()
    assert {s.name: s.ok for s in situation.sources}["Prometheus"] is False
    assert "no answer within" in source(desk, "Prometheus")[1]


async def test_an_alertmanager_that_is_down_does_not_stop_a_rollback_and_is_told_later(desk: TickDesk) -> None:
    desk.alerts.down = True
    desk.trouble(CHAT)
    await desk.tick(2)
    assert len(desk.journal.sagas) == 1
    assert source(desk, "Alertmanager") == (False, "Alertmanager did not answer")
    desk.alerts.down = False
    await desk.tick()
    assert desk.alerts.firing == {"AiGatewayErrors"}


# --- Backstay's own state


async def test_a_decision_is_stored_before_its_plan_begins(desk: TickDesk) -> None:
    order: list[str] = []
    add, begin = desk.decisions.add, desk.journal.begin

    async def adding(records: Any) -> None:
        order.extend(f"stored {r.action}" for r in records if r.action != "hold")
        await add(records)

    async def beginning(saga: Any, *, fence: int) -> None:
        order.append(f"begun {saga.plan.kind.value}")
        await begin(saga, fence=fence)

    desk.decisions.add = adding  # type: ignore[method-assign, assignment]
    desk.journal.begin = beginning  # type: ignore[method-assign]
    desk.trouble(CHAT)
    await desk.tick(2)
    assert order == ["stored roll_back", "begun rollback"]


async def test_what_cannot_be_stored_is_not_done_and_the_tick_goes_on_and_says_so(desk: TickDesk) -> None:
    desk.decisions.full = True
    desk.trouble(CHAT)
    situation = await desk.tick(2)
    assert desk.journal.sagas == {}
    ok, detail = source(desk, "database")
    assert not ok
    assert "none is carried out: Nothing was written: the disk is full." in detail
    assert situation.at == desk.world.clock  # the picture is new
    assert desk.alerts.firing == {"AiGatewayErrors"}  # and people are told
    desk.decisions.full = False
    await desk.tick()
    assert len(desk.journal.sagas) == 1
    assert source(desk, "database") == (True, "ok")


async def test_a_state_that_cannot_be_stored_stops_no_rollback(desk: TickDesk) -> None:
    desk.decisions.refuses_states = True
    desk.trouble(CHAT)
    await desk.tick(2)
    assert await ended(desk) == [SagaState.DONE]


async def test_a_journal_that_cannot_be_written_is_told_and_tried_again(desk: TickDesk) -> None:
    desk.journal.full = True
    desk.trouble(CHAT)
    await desk.tick(2)
    assert desk.journal.sagas == {}
    refused = [record.state for record in desk.records(CHAT) if record.action == "roll_back"]
    assert all("refused: Nothing was written" in state for state in refused)
    desk.journal.full = False
    await desk.tick()
    assert len(desk.journal.sagas) == 1


async def test_with_an_unreadable_journal_nothing_is_done(desk: TickDesk) -> None:
    desk.journal.unreadable = True
    desk.trouble(CHAT)
    await desk.tick(2)
    assert desk.journal.sagas == {}
    assert desk.records(CHAT)[-1].reason == "limit_missing"
    assert "the journal of actions cannot be read" in source(desk, "database")[1]


async def test_a_kill_switch_that_cannot_be_read_counts_as_on(desk: TickDesk) -> None:
    desk.switches.down = True
    desk.trouble(CHAT)
    situation = await desk.tick(2)
    assert desk.journal.sagas == {}
    assert desk.records(CHAT)[-1].reason == "kill_switch"
    assert situation.frozen is not None
    assert "cannot be read" in situation.frozen


async def test_the_kill_switch_is_obeyed_in_the_next_tick(desk: TickDesk) -> None:
    await desk.switches.freeze(reason="maintenance", by="ada", at=desk.world.clock)
    desk.trouble(CHAT)
    situation = await desk.tick(2)
    assert desk.journal.sagas == {}
    assert situation.frozen == "maintenance"
    await desk.switches.thaw()
    await desk.tick()
    assert len(desk.journal.sagas) == 1


@pytest.mark.parametrize("store", ["changes", "exclusions"])
async def test_without_changes_or_exclusions_a_tick_goes_on(desk: TickDesk, store: str) -> None:
    getattr(desk, store).down = True
    desk.trouble(CHAT)
    await desk.tick(2)
    assert len(desk.journal.sagas) == 1
    assert store in source(desk, "database")[1]


async def test_a_breach_after_a_deploy_is_blamed_on_it(desk: TickDesk) -> None:
    desk.changes.changes.append(Change(desk.world.clock, CHAT, "deploy", "v1.4.2", "ci"))
    desk.trouble(CHAT)
    await desk.tick(2)
    decided = next(record for record in desk.records(CHAT) if record.action == "roll_back")
    assert decided.reason == "regression_after_change"
    assert "v1.4.2" in decided.sentence


async def test_an_exclusion_leaves_its_service_out_of_the_budget_and_no_other(desk: TickDesk) -> None:
    desk.exclusions.kept["x"] = Exclusion("x", CHAT, desk.world.clock, None, f"drill errors on {CHAT}")
    await desk.switches.freeze(reason="only looking", by="test", at=desk.world.clock)
    desk.trouble(CHAT)
    desk.trouble(SEARCH)
    await desk.tick(4)
    states = {state.name: state for state in desk.ticker.states}
    chat, search = states[f"{CHAT}-errors"], states[f"{SEARCH}-errors"]
    assert chat.sli is not None
    assert chat.sli_without_exclusions is not None
    assert search.sli is not None
    assert chat.sli.estimate == 1.0
    assert chat.sli_without_exclusions.estimate < 0.99
    assert search.sli.estimate < 0.99


async def test_exclusions_that_cannot_be_read_are_those_of_before(desk: TickDesk) -> None:
    desk.exclusions.kept["x"] = Exclusion("x", CHAT, desk.world.clock, None, f"drill errors on {CHAT}")
    await desk.switches.freeze(reason="only looking", by="test", at=desk.world.clock)
    await desk.tick()
    desk.exclusions.down = True
    desk.trouble(CHAT)
    await desk.tick(2)
    state = next(state for state in desk.ticker.states if state.name == f"{CHAT}-errors")
    assert state.sli is not None
    assert state.sli.estimate == 1.0


async def test_a_held_plan_pages_also_while_the_journal_cannot_be_read(desk: TickDesk) -> None:
    desk.world.journeys_fail_on = {(CHAT, Backend.SERVICE), (CHAT, Backend.MONOLITH)}
    desk.trouble(CHAT)
    await desk.tick(2)
    desk.sagas.stop_all("a person wants to look")
    assert await ended(desk) == [SagaState.HELD]
    await desk.tick()
    assert "RollbackHeld" in desk.alerts.firing
    desk.journal.unreadable = True
    await desk.tick(2)
    assert "RollbackHeld" in desk.alerts.firing


async def test_a_plan_that_ends_during_a_tick_counts_as_running_in_it(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    await desk.tick(2)
    frozen = desk.switches.frozen

    async def frozen_after_the_plan() -> Freeze | None:
        await ended(desk)
        return await frozen()

    desk.switches.frozen = frozen_after_the_plan  # type: ignore[method-assign]
    desk.sagas.stop_all("a person wants to look")
    seen: list[tuple[object, ...]] = []
    desk.ticker.watchers.append(lambda evidence, decisions, now: seen.append(evidence.active_sagas))
    await desk.tick()
    assert len(seen[0]) == 1
    assert len(desk.journal.sagas) == 1


async def test_decisions_are_stored_again_only_when_something_of_them_changed(desk: TickDesk) -> None:
    before = len(desk.decisions.records)
    await desk.tick(5)
    assert len(desk.decisions.records) == before
    desk.world.runtime_down = True
    await desk.tick(3)
    assert len(desk.decisions.records) == before + len(SERVICES)


async def test_a_new_process_goes_on_with_the_ledger_and_the_cooldowns_of_the_old_one(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    await desk.tick(2)
    await ended(desk)
    desk.heal()
    desk.world.weights[CHAT] = Weights(100, 0)
    await desk.tick(2, every=40.0)
    _, ledger = desk.snapshots.kept["ledger"]
    desk.ticker = desk.a_ticker(engine=SloEngine.restore(desk.slos, ledger))
    situation = await desk.tick()
    assert min(s.first_seen for s in situation.states if s.first_seen) < desk.world.clock - timedelta(seconds=120)
    desk.trouble(CHAT)
    await desk.tick(2)
    assert desk.records(CHAT)[-1].reason == "cooldown"


async def test_the_ledger_is_kept_once_a_minute_and_a_full_disk_loses_nothing(desk: TickDesk) -> None:
    saves = desk.snapshots.saves
    await desk.tick(12)
    assert desk.snapshots.saves == saves + 1
    desk.snapshots.full = True
    await desk.tick(12)
    assert "the ledger cannot be saved" in source(desk, "database")[1]
    assert verdicts(desk) == {Verdict.OK}
    assert set(desk.first_seen.seen) == {slo.name for slo in desk.slos}


async def test_history_is_read_before_the_first_reading_and_once_only(desk: TickDesk) -> None:
    assert desk.suite.history_asked
    earliest = min(start for start, _ in desk.suite.history_asked)
    assert desk.world.clock - earliest > timedelta(days=34)
    asked = len(desk.suite.history_asked)
    await desk.tick(3)
    assert len(desk.suite.history_asked) == asked


async def test_a_gap_is_filled_when_prometheus_answers_again_not_while_it_is_down() -> None:
    desk = TickDesk()
    desk.suite.down = True
    await desk.tick()
    assert desk.suite.history_asked == []
    desk.suite.down = False
    await desk.tick()
    assert desk.suite.history_asked != []
    asked = len(desk.suite.history_asked)
    desk.suite.down = True
    await desk.tick(2, every=1800.0)
    desk.suite.down = False
    await desk.tick()
    start, _ = desk.suite.history_asked[asked]
    assert timedelta(minutes=60) < desk.world.clock - start < timedelta(minutes=62)


async def test_every_stored_decision_replays_to_the_same_bytes(desk: TickDesk) -> None:
    desk.trouble(CHAT)
    desk.suite.busy[SEARCH] = 40.0
    await desk.tick(2)
    await ended(desk)
    desk.world.runtime_down = True
    desk.ticker.drill = Drill("errors", SEARCH)
    await desk.tick()
    orders = orders_of(desk)
    assert {record.action for record in desk.decisions.records.values()} == {"hold", "roll_back", "scale"}
    for record in desk.decisions.records.values():
        answer = await orders.replay(record.id)
        assert answer is not None
        assert answer["identical"], record.sentence
        assert answer["replayed"] == answer["stored"]


def orders_of(desk: TickDesk) -> Orders:
    never: Any = None  # what replaying does not ask
    return Orders(
        runtime=never,
        sagas=never,
        demand=never,
        drills=never,
        decisions=desk.decisions,
        changes=never,
        switches=never,
        audit=never,
        accounts=never,
        plan_policy=PlanPolicy(),
        clock=never,
    )


# --- decisions to plans


def a_decision(desk: TickDesk, action: Action, target: str, replicas: int | None = None) -> Decision:
    """Of the latest evidence, with another action."""
    evidence = desk.ticker.evidence
    assert evidence is not None
    decision = decide(evidence, desk.policy, desk.world.clock)[0]
    return replace(decision, action=action, target=target, replicas=replicas)


async def test_a_full_rollback_becomes_a_plan_for_every_service(desk: TickDesk) -> None:
    plan = desk.ticker.plan_for(a_decision(desk, Action.FULL_ROLLBACK, "all"), desk.world.reading())
    assert plan.kind is PlanKind.ROLLBACK
    assert set(plan.services) == set(SERVICES)


async def test_more_replicas_become_a_scale_plan_with_just_that_number(desk: TickDesk) -> None:
    plan = desk.ticker.plan_for(a_decision(desk, Action.SCALE, MONOLITH, 3), desk.world.reading())
    assert (plan.kind, plan.target, plan.services) == (PlanKind.SCALE, MONOLITH, ())
    assert [step.replicas for step in plan.steps if isinstance(step, Grow)] == [3]


async def test_a_scale_without_a_number_is_refused(desk: TickDesk) -> None:
    with pytest.raises(ActuationRefused, match="without a number"):
        desk.ticker.plan_for(a_decision(desk, Action.SCALE, SEARCH), desk.world.reading())


async def test_a_rollback_leaves_room_for_what_another_plan_is_moving(desk: TickDesk) -> None:
    for deployment in SERVICES:
        desk.suite.busy[deployment] = 20.0
    await desk.tick(6, every=60.0)
    alone = desk.ticker.plan_for(a_decision(desk, Action.ROLL_BACK, SEARCH), desk.world.reading())
    await desk.sagas.begin(alone, by="backstay", reason="test", automatic=True)
    other = desk.ticker.plan_for(a_decision(desk, Action.ROLL_BACK, CHAT), desk.world.reading())
    grows = [next(s.replicas for s in plan.steps if isinstance(s, Grow)) for plan in (alone, other)]
    assert grows[1] > grows[0]


# --- the loop


class Beats:
    """Runs a ticker's loop in virtual time for a number of ticks, and keeps when each began."""

    def __init__(self, desk: TickDesk, ticks: int) -> None:
        self.desk = desk
        self.ticks = ticks
        self.began: list[float] = []
        self.takes: dict[int, float] = {}  # seconds that a tick takes, by its number; the others take none
        self.fails: set[int] = set()
        self.clock_jumps: dict[int, timedelta] = {}
        self._slept = True

    async def run(self) -> list[float]:
        """Begins of the ticks, in seconds after the first."""
        ticker = self.desk.a_ticker(sleep=self._sleep, clock=self._clock)
        ticker.watchers.append(self._watch)
        self.ticker = ticker
        with pytest.raises(asyncio.CancelledError):
            await ticker.run()
        return [at - self.began[0] for at in self.began]

    def _clock(self) -> datetime:
        if self._slept:
            self._slept = False
            self.began.append(self.desk.world.now)
            self.desk.clock_offset += self.clock_jumps.get(len(self.began), timedelta(0))
            if len(self.began) in self.fails:
                raise RuntimeError("planted")
        return self.desk.clock()

    def _watch(self, *_: object) -> None:
        self.desk.world.now += self.takes.get(len(self.began), 0.0)

    async def _sleep(self, seconds: float) -> None:
        if len(self.began) >= self.ticks:
            raise asyncio.CancelledError
        self._slept = True
        self.desk.world.now += seconds


async def test_ticks_begin_a_period_apart_however_long_each_takes() -> None:
    beats = Beats(TickDesk(), 4)
    beats.takes = {1: 0.3, 2: 4.9, 3: 1.0}
    assert await beats.run() == [0, 5, 10, 15]


async def test_beats_that_a_slow_tick_missed_are_skipped_and_never_made_up_for() -> None:
    beats = Beats(TickDesk(), 4)
    beats.takes = {2: 12.0}
    assert await beats.run() == [0, 5, 20, 25]


async def test_a_tick_that_fails_is_logged_and_counted_and_the_next_is_on_time(
    caplog: pytest.LogCaptureFixture,
) -> None:
    desk = TickDesk()
    beats = Beats(desk, 3)
    beats.fails = {2}
    assert await beats.run() == [0, 5, 10]
    assert "a tick failed" in caplog.text
    assert b'backstay_ticks_total{outcome="failed"} 1.0' in desk.metrics.text()
    assert b'backstay_ticks_total{outcome="ok"} 2.0' in desk.metrics.text()


async def test_with_prometheus_down_the_next_tick_is_on_time() -> None:
    desk = TickDesk()
    desk.suite.down = desk.world.runtime_down = True
    assert await Beats(desk, 3).run() == [0, 5, 10]


@pytest.mark.parametrize("jump", [timedelta(hours=1), -timedelta(hours=1)])
async def test_a_clock_that_jumps_by_an_hour_moves_no_beat(jump: timedelta) -> None:
    beats = Beats(TickDesk(), 5)
    beats.clock_jumps = {3: jump}
    assert await beats.run() == [0, 5, 10, 15, 20]


@pytest.mark.parametrize("jump", [timedelta(hours=1), -timedelta(hours=1)])
async def test_a_clock_that_jumps_away_from_the_samples_causes_no_action(desk: TickDesk, jump: timedelta) -> None:
    desk.trouble(CHAT)
    desk.clock_offset = jump
    await desk.tick(3)
    assert desk.journal.sagas == {}
    desk.clock_offset = timedelta(0)
    await desk.tick(2)
    assert len(desk.journal.sagas) == 1


async def test_a_watcher_that_fails_stops_no_rollback(desk: TickDesk, caplog: pytest.LogCaptureFixture) -> None:
    def broken(*_: object) -> None:
        raise ValueError("planted")

    desk.ticker.watchers.append(broken)
    desk.trouble(CHAT)
    await desk.tick(2)
    assert len(desk.journal.sagas) == 1
    assert "a watcher of ticks failed" in caplog.text


async def test_watchers_see_what_was_decided_before_it_is_done(desk: TickDesk) -> None:
    seen: list[tuple[bool, int]] = []

    def watch(evidence: Evidence, decisions: Sequence[Decision], now: datetime) -> None:
        assert evidence.at <= now
        seen.append((any(d.executes for d in decisions), len(desk.journal.sagas)))

    desk.ticker.watchers.append(watch)
    desk.trouble(CHAT)
    await desk.tick()
    assert seen == [(True, 0)]
    assert len(desk.journal.sagas) == 1
