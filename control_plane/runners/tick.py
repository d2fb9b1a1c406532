"""One evaluation after another: fetch, ledger, evaluate, decide, act, tell. Thin: each verb is somebody else's."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar

from control_plane.actions.capacity import Demand
from control_plane.actions.journal import Saga, progress_of, step_in_hand
from control_plane.actions.planning import rollback_plan, scale_plan
from control_plane.actions.plans import Plan, PlanPolicy
from control_plane.clock import Clock, Monotonic
from control_plane.decisions import codec
from control_plane.decisions.evidence import Drill, Evidence
from control_plane.decisions.gathering import (
    CALLS_REACH,
    Gatherer,
    Readings,
    capacity_estimate,
    request_rate,
    slots_reach,
)
from control_plane.decisions.policy import Decision, decide
from control_plane.decisions.reasons import Action
from control_plane.decisions.saturation import SATURATION_SELECTORS
from control_plane.decisions.terms import Policy
from control_plane.errors import ActuationRefused, BackstayError, SourceUnavailable
from control_plane.ports import (
    Change,
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
    TraceSource,
)
from control_plane.runners.memory import active_sagas, changes_by_service, recent_actions
from control_plane.runners.metrics import Metrics
from control_plane.runners.sagas import SagaRunner
from control_plane.runners.telling import Teller, alerts_for, held_rollbacks
from control_plane.situation import RunningPlan, Situation, SourceHealth
from control_plane.slo.engine import SloEngine
from control_plane.slo.events import Series
from control_plane.slo.exclusions import Exclusion
from control_plane.slo.state import SloState, Verdict
from control_plane.topology import SERVICES, RuntimeState
from control_plane.tracing.call_attribution import CALL_SELECTORS

log = logging.getLogger(__name__)

REMEMBERED = timedelta(days=1)
"""How far back sagas and changes are read at least; further where a cooldown or an action budget asks for it."""
TOLD_WITHIN = timedelta(minutes=10)
"""How long after a plan's end its decision is still told what became of it, also by a process that was just started."""
FETCH_SHARE = 0.7
"""Share of the time between two ticks after which a source that has not answered counts as down."""
SNAPSHOT_EVERY = timedelta(minutes=1)
LEDGER = "ledger"
Watcher = Callable[[Evidence, Sequence[Decision], datetime], None]
"""Is told what every tick saw and decided, before anything is done about it."""
BUDGET_WINDOW = timedelta(days=35)
DATABASE = "database"
NEEDED = ("Prometheus", "runtime")
"""Sources without which nothing is done; a person is told when one of them stays silent."""
T = TypeVar("T")


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
    problems: dict[str, str]  # by source


