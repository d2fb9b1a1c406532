"""The local cluster: deployments, weights and faults of one machine, behind the same rules as a real one.

Writes carry a fencing token; one that is smaller than any seen before is refused. What is asked for is on disk before
it takes effect.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any

from control_plane.clock import Clock
from control_plane.errors import ActuationRefused, InvalidDefinition, SourceUnavailable
from control_plane.local import envoy
from control_plane.local.deployments import Phase, ReplicaSet, Surroundings
from control_plane.local.files import write_atomically
from control_plane.local.gateway import Gateway
from control_plane.local.layout import Layout
from control_plane.local.memory import Desired, recall, remember
from control_plane.local.scrape_targets import scrape_targets
from control_plane.local.specification import StackSpec
from control_plane.topology import MONOLITH, SERVICES, Backend, Weights, deployment_of

log = logging.getLogger(__name__)

REWRITE_SECONDS = 1.0


class Cluster:
    """Everything that runs of the suite, and how requests find it."""

    def __init__(self, layout: Layout, spec: StackSpec, gateway: Gateway, around: Surroundings, clock: Clock) -> None:
        """Reads what was remembered; starts nothing. Raises InvalidDefinition when the memory is damaged."""
        self._layout = layout
        self._gateway = gateway
        self._clock = clock
        self._desired: Desired = recall(layout.cluster_file, spec)
        self._writing = asyncio.Lock()  # one change at a time, so that disk, memory and Envoy agree
        self._faults: dict[str, dict[str, Any]] = {}
        self._fault_ends: dict[str, asyncio.TimerHandle] = {}
        self._fault_tasks: set[asyncio.Task[None]] = set()
        self._unwritten = False  # endpoint files could not be written: tried again
        self._targets = ""  # as last written
        self._rewriter: asyncio.Task[None] | None = None
        self._sets = {
            name: ReplicaSet(name, deployment, around, self._publish, self._endpoints_are_live)
            for name, deployment in spec.deployments.items()
        }

    @property
    def fence(self) -> int:
        return self._desired.fence

    @property
    def weights(self) -> Mapping[str, Weights]:
        return self._desired.weights

    @property
    def deployments(self) -> Mapping[str, ReplicaSet]:
        return self._sets

    @property
    def faults(self) -> Mapping[str, Mapping[str, Any]]:
        """Faults in force, by deployment."""
        return self._faults

    def write_files(self) -> None:
        """Routes and (empty) endpoints, which Envoy needs at its start. Raises OSError."""
        self._gateway.write_routes(self._desired.weights)
        for deployment in self._sets:
            self._write_endpoints(deployment)
        self._write_targets()

    def start(self) -> None:
        """Starts every desired replica, the monolith first: rollback needs it."""
        self._rewriter = asyncio.create_task(self._rewrite_what_failed(), name="rewrite endpoints")
        for name in sorted(self._sets, key=lambda name: name != MONOLITH):
            self._sets[name].scale(self._desired.replicas[name])

    async def stop(self) -> None:
        """Ends every replica; what is desired stays remembered."""
        for end in self._fault_ends.values():
            end.cancel()
        if self._rewriter is not None:
            self._rewriter.cancel()
            with suppress(asyncio.CancelledError):
                await self._rewriter
        await asyncio.gather(*(deployment.stop() for deployment in self._sets.values()))

    def ready(self) -> bool:
        """True when every deployment has all its desired replicas ready."""
        return all(len(s.in_phase(Phase.READY)) >= s.desired for s in self._sets.values())

    # --- what callers may change

    async def scale(self, deployment: str, replicas: int, *, fence: int, by: str) -> None:
        """Sets desired replicas. Raises ActuationRefused for a stale fence, or when requests would find nobody."""
        replica_set = self._known(deployment)
        limit = replica_set.spec.max
        if not 0 <= replicas <= limit:
            raise InvalidDefinition(f"{deployment} can have 0 to {limit} replicas, not {replicas}")
        async with self._writing:
            self._check_fence(fence)
            if replicas == 0 and (asked := self._asked_of(deployment)):
                raise ActuationRefused(
                    f"{deployment} still gets requests ({', '.join(asked)}): move the weights away before its last "
                    "replica goes"
                )
            counts = {**self._desired.replicas, deployment: replicas}
            await self._remember(replace(self._desired, replicas=counts, fence=fence))
            log.info("%s: %d replicas, by %s (fence %d)", deployment, replicas, by, fence)
            replica_set.scale(replicas)

    async def set_weights(self, service: str, weights: Weights, *, fence: int, by: str) -> None:
        """Routes by new weights; returns when Envoy confirmed them.

        Raises ActuationRefused for a stale fence, or when a backend that would get more requests has no ready replica.
        """
        if service not in SERVICES:
            raise InvalidDefinition(f"there is no service {service!r}: choose one of {', '.join(SERVICES)}")
        async with self._writing:
            self._check_fence(fence)
            await self._refuse_nobody(service, weights)
            table = {**self._desired.weights, service: weights}
            await self._remember(replace(self._desired, weights=table, fence=fence))
            log.info("%s: weights %s, by %s (fence %d)", service, weights, by, fence)
            try:
                self._gateway.write_routes(table)
            except OSError as error:
                raise SourceUnavailable(f"the route files cannot be written: {error}") from error
            await self._gateway.routes_are_live()

    async def set_fault(self, deployment: str, fault: Mapping[str, Any], limit: timedelta) -> None:
        """Puts a fault on every replica, now and later, until the limit. ActuationRefused while one is active."""
        replica_set = self._known(deployment)
        if deployment in self._faults:
            kind = self._faults[deployment]["kind"]
            raise ActuationRefused(f"{deployment} already has the fault {kind!r}: clear it first")
        until = self._clock() + limit
        full = {**fault, "until": until.timestamp()}
        self._faults[deployment] = full
        self._fault_ends[deployment] = asyncio.get_running_loop().call_later(
            limit.total_seconds(), self._end_fault, deployment
        )
        log.warning("%s: fault %s until %s", deployment, full, until.isoformat())
        await replica_set.set_fault(full)

    async def clear_fault(self, deployment: str) -> None:
        """Takes a fault away. No error when there is none."""
        replica_set = self._known(deployment)
        if end := self._fault_ends.pop(deployment, None):
            end.cancel()
        if self._faults.pop(deployment, None) is not None:
            log.warning("%s: fault cleared", deployment)
            await replica_set.set_fault(None)

    # --- guards

    def _known(self, deployment: str) -> ReplicaSet:
        try:
            return self._sets[deployment]
        except KeyError:
            raise InvalidDefinition(
                f"there is no deployment {deployment!r}: choose one of {', '.join(self._sets)}"
            ) from None

    def _check_fence(self, fence: int) -> None:
        if fence < self._desired.fence:
            raise ActuationRefused(
                f"fence {fence} is stale: {self._desired.fence} has written since, so another actor is in charge"
            )

    def _asked_of(self, deployment: str) -> list[str]:
        return [
            f"{weights.of(backend)} % of {service}"
            for service, weights in self._desired.weights.items()
            for backend in Backend
            if deployment_of(service, backend) == deployment and weights.of(backend) > 0
        ]

    async def _refuse_nobody(self, service: str, weights: Weights) -> None:
        before = self._desired.weights[service]
        for backend in Backend:
            deployment = deployment_of(service, backend)
            if weights.of(backend) <= before.of(backend):
                continue
            if not self._sets[deployment].in_phase(Phase.READY):
                raise ActuationRefused(f"{deployment} has no ready replica: no requests of {service} may move to it")
            if not await self._gateway.finds_healthy(envoy.cluster_name(service, backend)):
                raise ActuationRefused(f"the gateway finds no replica of {deployment} healthy: {service} stays")

    # --- effects

    async def _remember(self, desired: Desired) -> None:
        await asyncio.to_thread(remember, self._layout.cluster_file, desired)  # the disk may take its time
        self._desired = desired

    def _end_fault(self, deployment: str) -> None:
        task = asyncio.create_task(self.clear_fault(deployment), name=f"fault of {deployment} ends")
        self._fault_tasks.add(task)
        task.add_done_callback(self._fault_tasks.discard)

    def _publish(self, deployment: str) -> None:
        """A replica changed: tells Envoy and Prometheus. A full disk is tried again, and stops no replica's life."""
        try:
            self._write_endpoints(deployment)
            self._write_targets()
        except OSError as error:
            log.error("the endpoints of %s cannot be written: %s", deployment, error)
            self._unwritten = True

    def _write_endpoints(self, deployment: str) -> None:
        ports = [replica.port for replica in self._sets[deployment].in_phase(Phase.READY)]
        for cluster in _clusters_of(deployment):
            self._gateway.write_endpoints(cluster, ports)

    def _write_targets(self) -> None:
        replicas = [
            (deployment, replica.id, replica.port)
            for deployment, replica_set in self._sets.items()
            for replica in replica_set.replicas
            if replica.ever_ready  # before that there is nothing to read; after it, silence is evidence
        ]
        targets = scrape_targets(replicas)
        if targets != self._targets:
            write_atomically(self._layout.replica_targets_file, targets)
            self._targets = targets

    async def _rewrite_what_failed(self) -> None:
        while True:
            await asyncio.sleep(REWRITE_SECONDS)
            if self._unwritten:
                self._unwritten = False
                for deployment in self._sets:
                    self._publish(deployment)

    async def _endpoints_are_live(self, deployment: str) -> None:
        await self._gateway.endpoints_are_live(_clusters_of(deployment))


def _clusters_of(deployment: str) -> list[str]:
    return [
        envoy.cluster_name(service, backend)
        for service, backend in envoy.CLUSTERS
        if deployment_of(service, backend) == deployment
    ]
