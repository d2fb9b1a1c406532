"""One evaluation after another: fetch, ledger, evaluate, decide, act, tell. Thin: each verb is somebody else's."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from control_plane.actions.capacity import Demand
from control_plane.actions.journal import Saga, step_in_hand
from control_plane.actions.planning import rollback_plan, scale_plan
from control_plane.actions.plans import Plan, PlanPolicy
from control_plane.clock import Clock, Monotonic
from control_plane.decisions import codec
from control_plane.decisions.evidence import Drill, Evidence
from control_plane.decisions.gathering import CALLS_REACH, Gatherer, Readings, request_rate, slots_reach
from control_plane.decisions.policy import Decision, decide
from control_plane.decisions.reasons import Action
from control_plane.decisions.saturation import SATURATION_SELECTORS
from control_plane.decisions.terms import Policy
from control_plane.errors import ActuationRefused, BackstayError, SourceUnavailable
from control_plane.ports import (
    Changes,
    DecisionRecord,
    DecisionStore,
    EventSource,
    Exclusions,
    FirstSeen,
    Freeze,
    Runtime,
    SagaJournal,
    Snapshots,
    Switches,
)
from control_plane.runners.memory import active_sagas, changes_by_service, recent_actions
from control_plane.runners.metrics import Metrics
from control_plane.runners.sagas import SagaRunner
from control_plane.runners.telling import Teller, alerts_for, held_rollbacks
from control_plane.situation import RunningPlan, Situation, SourceHealth
from control_plane.slo.engine import SloEngine
from control_plane.slo.events import Series
from control_plane.slo.exclusions import Exclusion
from control_plane.slo.state import SloState
from control_plane.topology import SERVICES, RuntimeState
from control_plane.tracing.call_attribution import CALL_SELECTORS

log = logging.getLogger(__name__)

REMEMBERED = timedelta(days=1)
"""How far back sagas and changes are read for cooldowns, action budgets and blame."""
SNAPSHOT_EVERY = timedelta(minutes=1)
LEDGER = "ledger"
Watcher = Callable[[Evidence, Sequence[Decision], datetime], None]
"""Is told what every tick saw and decided, before anything is done about it."""
BUDGET_WINDOW = timedelta(days=35)


@dataclass(frozen=True, slots=True)
class TickStores:
    """What a tick reads and writes of Backstay's own state."""

    decisions: DecisionStore
    sagas: SagaJournal
    changes: Changes
    exclusions: Exclusions
    first_seen: FirstSeen
    switches: Switches
    snapshots: Snapshots


@dataclass(slots=True)
class _Fetched:
    """What the outside world answered in one tick. None with a word in `problems` is "did not answer"."""

    events: Sequence[Series] | None
    calls: Sequence[Series] | None
    slots: Sequence[Series] | None
    runtime: RuntimeState | None
    problems: dict[str, str]


