"""Carries out plans: looks at the world, asks the core what is next, writes it down, does it. Thin on purpose.

One token is taken at the start and goes with every write, so that a process that was given up for dead can do no harm
when it wakes. What was unfinished is taken up again before anything new begins.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, TypeVar

from control_plane.actions.conditions import sample_window
from control_plane.actions.effects import Effect, RunJourneys, SetReplicas, SetWeights
from control_plane.actions.journal import Entry, EntryKind, Saga, SagaState, step_in_hand
from control_plane.actions.observation import Observation
from control_plane.actions.plans import Plan
from control_plane.actions.saga import Finished, Perform, Record, Wait, next_move
from control_plane.actions.soundness import SampleCounts
from control_plane.clock import Clock, Monotonic
from control_plane.errors import ActuationRefused, BackstayError, SourceUnavailable, StaleFence
from control_plane.ports import AuditLog, Fences, Freeze, Journeys, Runtime, SagaJournal, ServiceSamples
from control_plane.topology import RuntimeState

log = logging.getLogger(__name__)

T = TypeVar("T")

POLL_SECONDS = 0.25
"""Between two looks at a world that tells nobody when it changes."""

EARLIER_SECONDS = 1.0
"""Age of the reading that shows whether a counter stands still."""

CALL_PATIENCE_SECONDS = 15.0
"""Longest wait for one answer of the runtime."""

JOURNAL_RETRY_SECONDS = 1.0
"""Between two attempts to write down what must be written before anything is done."""

CRASH_LIMIT = 5
"""Unexpected errors of one saga after which it is held for a person."""


class EventKind(StrEnum):
    """What happened to a saga."""

    BEGUN = "begun"
    RESUMED = "resumed"
    STEP_STARTED = "step_started"
    STEP_DONE = "step_done"
    RETREATING = "retreating"  # a condition was not met, or somebody stopped it
    WAITING = "waiting"  # the journal cannot be written: nothing is done until it can
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class SagaEvent:
    """Something that happened to a saga, for timelines and live views. `saga` is as it stands after that."""

    kind: EventKind
    at: datetime
    saga: Saga
    step: int | None = None
    step_kind: str = ""  # grow, await_ready, smoke_test, shift, watch, prove_moved, drain, verify, shrink
    name: str = ""
    detail: str = ""
    took: timedelta | None = None  # of the step, or of the whole saga


Pause = Callable[[asyncio.Event, float], Awaitable[None]]
"""Waits until the event is set, at most that many seconds."""


async def pause_until(event: asyncio.Event, seconds: float) -> None:
    """The Pause of a running system."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()


async def never_frozen() -> Freeze | None:
    """For places without a kill switch."""
    return None


def tell_nobody(_: SagaEvent) -> None:
    """For places where nobody watches."""


@dataclass
class _Run:
    """A saga in this process. Nothing here must survive it."""

    saga: Saga
    stop: str | None = None
    wake: asyncio.Event = field(default_factory=asyncio.Event)
    ended: asyncio.Event = field(default_factory=asyncio.Event)
    task: asyncio.Task[None] | None = None
    since: float = 0.0  # monotonic seconds at which the step in hand or the retreat began
    readings: deque[tuple[float, RuntimeState]] = field(default_factory=lambda: deque(maxlen=64))
    last_effect: Effect | None = None
    problem: str = ""
    crashes: int = 0

    def begin_step(self, now: float) -> None:
        self.since = now
        self.readings.clear()
        self.last_effect = None
        self.problem = ""