@dataclass(slots=True)
class _Stored:
    """What Backstay's own state said in one tick. What could not be read is what forbids most."""

    frozen: Freeze | None
    recent: tuple[Saga, ...] | None  # None: the journal cannot be read, so nothing may be done
    changes: Sequence[Change]
    exclusions: tuple[Exclusion, ...]
    problems: list[str] = field(default_factory=list)  # also of what is written later in the tick


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
        traces: TraceSource | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._engine = engine
        self._policy = policy
        self._plan_policy = plan_policy
        self._events = events
        self._runtime = runtime
        self._traces = traces  # None: nobody keeps traces; attribution from call metrics stands without them
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
        self._sleep = sleep
        limits = policy.limits.values()
        self._remembered = max([REMEMBERED, *(max(limit.cooldown, limit.per) for limit in limits)])
        self._gatherer = Gatherer(SERVICES, policy)
        self._essences: dict[str, tuple[Any, ...]] = {}
        self._snapshot_at: datetime | None = None
        self._watched = False  # whether the newest reading succeeded; False before the first
        self._silent: dict[str, datetime] = {}  # sources that do not answer, since when
        self._held: tuple[Saga, ...] = ()  # as last read, like the exclusions
        self._exclusions: tuple[Exclusion, ...] = ()
        self._told: set[str] = set()  # sagas whose end was written to their decision
        self.drill: Drill | None = None
        self.watchers: list[Watcher] = []
        self.situation: Situation | None = None
        self.evidence: Evidence | None = None
        self.states: tuple[SloState, ...] = ()

    # --- the loop

    async def run(self) -> None:
        """Ticks for ever, by a clock that never jumps; a tick that is late skips the beats it missed."""
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
            await self._sleep(max(0.0, beat - now))

    async def once(self) -> Situation:
        """One evaluation, from the first question to the last word."""
        began, queries = self._monotonic(), self._query_count()
        now = self._clock()
        running = self._sagas.running()  # before all that is read: a plan that ends meanwhile still counts as running
        fetched = await self._fetch(now)
        stored = await self._recall(now)
        await self._take_in(fetched, now)
        self.states = self._engine.states(now, stored.exclusions)
        evidence = self._gatherer.gather(self._readings(fetched, stored, running), now)
        decisions = decide(evidence, self._policy, now)
        self.evidence = evidence
        self._show(evidence, decisions, now)
        if await self._store(decisions, evidence, stored):
            await self._act(decisions, fetched.runtime, stored)
        await self._follow_up(stored, now)
        await self._tell(evidence, decisions, stored, now)
        await self._keep(stored, now)
        took, sent = self._monotonic() - began, self._query_count() - queries
        situation = self._picture(fetched, stored, timedelta(seconds=took), sent)
        self._metrics.tick_seconds.observe(took)
        self._metrics.tick_at.set(now.timestamp())
        self._metrics.queries.inc(sent)
        self._metrics.show_states(self.states)
        self.situation = situation
        self._publish(situation)
        return situation

    # --- fetch

    async def _fetch(self, now: datetime) -> _Fetched:
        problems: dict[str, str] = {}

        async def answer_of(source: str, asked: Awaitable[T]) -> T | None:
            patience = FETCH_SHARE * self._period
            try:
                async with asyncio.timeout(patience):
                    return await asked
            except BackstayError as error:
                problem = str(error)
            except TimeoutError:
                problem = f"no answer within {patience:g} s"
            problems.setdefault(source, problem)
            self._metrics.source_errors.labels(source).inc()
            return None

        events, calls, slots, runtime, _ = await asyncio.gather(
            answer_of("Prometheus", self._events.samples(self._engine.selectors, self._engine.reach(now), now)),
            answer_of("Prometheus", self._events.samples(CALL_SELECTORS, CALLS_REACH, now)),
            answer_of("Prometheus", self._events.samples(SATURATION_SELECTORS, slots_reach(self._policy), now)),
            answer_of("runtime", self._runtime.state()),
            answer_of("traces", self._traces.services()) if self._traces else _nothing(),
        )
        self._silent = {name: min(now, self._silent.get(name, now)) for name in NEEDED if name in problems}
        return _Fetched(events, calls, slots, runtime, problems)

    async def _take_in(self, fetched: _Fetched, now: datetime) -> None:
        """Counts what was read; before it the time that nobody watched, as soon as Prometheus answers again."""
        if fetched.events is None:
            self._engine.observe_failure(fetched.problems.get("Prometheus", "no answer"), now)
            self._watched = False
            return
        if not self._watched:
            await self._fill_gap(now)
        self._watched = True
        self._engine.observe(fetched.events, now)

    async def _fill_gap(self, now: datetime) -> None:
        """Readings of the time that nobody watched. Without them the budget is young, and says so."""
        try:
            for part in self._engine.backfill(now):
                series = await self._events.history(self._engine.selectors, part.start, part.end, part.step)
                self._engine.observe(series, part.end, part.step)
        except SourceUnavailable as error:
            log.warning("history could not be read, so budgets start young: %s", error)

    async def _recall(self, now: datetime) -> _Stored:
        """Reads Backstay's own state."""
        problems: list[str] = []

        async def read(what: str, asked: Awaitable[T]) -> T | None:
            try:
                return await asked
            except BackstayError as error:
                log.warning("%s cannot be read: %s", what, error)
                problems.append(f"{what} cannot be read: {error}")
                return None

        since, stores = now - self._remembered, self._stores
        frozen = await read("the kill switch", stores.switches.frozen())
        if problems:  # what is missing denies
            frozen = Freeze(now, "backstay", problems[0])
        recent = await read("the journal of actions", stores.sagas.recent(since))
        changes = await read("changes", stores.changes.since(since))
        kept = await read("exclusions", stores.exclusions.overlapping(now - BUDGET_WINDOW, now))
        if kept is not None:
            self._exclusions = tuple(
                Exclusion(each.began_at, each.ended_at, each.reason, frozenset({each.service})) for each in kept
            )
        return _Stored(
            frozen,
            None if recent is None else tuple(recent),
            changes or (),
            self._exclusions,
            problems,
        )

    def _readings(self, fetched: _Fetched, stored: _Stored, running: Sequence[Saga]) -> Readings:
        recent, frozen = stored.recent, stored.frozen
        return Readings(
            states=self.states,
            calls=fetched.calls,
            slots=fetched.slots,
            runtime=fetched.runtime,
            changes=changes_by_service(stored.changes, recent or ()),
            recent_actions=None if recent is None else recent_actions(recent),
            active_sagas=active_sagas(running),
            kill_switch=frozen.reason if frozen else None,
            drill=self.drill,
            blind=tuple(f"{name}: {fetched.problems[name]}" for name in NEEDED if name in fetched.problems),
        )

    def _show(self, evidence: Evidence, decisions: Sequence[Decision], now: datetime) -> None:
        for watcher in self.watchers:
            try:
                watcher(evidence, decisions, now)
            except Exception:  # who looks on must not stop a rollback
                log.exception("a watcher of ticks failed; the tick goes on")

    # --- decide and act

    async def _store(self, decisions: Sequence[Decision], evidence: Evidence, stored: _Stored) -> bool:
        """Writes down what differs from the tick before. False when it could not be: then nothing may be done on it."""
        news = [d for d in decisions if d.executes or self._essences.get(d.service) != d.essence]
        if not news:
            return True
        try:
            await self._stores.decisions.add([self._record(decision, evidence, decisions) for decision in news])
        except BackstayError as error:
            log.error("decisions were not stored, so none is carried out: %s", error)
            stored.problems.append(f"decisions cannot be stored, so none is carried out: {error}")
            return False
        for decision in news:
            self._essences[decision.service] = decision.essence
            self._metrics.count_decision(decision)
            log.info("%s %s: %s", decision.action.value, decision.service, decision.sentence)
        return True

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

    async def _act(self, decisions: Sequence[Decision], runtime: RuntimeState | None, stored: _Stored) -> None:
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
                await self._note_state(decision.id, f"refused: {error}", None, stored)
            else:
                await self._note_state(decision.id, "begun", saga_id, stored)

    async def _follow_up(self, stored: _Stored, now: datetime) -> None:
        """Decisions are told how their plans ended."""
        for saga in stored.recent or ():
            ended = progress_of(saga).ended
            if saga.decision_id is None or ended is None or saga.id in self._told or now - ended.at > TOLD_WITHIN:
                continue
            if await self._note_state(saga.decision_id, progress_of(saga).state.value.lower(), saga.id, stored):
                self._told.add(saga.id)

    async def _note_state(self, decision_id: str, state: str, saga_id: str | None, stored: _Stored) -> bool:
        """What became of a decision. The journal knows it too, so nothing waits for it."""
        try:
            await self._stores.decisions.set_state(decision_id, state, saga_id)
        except BackstayError as error:
            log.warning("decision %s is %s, but that was not stored: %s", decision_id, state, error)
            stored.problems.append(f"what became of a decision cannot be stored: {error}")
            return False
        return True

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

    async def _tell(self, evidence: Evidence, decisions: Sequence[Decision], stored: _Stored, now: datetime) -> None:
        if stored.recent is not None:
            self._held = held_rollbacks(stored.recent)
        alerts = alerts_for(evidence, decisions, self._held, self._console_url, now, self._silent)
        unknown = {state.name for state in self.states if state.verdict is Verdict.UNKNOWN}
        await self._teller.tell(alerts, now, unknown)

    async def _keep(self, stored: _Stored, now: datetime) -> None:
        """First-seen times and the ledger, so that a restart goes on where this process ends."""
        if self._snapshot_at is not None and timedelta(0) <= now - self._snapshot_at < SNAPSHOT_EVERY:
            return
        seen = {state.name: state.first_seen for state in self.states if state.first_seen is not None}
        try:
            await self._stores.first_seen.note(seen)
            await self._stores.snapshots.save(LEDGER, now, self._engine.snapshot())
        except BackstayError as error:
            log.warning("the ledger was not saved; it can be rebuilt from Prometheus: %s", error)
            stored.problems.append(f"the ledger cannot be saved: {error}")
            return
        self._snapshot_at = now

    def _picture(self, fetched: _Fetched, stored: _Stored, took: timedelta, queries: int) -> Situation:
        rates = {
            service: rate
            for service in SERVICES
            if (rate := request_rate(s for s in self.states if s.service == service)) is not None
        }
        estimates = {
            service.service: estimate
            for service in (self.evidence.services if self.evidence else ())
            if (estimate := capacity_estimate(service)) is not None
        }
        return Situation(
            at=self._clock(),
            states=self.states,
            runtime=fetched.runtime,
            plans=tuple(map(_running_plan, self._sagas.running())),
            sources=self._sources(fetched, stored),
            request_rates=rates,
            capacity_estimates=estimates,
            drill=f"{self.drill.name} on {self.drill.service}" if self.drill else None,
            frozen=stored.frozen.reason if stored.frozen else None,
            automatic=self._policy.automatic,
            tick_took=took,
            queries=queries,
        )

    def _sources(self, fetched: _Fetched, stored: _Stored) -> tuple[SourceHealth, ...]:
        found = []
        for name in (*NEEDED, "traces") if self._traces else NEEDED:
            problem = fetched.problems.get(name)
            found.append(SourceHealth(name, problem is None, problem or "ok"))
        found.append(SourceHealth("Alertmanager", self._teller.problem is None, self._teller.problem or "ok"))
        found.append(SourceHealth(DATABASE, not stored.problems, "; ".join(dict.fromkeys(stored.problems)) or "ok"))
        if self._sagas.superseded is not None:
            found.append(SourceHealth("actions", False, self._sagas.superseded))
        return tuple(found)


async def _nothing() -> None:
    """What a source that is not there answers."""


def _running_plan(saga: Saga) -> RunningPlan:
    step = step_in_hand(saga)
    doing = step.sentence if step else "ending"
    return RunningPlan(saga.id, saga.plan.kind.value, saga.plan.target, doing, saga.began_at)