class Ticker:
    """The loop. `situation` and `evidence` are of the latest tick; None before the first."""

    def __init__(
        self,
        *,
        engine: SloEngine,
        policy: Policy,
        plan_policy: PlanPolicy,
        events: EventSource,
        runtime: Runtime,
        stores: TickStores,
        sagas: SagaRunner,
        teller: Teller,
        metrics: Metrics,
        clock: Clock,
        monotonic: Monotonic,
        period: timedelta,
        console_url: str,
        publish: Callable[[Situation], None],
        query_count: Callable[[], int],
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._plan_policy = plan_policy
        self._events = events
        self._runtime = runtime
        self._stores = stores
        self._sagas = sagas
        self._teller = teller
        self._metrics = metrics
        self._clock = clock
        self._monotonic = monotonic
        self._period = period.total_seconds()
        self._console_url = console_url
        self._publish = publish
        self._query_count = query_count
        self._gatherer = Gatherer(SERVICES, policy)
        self._essences: dict[str, tuple[Any, ...]] = {}
        self._snapshot_at: datetime | None = None
        self.drill: Drill | None = None
        self.watchers: list[Watcher] = []
        self.situation: Situation | None = None
        self.evidence: Evidence | None = None
        self.states: tuple[SloState, ...] = ()

    # --- the loop

    async def run(self) -> None:
        """Ticks for ever, by a clock that never jumps; a tick that is late skips the beats it missed."""
        await self._fill_gap()
        beat = self._monotonic()
        while True:
            self._metrics.tick_lag.set(max(0.0, self._monotonic() - beat))
            try:
                await self.once()
                self._metrics.ticks.labels("ok").inc()
            except Exception:  # the turn of the loop: one bad tick must not blind the next
                log.exception("a tick failed")
                self._metrics.ticks.labels("failed").inc()
            now = self._monotonic()
            beat += self._period * max(1, -(-(now - beat) // self._period))
            await asyncio.sleep(max(0.0, beat - self._monotonic()))

    async def _fill_gap(self) -> None:
        """Readings of the time that nobody watched. Without them the budget is young, and says so."""
        now = self._clock()
        try:
            for part in self._engine.backfill(now):
                series = await self._events.history(self._engine.selectors, part.start, part.end, part.step)
                self._engine.observe(series, part.end, part.step)
        except SourceUnavailable as error:
            log.warning("history could not be read, so budgets start young: %s", error)

    async def once(self) -> Situation:
        """One evaluation, from the first question to the last word."""
        began, queries = self._monotonic(), self._query_count()
        now = self._clock()
        fetched = await self._fetch(now)
        if fetched.events is None:
            self._engine.observe_failure(fetched.problems.get("Prometheus", "no answer"), now)
        else:
            self._engine.observe(fetched.events, now)
        self.states = self._engine.states(now, await self._exclusions(now))
        frozen = await self._frozen()
        recent = await self._recent_sagas(now)
        evidence = self._gatherer.gather(await self._readings(fetched, recent, frozen, now), now)
        decisions = decide(evidence, self._policy, now)
        self.evidence = evidence
        for watcher in self.watchers:
            watcher(evidence, decisions, now)
        await self._store(decisions, evidence)
        await self._act(decisions, fetched.runtime)
        alerts = alerts_for(evidence, decisions, held_rollbacks(recent or ()), self._console_url, now)
        await self._teller.tell(alerts, now)
        await self._keep(now)
        took = self._monotonic() - began
        situation = self._picture(fetched, frozen, timedelta(seconds=took), self._query_count() - queries)
        self._metrics.tick_seconds.observe(took)
        self._metrics.tick_at.set(now.timestamp())
        self._metrics.queries.inc(self._query_count() - queries)
        self._metrics.show_states(self.states)
        self.situation = situation
        self._publish(situation)
        return situation

    # --- fetch

    async def _fetch(self, now: datetime) -> _Fetched:
        problems: dict[str, str] = {}
        events, calls, slots, runtime = await asyncio.gather(
            self._events.samples(self._engine.selectors, self._engine.reach(now), now),
            self._events.samples(CALL_SELECTORS, CALLS_REACH, now),
            self._events.samples(SATURATION_SELECTORS, slots_reach(self._policy), now),
            self._runtime.state(),
            return_exceptions=True,
        )

        def had(answer: Any, source: str) -> Any:
            if isinstance(answer, SourceUnavailable):
                problems.setdefault(source, str(answer))
                self._metrics.source_errors.labels(source).inc()
                return None
            if isinstance(answer, BaseException):
                raise answer
            return answer

        return _Fetched(
            had(events, "Prometheus"),
            had(calls, "Prometheus"),
            had(slots, "Prometheus"),
            had(runtime, "runtime"),
            problems,
        )

    async def _exclusions(self, now: datetime) -> tuple[Exclusion, ...]:
        try:
            stored = await self._stores.exclusions.overlapping(now - BUDGET_WINDOW, now)
        except BackstayError as error:
            log.warning("exclusions cannot be read, so none is applied: %s", error)
            return ()
        return tuple(Exclusion(each.began_at, each.ended_at, each.reason, frozenset({each.service})) for each in stored)

    async def _frozen(self) -> Freeze | None:
        """A kill switch that cannot be read counts as on: what is missing denies."""
        try:
            return await self._stores.switches.frozen()
        except BackstayError as error:
            return Freeze(self._clock(), "backstay", f"the kill switch cannot be read ({error})")

    async def _recent_sagas(self, now: datetime) -> tuple[Saga, ...] | None:
        """None when the journal cannot be read: then nothing is done."""
        try:
            stored = await self._stores.sagas.recent(now - REMEMBERED)
        except BackstayError as error:
            log.warning("the journal cannot be read, so nothing will be decided: %s", error)
            return None
        return tuple(stored)

    async def _readings(
        self, fetched: _Fetched, recent: tuple[Saga, ...] | None, frozen: Freeze | None, now: datetime
    ) -> Readings:
        try:
            changes = await self._stores.changes.since(now - REMEMBERED)
        except BackstayError as error:
            log.warning("changes cannot be read: %s", error)
            changes = ()
        return Readings(
            states=self.states,
            calls=fetched.calls,
            slots=fetched.slots,
            runtime=fetched.runtime,
            changes=changes_by_service(changes, recent or ()),
            recent_actions=None if recent is None else recent_actions(recent),
            active_sagas=active_sagas(self._sagas.running()),
            kill_switch=frozen.reason if frozen else None,
            drill=self.drill,
            blind=tuple(f"{source}: {problem}" for source, problem in fetched.problems.items()),
        )

    # --- decide and act

    async def _store(self, decisions: Sequence[Decision], evidence: Evidence) -> None:
        """Writes down what differs from the tick before. Nothing is done on a decision that could not be stored."""
        news = [d for d in decisions if d.executes or self._essences.get(d.service) != d.essence]
        records = [self._record(decision, evidence, decisions) for decision in news]
        if not records:
            return
        await self._stores.decisions.add(records)
        for decision in news:
            self._essences[decision.service] = decision.essence
            self._metrics.count_decision(decision)
            log.info("%s %s: %s", decision.action.value, decision.service, decision.sentence)

    def _record(self, decision: Decision, evidence: Evidence, decisions: Sequence[Decision]) -> DecisionRecord:
        part = codec.evidence_for(decision, evidence, decisions)
        inputs = json.loads(codec.record_json(decision, part, self._policy))
        body = inputs.pop("decision")
        return DecisionRecord(
            id=decision.id,
            at=decision.at,
            service=decision.service,
            action=decision.action.value,
            target=decision.target,
            reason=decision.reason.value,
            sentence=decision.sentence,
            guards=[{"name": g.name, "passed": g.passed, "detail": g.detail} for g in decision.guards],
            evidence=inputs,
            body=body,
            drill=decision.drill,
            state="to be done" if decision.executes else "noted",
        )

    async def _act(self, decisions: Sequence[Decision], runtime: RuntimeState | None) -> None:
        for decision in decisions:
            if not decision.executes or runtime is None:
                continue
            try:
                plan = self.plan_for(decision, runtime)
                saga_id = await self._sagas.begin(
                    plan,
                    by="backstay",
                    reason=decision.sentence,
                    automatic=True,
                    drill=decision.drill,
                    decision_id=decision.id,
                )
            except BackstayError as error:
                log.error("decided but not begun: %s %s: %s", decision.action.value, decision.target, error)
                await self._stores.decisions.set_state(decision.id, f"refused: {error}")
            else:
                await self._stores.decisions.set_state(decision.id, "begun", saga_id)

    def plan_for(self, decision: Decision, runtime: RuntimeState) -> Plan:
        """The plan that carries a decision out."""
        demand = self.demand()
        if decision.action in (Action.ROLL_BACK, Action.FULL_ROLLBACK):
            moving = self._sagas.moving()
            return rollback_plan(decision.target, runtime, demand, self._plan_policy, also_moving=moving)
        if decision.action is Action.SCALE and decision.replicas is not None:
            return scale_plan(decision.target, decision.replicas, runtime, demand, self._plan_policy)
        raise ActuationRefused(f"There is no plan for {decision.action.value} without a number of replicas.")

    def demand(self) -> Mapping[str, Demand]:
        """What each service needs at the same time, as it was before any breach that goes on."""
        return self._gatherer.demand()

    def callers(self, service: str) -> frozenset[str]:
        """Services that depend on it, directly or through others, as far as calls were seen."""
        return self._gatherer.callers(service)

    # --- keep and tell

    async def _keep(self, now: datetime) -> None:
        """First-seen times and the ledger, so that a restart goes on where this process ends."""
        if self._snapshot_at is not None and now - self._snapshot_at < SNAPSHOT_EVERY:
            return
        seen = {state.name: state.first_seen for state in self.states if state.first_seen is not None}
        try:
            await self._stores.first_seen.note(seen)
            await self._stores.snapshots.save(LEDGER, now, self._engine.snapshot())
        except BackstayError as error:
            log.warning("the ledger was not saved; it can be rebuilt from Prometheus: %s", error)
            return
        self._snapshot_at = now

    def _picture(self, fetched: _Fetched, frozen: Freeze | None, took: timedelta, queries: int) -> Situation:
        rates = {
            service: rate
            for service in SERVICES
            if (rate := request_rate(s for s in self.states if s.service == service)) is not None
        }
        return Situation(
            at=self._clock(),
            states=self.states,
            runtime=fetched.runtime,
            plans=tuple(map(_running_plan, self._sagas.running())),
            sources=self._sources(fetched),
            request_rates=rates,
            drill=f"{self.drill.name} on {self.drill.service}" if self.drill else None,
            frozen=frozen.reason if frozen else None,
            automatic=self._policy.automatic,
            tick_took=took,
            queries=queries,
        )

    def _sources(self, fetched: _Fetched) -> tuple[SourceHealth, ...]:
        found = []
        for name in ("Prometheus", "runtime"):
            problem = fetched.problems.get(name)
            found.append(SourceHealth(name, problem is None, problem or "ok"))
        found.append(SourceHealth("Alertmanager", self._teller.problem is None, self._teller.problem or "ok"))
        if self._sagas.superseded is not None:
            found.append(SourceHealth("actions", False, self._sagas.superseded))
        return tuple(found)


def _running_plan(saga: Saga) -> RunningPlan:
    step = step_in_hand(saga)
    doing = step.sentence if step else "ending"
    return RunningPlan(saga.id, saga.plan.kind.value, saga.plan.target, doing, saga.began_at)
