"""A drill runner over a world in virtual time: real plans and decisions, and a ground that remembers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from control_plane.actions.drills import FailedRequest
from control_plane.actions.planning import rollback_plan, scale_plan
from control_plane.actions.plans import Plan, PlanPolicy
from control_plane.decisions.evidence import Drill, Evidence, ServiceEvidence
from control_plane.decisions.policy import Decision, decide
from control_plane.decisions.reasons import Action
from control_plane.runners.drills import DrillRunner
from control_plane.runners.memory import active_sagas
from control_plane.runners.sagas import SagaEvent, SagaRunner
from control_plane.topology import Weights
from tests.actions.suite_world import NOON, World, a_world, demand_of
from tests.decisions.decision_builders import AUTO, a_service, an_evidence, failing, overrun
from tests.runners.memory_ports import MemoryExclusions, MemoryGround
from tests.runners.saga_desk import Desk

CHAT = "ai-gateway-service"
CALLER = "streaming-service"
TICK = 5.0


def a_failure(after: float, **changes: Any) -> FailedRequest:
    """A request that the errors fault harmed, that many seconds after noon."""
    at = NOON + timedelta(seconds=after)
    return replace(FailedRequest(at, CHAT, "status", 500, "errors", f"r{after}", "POST /v1/chat"), **changes)


@dataclass
class DrillDesk:
    """Everything that a test of drills needs: while a drill waits time goes on, and the engine looks every 5 s."""

    world: World = field(default_factory=a_world)
    ground: MemoryGround = field(default_factory=MemoryGround)
    exclusions: MemoryExclusions = field(default_factory=MemoryExclusions)
    acts: bool = True  # whether the policy lets Backstay act
    spent: str | None = None  # the cooldown or budget that forbids it now
    blind: bool = False  # the engine sees nothing wrong, whatever is
    provider_seconds: Callable[[], float] = lambda: 2.0
    announced: list[Drill | None] = field(default_factory=list)
    decided: list[Decision] = field(default_factory=list)
    also_decided: Sequence[Decision] = ()  # shown to the drill in each tick
    at_tick: Callable[[], None] = lambda: None
    next_tick: float = TICK
    turns: int = 0

    def __post_init__(self) -> None:
        self.desk = Desk(self.world)
        self.evidence: Evidence | None = self.seen()
        self.sagas: SagaRunner = self.desk.runner(observer=self._saga_event)
        self.drills = self.a_runner()

    def a_runner(self) -> DrillRunner:
        """A new process on the same ground."""

        async def seconds_each(service: str) -> float:
            return self.provider_seconds()

        return DrillRunner(
            ground=self.ground,
            runtime=self.desk.runtime,
            sagas=self.sagas,
            exclusions=self.exclusions,
            audit=self.desk.audit,
            plan_policy=PlanPolicy(),
            clock=lambda: self.world.clock,
            evidence=lambda: self.evidence,
            demand=lambda: demand_of(self.world),
            callers=lambda service: frozenset({CALLER} if service == CHAT else ()),
            seconds_each=seconds_each,
            announce=self.announced.append,
            acts=lambda service, action: self.acts,
            spent=lambda service, action, evidence: self.spent,
            monotonic=lambda: self.world.now,
            pause=self._pause,
        )

    async def run(self, name: str = "errors", service: str | None = None) -> dict[str, Any]:
        """A drill from its order to its result."""
        drill_id = await self.begin(name, service)
        return await self.result_of(drill_id)

    async def begin(self, name: str = "errors", service: str | None = None, dry_run: bool = False) -> str:
        answer = await self.drills.begin(name, service, reason="practice", by="ada", dry_run=dry_run)
        drill_id: str = answer["drill_id"]
        return drill_id

    async def result_of(self, drill_id: str) -> dict[str, Any]:
        for _ in range(20_000):
            progress = self.drills.progress(drill_id)
            assert progress is not None
            if progress["finished"]:
                result: dict[str, Any] = progress["result"]
                return result
            await asyncio.sleep(0)
        raise AssertionError("the drill never ended")

    def timeline(self, drill_id: str) -> list[str]:
        progress = self.drills.progress(drill_id)
        assert progress is not None
        return [entry["event"] for entry in progress["timeline"]]

    @property
    def drilled(self) -> Drill | None:
        return self.announced[-1] if self.announced else None

    def seen(self) -> Evidence:
        """What the engine sees of the world now."""
        state = self.world.reading()
        mine = {"deployment": state.deployments[CHAT], "weights": state.weights[CHAT]}
        service: ServiceEvidence = a_service(CHAT, **mine)
        if CHAT in self.ground.faults and self.world.weights[CHAT].service and not self.blind:
            service = failing(CHAT, **mine, breach_since=self.world.clock)
        elif CHAT in self.ground.overloads and self.world.deployments[CHAT].ready == 2 and not self.blind:
            service = overrun(CHAT, **mine, breach_since=self.world.clock)
        running = active_sagas(self.sagas.running()) if hasattr(self, "sagas") else ()
        return an_evidence(service, at=self.world.clock, drill=self.drilled, active_sagas=running)

    async def tick(self) -> None:
        """One look of the engine: what it decides it begins."""
        self.next_tick = self.world.now + TICK
        self.evidence = self.seen()
        decisions = [*decide(self.evidence, AUTO, self.world.clock), *self.also_decided]
        self.drills.saw_tick(self.evidence, decisions, self.world.clock)
        self.at_tick()
        for decision in decisions:
            if decision.executes and decision.target == CHAT:
                self.decided.append(decision)
                plan = self._plan(decision)
                await self.sagas.begin(
                    plan, by="backstay", reason=decision.sentence, automatic=True, drill=decision.drill
                )

    def _plan(self, decision: Decision) -> Plan:
        state, demand = self.world.reading(), demand_of(self.world)
        if decision.action is Action.SCALE:
            assert decision.replicas is not None
            return scale_plan(decision.target, decision.replicas, state, demand, PlanPolicy())
        return rollback_plan(decision.target, state, demand, PlanPolicy())

    def _saga_event(self, event: SagaEvent) -> None:
        self.drills.saw_saga(event)

    async def _pause(self, event: asyncio.Event, seconds: float) -> None:
        await asyncio.sleep(0)
        self.turns += 1
        assert self.turns < 20_000, "the drill waits for ever"
        if event.is_set():
            return
        if not self.sagas.running():  # plans make time go on by themselves
            self.world.advance(min(1.0, seconds))
        if self.world.now >= self.next_tick:
            await self.tick()


async def a_drill_desk(**changes: Any) -> DrillDesk:
    desk = DrillDesk(**changes)
    await desk.sagas.start()
    return desk


def on_the_monolith(world: World) -> World:
    world.weights[CHAT] = Weights(0, 100)
    return world


def moment(after: float) -> datetime:
    return NOON + timedelta(seconds=after)
