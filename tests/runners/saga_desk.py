"""A saga runner over a world in virtual time, with a journal in memory; crashes can be planted at every boundary."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from control_plane.actions.journal import Entry, Saga, SagaState
from control_plane.actions.plans import Plan, plan_from_json, plan_json
from control_plane.actions.soundness import SampleCounts
from control_plane.errors import ActuationRefused, SourceUnavailable, StaleFence
from control_plane.ports import AuditRecord, Freeze, JourneyResult
from control_plane.runners.sagas import SagaEvent, SagaRunner
from control_plane.topology import Backend, Weights
from tests.actions.suite_world import NOON, World, WorldJourneys, WorldRuntime


class Crash(BaseException):
    """The process dies here."""


@dataclass
class Boundaries:
    """Counts the points at which a process may die, and dies at those that were chosen."""

    crash_at: frozenset[int] = frozenset()
    passed: int = 0

    def cross(self) -> None:
        self.passed += 1
        if self.passed in self.crash_at:
            raise Crash


@dataclass
class MemoryJournal:
    """The SagaJournal and Fences ports. What it holds survives the runner, as a disk does."""

    boundaries: Boundaries = field(default_factory=Boundaries)
    sagas: dict[str, Saga] = field(default_factory=dict)
    token: int = 0
    full: bool = False
    unreadable: bool = False

    async def take(self, holder: str) -> int:
        self.token += 1
        return self.token

    async def newest(self) -> int:
        return self.token

    async def begin(self, saga: Saga, *, fence: int) -> None:
        self._admit(fence)
        self.sagas[saga.id] = replace(saga, plan=plan_from_json(plan_json(saga.plan)))

    async def append(self, saga_id: str, position: int, entry: Entry, *, fence: int) -> None:
        self.boundaries.cross()
        self._admit(fence)
        saga = self.sagas[saga_id]
        assert position == len(saga.entries), "an entry was lost or written twice"
        assert saga.progress.ended is None, "a saga goes on after its end"
        self.sagas[saga_id] = saga.with_entry(entry)
        self.boundaries.cross()

    async def saga(self, saga_id: str) -> Saga | None:
        return self.sagas.get(saga_id)

    async def unfinished(self) -> Sequence[Saga]:
        return [saga for saga in self.sagas.values() if saga.progress.ended is None]

    async def recent(self, since: datetime, *, drills: bool | None = None) -> Sequence[Saga]:
        if self.unreadable:
            raise SourceUnavailable("the database could not be read")
        return [s for s in self.sagas.values() if s.began_at >= since and drills in (None, s.drill)]

    def _admit(self, fence: int) -> None:
        if self.full:
            raise ActuationRefused("Nothing was written: the disk is full.")
        if fence < self.token:
            raise StaleFence(f"token {fence} is stale")


@dataclass
class MemoryAudit:
    records: list[str] = field(default_factory=list)
    down: bool = False

    async def record(self, actor: str, action: str, target: str, detail: Mapping[str, Any]) -> AuditRecord:
        if self.down:
            raise ActuationRefused("the audit log is down")
        self.records.append(f"{action} {target}")
        return AuditRecord(len(self.records), NOON, actor, action, target, detail, "")

    async def latest(self, limit: int) -> Sequence[AuditRecord]:
        return []

    async def first_broken(self) -> int | None:
        return None


class CrashingRuntime(WorldRuntime):
    """Dies before or after an effect, where it was told to."""

    def __init__(self, world: World, boundaries: Boundaries) -> None:
        super().__init__(world)
        self._boundaries = boundaries

    async def scale(self, deployment: str, replicas: int, *, fence: int, by: str) -> None:
        self._boundaries.cross()
        await super().scale(deployment, replicas, fence=fence, by=by)
        self._boundaries.cross()

    async def set_weights(self, service: str, weights: Weights, *, fence: int, by: str) -> None:
        self._boundaries.cross()
        await super().set_weights(service, weights, fence=fence, by=by)
        self._boundaries.cross()


class CrashingJourneys(WorldJourneys):
    def __init__(self, world: World, boundaries: Boundaries) -> None:
        super().__init__(world)
        self._boundaries = boundaries

    async def run(self, service: str, backend: Backend | None, count: int, timeout: timedelta) -> JourneyResult:
        self._boundaries.cross()
        return await super().run(service, backend, count, timeout)


@dataclass
class Samples:
    """The ServiceSamples port: what users saw, as far as a test says."""

    total: int = 500
    bad: int = 0
    slow: int | None = 0
    down: bool = False
    asked: list[tuple[str, datetime]] = field(default_factory=list)

    async def since(self, service: str, since: datetime) -> SampleCounts:
        self.asked.append((service, since))
        if self.down:
            raise SourceUnavailable("Prometheus did not answer")
        return SampleCounts(self.total, self.bad, self.slow)


@dataclass
class Desk:
    """Everything a test of sagas needs, around one world."""

    world: World
    crash_at: frozenset[int] = frozenset()
    samples: Samples | None = None
    freeze: Freeze | None = None
    clock_offset: timedelta = timedelta(0)
    events: list[SagaEvent] = field(default_factory=list)
    audit: MemoryAudit = field(default_factory=MemoryAudit)
    at_pause: Callable[[SagaRunner], None] = lambda runner: None
    pauses: int = 0

    def __post_init__(self) -> None:
        self.boundaries = Boundaries(self.crash_at)
        self.journal = MemoryJournal(self.boundaries)
        self.journeys = CrashingJourneys(self.world, self.boundaries)
        self.runtime = CrashingRuntime(self.world, self.boundaries)

    def runner(self, observer: Callable[[SagaEvent], None] | None = None) -> SagaRunner:
        """A new process; `observer` hears of its events in place of `events`."""

        async def pause(event: asyncio.Event, seconds: float) -> None:
            await asyncio.sleep(0)
            self.pauses += 1
            assert self.pauses < 50_000, "the saga waits for ever"
            if not event.is_set():
                self.world.advance(seconds)
                self.at_pause(runner)

        async def frozen() -> Freeze | None:
            return self.freeze

        runner = SagaRunner(
            self.runtime,
            self.journeys,
            self.journal,
            self.journal,
            self.audit,
            clock=lambda: self.world.clock + self.clock_offset,
            monotonic=lambda: self.world.now,
            holder="test",
            samples=self.samples,
            frozen=frozen,
            observer=observer or self.events.append,
            pause=pause,
        )
        return runner

    async def carry_out(self, plan: Plan, **header: Any) -> Saga:
        """Runs the plan to its end, with a new process after each crash."""
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)  # planted crashes are no news
        runner = self.runner()
        await runner.start()
        saga_id = await runner.begin(plan, **{"by": "backstay", "reason": "test", "automatic": True, **header})
        return await self.to_the_end(runner, saga_id)

    async def to_the_end(self, runner: SagaRunner, saga_id: str) -> Saga:
        for _ in range(200):
            saga = await runner.wait(saga_id)
            if saga.progress.ended is not None:
                await runner.close()
                return self.journal.sagas[saga_id]
            runner = self.runner()
            await runner.start()
        raise AssertionError("the saga never ended")


def ended(saga: Saga) -> tuple[SagaState, str]:
    progress = saga.progress
    return progress.state, progress.outcome