class SagaRunner:
    """Runs sagas side by side, as long as they do not touch the same things. Start it before anything else."""

    def __init__(
        self,
        runtime: Runtime,
        journeys: Journeys,
        journal: SagaJournal,
        fences: Fences,
        audit: AuditLog,
        *,
        clock: Clock,
        monotonic: Monotonic,
        holder: str,
        samples: ServiceSamples | None = None,
        frozen: Callable[[], Awaitable[Freeze | None]] = never_frozen,
        observer: Callable[[SagaEvent], None] = tell_nobody,
        pause: Pause = pause_until,
    ) -> None:
        self._runtime = runtime
        self._journeys = journeys
        self._journal = journal
        self._fences = fences
        self._audit = audit
        self._clock = clock
        self._monotonic = monotonic
        self._holder = holder
        self._samples = samples
        self._frozen = frozen
        self._observer = observer
        self._pause = pause
        self._fence: int | None = None
        self._runs: dict[str, _Run] = {}
        self.superseded: str | None = None
        """Why this process may act no more; None while it may."""

    async def start(self) -> None:
        """Takes the token, and goes on with what an earlier process left unfinished."""
        self._fence = await self._fences.take(self._holder)
        for saga in await self._journal.unfinished():
            run = _Run(saga, since=self._monotonic())
            self._runs[saga.id] = run
            self._spawn(run, resumed=True)

    async def begin(
        self,
        plan: Plan,
        *,
        by: str,
        reason: str,
        automatic: bool,
        drill: bool = False,
        decision_id: str | None = None,
    ) -> str:
        """Starts a saga and returns its id once that is durable.

        Raises ActuationRefused when another saga touches the same things or this process may not act.
        """
        fence = self._may_act()
        for other in self._runs.values():
            if plan.conflicts_with(other.saga.plan):
                raise ActuationRefused(
                    f"Another plan is being carried out: {other.saga.plan.title} (plan {other.saga.id}). "
                    "Wait for it, or stop it first."
                )
        saga = Saga(uuid.uuid4().hex, plan, by, reason, automatic, self._clock(), drill, decision_id)
        run = _Run(saga, since=self._monotonic())
        self._runs[saga.id] = run  # before the first await, so that two orders cannot both pass the check above
        try:
            await self._journal.begin(saga, fence=fence)
        except BaseException:
            del self._runs[saga.id]
            raise
        await self._tell_audit(by, f"begin {plan.kind.value}", plan.target, {"saga": saga.id, "plan": plan.hash})
        self._announce(run, EventKind.BEGUN, detail=reason)
        self._spawn(run, resumed=False)
        return saga.id

    async def wait(self, saga_id: str) -> Saga:
        """The saga once it has ended, or once this process stopped working on it. Raises KeyError for a strange id."""
        run = self._runs.get(saga_id)
        if run is None:
            saga = await self._journal.saga(saga_id)
            if saga is None:
                raise KeyError(saga_id)
            return saga
        await run.ended.wait()
        return run.saga

    async def saga(self, saga_id: str) -> Saga | None:
        """A saga as it stands, running or not; None when there never was one."""
        run = self._runs.get(saga_id)
        return run.saga if run is not None else await self._journal.saga(saga_id)

    def running(self) -> tuple[Saga, ...]:
        """Sagas that have not ended, oldest first."""
        return tuple(sorted((run.saga for run in self._runs.values()), key=lambda saga: saga.began_at))

    def moving(self) -> frozenset[str]:
        """Services whose traffic is on its way: whoever plans must leave room for all of it on the monolith."""
        return self._others(None)

    def stop(self, saga_id: str, reason: str) -> None:
        """Asks a saga to stop within the step in hand, with traffic on a healthy copy. No error when it has ended."""
        run = self._runs.get(saga_id)
        if run is not None and run.stop is None:
            run.stop = reason
            run.wake.set()

    def stop_all(self, reason: str) -> None:
        """Asks every saga to stop."""
        for saga_id in list(self._runs):
            self.stop(saga_id, reason)

    async def close(self) -> None:
        """Leaves everything where it is; the next start goes on from there."""
        tasks = [run.task for run in self._runs.values() if run.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _may_act(self) -> int:
        if self.superseded is not None:
            raise StaleFence(self.superseded)
        if self._fence is None:
            raise ActuationRefused("The saga runner was not started.")
        return self._fence

    def _spawn(self, run: _Run, *, resumed: bool) -> None:
        run.task = asyncio.create_task(self._carry_out(run, resumed=resumed), name=f"saga {run.saga.id}")

    async def _carry_out(self, run: _Run, *, resumed: bool) -> None:
        try:
            if resumed:
                await self._write(run, Entry(EntryKind.RESUMED, self._clock(), None, {"holder": self._holder}))
            while not await self._round(run):
                pass
        except StaleFence as error:
            self._give_way(str(error))
        finally:
            self._runs.pop(run.saga.id, None)
            run.ended.set()

    async def _round(self, run: _Run) -> bool:
        """Carries out what one look after another asks for; True when the saga has ended, False after a crash."""
        look: Observation | None = None
        try:
            while True:
                look = look or await self._look(run)
                match next_move(run.saga, look):
                    case Finished():
                        return True
                    case Record(entry):
                        # What was seen before the entry still counts after it, unless writing it took its time.
                        look = self._renewed(run, look, entry) if await self._write(run, entry) else None
                    case Perform(effect, step):
                        if effect == run.last_effect:
                            await self._rest(run)
                        run.last_effect = effect
                        await self._perform(run, effect, step)
                        look = None
                    case Wait():
                        await self._rest(run)
                        look = None
        except StaleFence:
            raise
        except Exception as error:
            run.crashes += 1
            log.exception("saga %s met an unexpected error (%d of %d)", run.saga.id, run.crashes, CRASH_LIMIT)
            if run.crashes >= CRASH_LIMIT:
                outcome = f"Backstay itself failed: {type(error).__name__}: {error}. The log has the details."
                ended = {"state": SagaState.HELD.value, "outcome": outcome}
                await self._write(run, Entry(EntryKind.ENDED, self._clock(), None, ended))
                return True
            await self._rest(run)
            return False

    async def _look(self, run: _Run) -> Observation:
        now = self._monotonic()
        runtime, problem = None, run.problem
        try:
            runtime = await _within(CALL_PATIENCE_SECONDS, self._runtime.state())
        except SourceUnavailable as error:
            problem = str(error)
        samples, samples_problem = await self._count(run)
        earlier = None
        if runtime is not None:
            old = [state for at, state in run.readings if now - at >= EARLIER_SECONDS]
            earlier = old[-1] if old else None
            run.readings.append((now, runtime))
        return Observation(
            at=self._clock(),
            elapsed=timedelta(seconds=self._monotonic() - run.since),
            runtime=runtime,
            problem=problem,
            earlier=earlier,
            samples=samples,
            samples_problem=samples_problem,
            stop=run.stop or await self._freeze_that_binds(run.saga),
            others=self._others(run),
        )

    async def _count(self, run: _Run) -> tuple[SampleCounts | None, str]:
        window = sample_window(run.saga, run.saga.progress)
        if self._samples is None or window is None:
            return None, ""
        try:
            return await _within(CALL_PATIENCE_SECONDS, self._samples.since(*window)), ""
        except SourceUnavailable as error:
            return None, str(error)

    async def _freeze_that_binds(self, saga: Saga) -> str | None:
        """Why the kill switch stops this saga; a person may still order something while it is on."""
        try:
            freeze = await self._frozen()
        except BackstayError as error:
            log.warning("the kill switch cannot be read: %s", error)
            return None
        if freeze is None or not (saga.automatic or freeze.at >= saga.began_at):
            return None
        return f"frozen by {freeze.by}: {freeze.reason}"

    async def _perform(self, run: _Run, effect: Effect, step: int | None) -> None:
        fence = self._may_act()
        try:
            match effect:
                case SetReplicas(deployment, replicas):
                    await self._tell_audit(run.saga.by, "set replicas", deployment, {"to": replicas, **_of(run)})
                    scaling = self._runtime.scale(deployment, replicas, fence=fence, by=run.saga.by)
                    await _within(CALL_PATIENCE_SECONDS, scaling)
                case SetWeights(service, weights):
                    to = {"service": weights.service, "monolith": weights.monolith}
                    await self._tell_audit(run.saga.by, "set weights", service, {"to": to, **_of(run)})
                    routing = self._runtime.set_weights(service, weights, fence=fence, by=run.saga.by)
                    await _within(CALL_PATIENCE_SECONDS, routing)
                case RunJourneys():
                    await self._test(run, effect, step)
            run.problem = ""
        except StaleFence:
            raise
        except ActuationRefused as error:
            if await self._is_stale():
                raise StaleFence(f"A newer process acts now: {error}") from error
            run.problem = str(error)
        except BackstayError as error:
            run.problem = str(error)

    async def _test(self, run: _Run, journeys: RunJourneys, step: int | None) -> None:
        """Runs journeys and writes down what they found; given up at once when the saga is to stop."""
        patience = journeys.patience.total_seconds() + CALL_PATIENCE_SECONDS
        running = asyncio.create_task(
            _within(patience, self._journeys.run(journeys.service, journeys.backend, journeys.count, journeys.patience))
        )
        stopped = asyncio.create_task(run.wake.wait())
        try:
            await asyncio.wait({running, stopped}, return_when=asyncio.FIRST_COMPLETED)
            if not running.done():
                return
            result = running.result()
        finally:
            for task in (running, stopped):
                task.cancel()
            await asyncio.gather(running, stopped, return_exceptions=True)
        found = {"sent": result.sent, "passed": result.passed, "failures": list(result.failures)}
        await self._write(run, Entry(EntryKind.TESTED, self._clock(), step, found))

    async def _write(self, run: _Run, entry: Entry) -> bool:
        """Makes an entry durable, however long that takes: without it nothing is done. False when it took retries."""
        fence = self._may_act()
        told = False
        while True:
            try:
                await self._journal.append(run.saga.id, len(run.saga.entries), entry, fence=fence)
                break
            except StaleFence:
                raise
            except ActuationRefused as error:
                if not told:
                    log.error("saga %s waits for its journal: %s", run.saga.id, error)
                    self._announce(run, EventKind.WAITING, detail=str(error))
                told = True
                await self._pause(asyncio.Event(), JOURNAL_RETRY_SECONDS)
        before = run.saga.progress
        run.saga = run.saga.with_entry(entry)
        after = run.saga.progress
        if before.current != after.current or (before.retreat is None) != (after.retreat is None):
            run.begin_step(self._monotonic())
        self._announce_entry(run, entry)
        return not told

    def _renewed(self, run: _Run, look: Observation, entry: Entry) -> Observation:
        if entry.kind not in (EntryKind.DONE, EntryKind.RETREAT):
            return look
        return replace(look, elapsed=timedelta(0), problem="", earlier=None, samples=None, samples_problem="")

    async def _rest(self, run: _Run) -> None:
        await self._pause(run.wake, POLL_SECONDS)
        run.wake.clear()

    def _others(self, run: _Run | None) -> frozenset[str]:
        return frozenset(
            service for other in self._runs.values() if other is not run for service in other.saga.plan.services
        )

    async def _is_stale(self) -> bool:
        with suppress(BackstayError):
            return await self._fences.newest() > self._may_act()
        return False

    def _give_way(self, reason: str) -> None:
        """Somebody else acts now and takes up what is unfinished: this process must write nothing more."""
        if self.superseded is None:
            log.error("this process acts no more: %s", reason)
        self.superseded = reason
        for run in self._runs.values():
            if run.task is not None and run.task is not asyncio.current_task():
                run.task.cancel()

    async def _tell_audit(self, actor: str, action: str, target: str, detail: dict[str, Any]) -> None:
        """Recorded before the effect; a log that is down never blocks a rollback, whose journal says the same."""
        try:
            await self._audit.record(actor, action, target, detail)
        except BackstayError as error:
            log.error("not in the audit log: %s %s by %s: %s", action, target, actor, error)

    def _announce_entry(self, run: _Run, entry: Entry) -> None:
        match entry.kind:
            case EntryKind.RESUMED:
                self._announce(run, EventKind.RESUMED)
            case EntryKind.STARTED:
                self._announce(run, EventKind.STEP_STARTED, entry.step)
            case EntryKind.DONE if entry.step is not None:
                began = run.saga.progress.started[entry.step].at
                detail = str(entry.data.get("detail", ""))
                self._announce(run, EventKind.STEP_DONE, entry.step, detail, entry.at - began)
            case EntryKind.RETREAT:
                in_hand = step_in_hand(run.saga)
                index = run.saga.plan.steps.index(in_hand) if in_hand is not None else None
                self._announce(run, EventKind.RETREATING, index, str(entry.data["reason"]))
            case EntryKind.ENDED:
                took = entry.at - run.saga.began_at
                self._announce(run, EventKind.ENDED, None, str(entry.data["outcome"]), took)
            case _:
                pass

    def _announce(
        self, run: _Run, kind: EventKind, step: int | None = None, detail: str = "", took: timedelta | None = None
    ) -> None:
        recorded = run.saga.entries[-1].at if run.saga.entries else run.saga.began_at
        at = self._clock() if kind is EventKind.WAITING else recorded
        planned = run.saga.plan.steps[step] if step is not None else None
        name, step_kind = (planned.name, planned.kind) if planned else (run.saga.plan.title, "")
        event = SagaEvent(kind, at, run.saga, step, step_kind, name, detail, took)
        try:
            self._observer(event)
        except Exception:
            log.exception("an observer failed on %s; the saga goes on", kind.value)


def _of(run: _Run) -> dict[str, str]:
    return {"saga": run.saga.id, "reason": run.saga.reason}


async def _within(seconds: float, call: Coroutine[Any, Any, T]) -> T:
    try:
        async with asyncio.timeout(seconds):
            return await call
    except TimeoutError as error:
        raise SourceUnavailable(f"no answer within {seconds:g} s") from error
