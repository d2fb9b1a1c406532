"""A ticker over a suite in virtual time, with everything that it reads and writes in memory."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

from control_plane.actions.plans import PlanPolicy
from control_plane.adapters.slo_files import read_texts
from control_plane.decisions.terms import Policy
from control_plane.ports import DecisionRecord, Runtime
from control_plane.runners.metrics import Metrics
from control_plane.runners.sagas import SagaRunner
from control_plane.runners.telling import Teller
from control_plane.runners.tick import Ticker, TickStores
from control_plane.situation import Situation
from control_plane.slo import loading
from control_plane.slo.engine import SloEngine
from control_plane.slo.spec import Slo
from control_plane.slo.state import Kind
from tests.actions.suite_world import World, a_world
from tests.decisions.decision_builders import AUTO
from tests.runners.measured_suite import MeasuredSuite, Trouble
from tests.runners.memory_ports import (
    MemoryAlerts,
    MemoryChanges,
    MemoryDecisions,
    MemoryExclusions,
    MemoryFirstSeen,
    MemorySnapshots,
    MemorySwitches,
)
from tests.runners.saga_desk import Desk

TICK = 5.0
CONSOLE = "http://console"


@cache
def the_slos() -> tuple[Slo, ...]:
    """Of the objectives that the repository ships the errors of every service, and the latency of two."""
    catalogue = loading.load(read_texts([Path(__file__).parents[2] / "slos"]))
    latency = {f"{service}-latency" for service in ("ai-gateway-service", "search-service")}
    return tuple(slo for slo in catalogue.slos if slo.kind is Kind.ERRORS or slo.name in latency)


@dataclass
class TickDesk:
    """Everything that a test of ticks needs."""

    world: World = field(default_factory=a_world)
    policy: Policy = AUTO
    clock_offset: timedelta = timedelta(0)
    slos: tuple[Slo, ...] = field(default_factory=the_slos)
    situations: list[Situation] = field(default_factory=list)
    decisions: MemoryDecisions = field(default_factory=MemoryDecisions)
    changes: MemoryChanges = field(default_factory=MemoryChanges)
    exclusions: MemoryExclusions = field(default_factory=MemoryExclusions)
    first_seen: MemoryFirstSeen = field(default_factory=MemoryFirstSeen)
    switches: MemorySwitches = field(default_factory=MemorySwitches)
    snapshots: MemorySnapshots = field(default_factory=MemorySnapshots)
    alerts: MemoryAlerts = field(default_factory=MemoryAlerts)

    def __post_init__(self) -> None:
        self.suite = MeasuredSuite(self.world)
        self.desk = Desk(self.world)
        self.journal = self.desk.journal
        self.metrics = Metrics()
        self.sagas: SagaRunner = self.desk.runner()
        self.teller = Teller(self.alerts, timedelta(seconds=0.05))
        self.ticker = self.a_ticker()

    def a_ticker(self, **changes: Any) -> Ticker:
        """A new process over the same stores."""
        runtime: Runtime = self.desk.runtime
        parts: dict[str, Any] = {
            "engine": SloEngine(self.slos),
            "policy": self.policy,
            "plan_policy": PlanPolicy(),
            "events": self.suite,
            "runtime": runtime,
            "stores": TickStores(
                self.decisions,
                self.journal,
                self.changes,
                self.exclusions,
                self.first_seen,
                self.switches,
                self.snapshots,
            ),
            "sagas": self.sagas,
            "teller": self.teller,
            "metrics": self.metrics,
            "clock": self.clock,
            "monotonic": lambda: self.world.now,
            "period": timedelta(seconds=TICK),
            "console_url": CONSOLE,
            "publish": self.situations.append,
            "query_count": lambda: self.suite.queries,
        }
        return Ticker(**(parts | changes))

    def clock(self) -> datetime:
        return self.world.clock + self.clock_offset

    async def tick(self, times: int = 1, every: float = TICK) -> Situation:
        """Ticks, that many seconds of the world apart."""
        for _ in range(times):
            self.world.advance(every)
            situation = await self.ticker.once()
        return situation

    def trouble(self, service: str, share: float = 0.2, **changes: Any) -> None:
        """From now on that share of the service's requests fails."""
        self.suite.troubles.append(replace(Trouble(service, share, self.world.now), **changes))

    def heal(self) -> None:
        for trouble in self.suite.troubles:
            trouble.ended = min(trouble.ended, self.world.now)

    def records(self, service: str) -> list[DecisionRecord]:
        """What was stored about a service, oldest first."""
        return [record for record in self.decisions.records.values() if record.service == service]


async def a_warm_desk(**changes: Any) -> TickDesk:
    """A minute into a calm day, ready to act."""
    desk = TickDesk(**changes)
    await desk.sagas.start()
    await desk.tick(2, every=30.0)
    return desk
