"""A small world in virtual time: deployments that get ready, a gateway that counts, journeys. Behind the ports.

It checks on every write what must never happen, and can be told to fail, so that each test says only what it is about.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from control_plane.actions.capacity import Demand, load_on, replicas_for
from control_plane.errors import ActuationRefused, SourceUnavailable
from control_plane.ports import JourneyResult
from control_plane.topology import (
    MONOLITH,
    SERVICES,
    Backend,
    BackendTraffic,
    Deployment,
    RuntimeState,
    Weights,
    deployment_of,
)

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


@dataclass
class Running:
    """A deployment of the world."""

    desired: int
    ready: int
    slots: int = 16
    max_replicas: int = 6
    min_replicas: int = 0
    starts_in: float = 1.0  # seconds until a new replica is ready
    starting: list[float] = field(default_factory=list)
    can_start: bool = True


@dataclass
class Flow:
    """Counters of one backend of one service."""

    completed: float = 0.0
    server_errors: float = 0.0
    active: int = 1


@dataclass
class World:
    """The suite as its runtime shows it. `advance` moves the virtual time; `writes` is every write that took effect."""

    now: float = 0.0
    rate: float = 20.0  # requests/s of each service
    demand: dict[str, Demand] = field(default_factory=dict)
    deployments: dict[str, Running] = field(default_factory=dict)
    weights: dict[str, Weights] = field(default_factory=dict)
    flows: dict[tuple[str, Backend], Flow] = field(default_factory=dict)
    error_share: dict[tuple[str, Backend], float] = field(default_factory=dict)
    journeys_fail_on: set[tuple[str, Backend]] = field(default_factory=set)
    stuck_in_flight: dict[tuple[str, Backend], int] = field(default_factory=dict)
    deaf_to_weights: bool = False  # weights are accepted and never applied
    runtime_down: bool = False
    journeys_down: bool = False
    fence: int = 0
    writes: list[str] = field(default_factory=list)
    passed_journeys: set[tuple[str, Backend]] = field(default_factory=set)
    on_write: Callable[[World], None] = lambda world: None

    @property
    def clock(self) -> datetime:
        return NOON + timedelta(seconds=self.now)

    def advance(self, seconds: float) -> None:
        """Lets the world go on."""
        for service, weights in self.weights.items():
            for backend in Backend:
                flow = self.flows[service, backend]
                answered = self.rate * seconds * weights.of(backend) / 100
                healthy = self.deployments[deployment_of(service, backend)].ready > 0
                share = self.error_share.get((service, backend), 0.0) if healthy else 1.0
                flow.completed += answered
                flow.server_errors += answered * share
                flow.active = 1 if weights.of(backend) and healthy else self.stuck_in_flight.get((service, backend), 0)
        self.now += seconds
        for running in self.deployments.values():
            arrived = [at for at in running.starting if at <= self.now]
            running.starting = [at for at in running.starting if at > self.now]
            running.ready = min(running.desired, running.ready + len(arrived))

    def reading(self) -> RuntimeState:
        return RuntimeState(
            at=self.clock,
            deployments={
                name: Deployment(name, r.desired, r.ready, r.min_replicas, r.max_replicas, r.slots)
                for name, r in self.deployments.items()
            },
            weights=dict(self.weights),
            traffic={
                service: {
                    backend: BackendTraffic(
                        int(self.flows[service, backend].completed),
                        int(self.flows[service, backend].server_errors),
                        self.flows[service, backend].active,
                    )
                    for backend in Backend
                }
                for service in self.weights
            },
        )


def a_world(**changes: object) -> World:
    """All services on their microservices, two replicas each, a warm monolith with room for one of them."""
    world = World(
        demand={service: Demand(10.0) for service in SERVICES},
        deployments={
            **{service: Running(2, 2) for service in SERVICES},
            MONOLITH: Running(1, 1, slots=48),
        },
        weights={service: Weights(100, 0) for service in SERVICES},
        flows={(service, backend): Flow() for service in SERVICES for backend in Backend},
    )
    return replace(world, **changes)  # type: ignore[arg-type]


class WorldRuntime:
    """The Runtime port over a World. Refuses stale fences; fails a test on a write that would harm users."""

    def __init__(self, world: World) -> None:
        self.world = world

    async def state(self) -> RuntimeState:
        if self.world.runtime_down:
            raise SourceUnavailable("the cluster API did not answer")
        return self.world.reading()

    async def scale(self, deployment: str, replicas: int, *, fence: int, by: str) -> None:
        self._admit(fence)
        world, running = self.world, self.world.deployments[deployment]
        if replicas < running.desired:
            load = load_on(deployment, world.demand, world.weights)
            routed = any(
                weights.of(backend) > 0
                for service, weights in world.weights.items()
                for backend in Backend
                if deployment_of(service, backend) == deployment
            )
            needed = replicas_for(load, world.reading().deployments[deployment], 1.2) if routed else 0
            assert replicas >= needed, f"{deployment} shrinks to {replicas} and still gets requests for {needed}"
        if running.can_start:
            running.starting += [world.now + running.starts_in] * max(0, replicas - running.desired)
        running.desired, running.ready = replicas, min(running.ready, replicas)
        world.writes.append(f"scale {deployment} {replicas}")
        world.on_write(world)

    async def set_weights(self, service: str, weights: Weights, *, fence: int, by: str) -> None:
        self._admit(fence)
        world, before = self.world, self.world.weights[service]
        if weights != before:
            gaining = Backend.MONOLITH if weights.monolith > before.monolith else Backend.SERVICE
            name = deployment_of(service, gaining)
            after = {**world.weights, service: weights}
            reading = world.reading().deployments[name]
            needed = replicas_for(load_on(name, world.demand, after), reading, 1.2)
            assert reading.ready >= needed, f"{service} goes to {name}: {reading.ready} ready, {needed} needed"
        if not world.deaf_to_weights:
            world.weights[service] = weights
        world.writes.append(f"weights {service} {weights.service}/{weights.monolith}")
        world.on_write(world)

    def _admit(self, fence: int) -> None:
        if self.world.runtime_down:
            raise SourceUnavailable("the cluster API did not answer")
        if fence < self.world.fence:
            raise ActuationRefused(f"fence {fence} is older than {self.world.fence}")
        self.world.fence = fence


class WorldJourneys:
    """The Journeys port over a World; half a second for each run."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.runs: list[tuple[str, Backend | None, int]] = []

    async def run(self, service: str, backend: Backend | None, count: int, timeout: timedelta) -> JourneyResult:
        world = self.world
        if world.journeys_down:
            raise SourceUnavailable("the load API did not answer")
        self.runs.append((service, backend, count))
        world.advance(0.5)
        weights = world.weights[service]
        used = [backend] if backend else [each for each in Backend if weights.of(each) > 0]
        broken = [
            each
            for each in used
            if (service, each) in world.journeys_fail_on or world.deployments[deployment_of(service, each)].ready == 0
        ]
        if backend is None:
            for each in used:
                world.flows[service, each].completed += count / len(used)
        if broken:
            return JourneyResult(count, 0, ("the answer had the wrong body",))
        world.passed_journeys.update((service, each) for each in used)
        return JourneyResult(count, count, ())


def demand_of(world: World) -> Mapping[str, Demand]:
    """What a caller would have measured."""
    return dict(world.demand)
