"""Replicas of one deployment: as many as desired, each started, watched, started again, drained and stopped.

A replica is an endpoint of the gateway exactly while it is READY. Removal loses nothing: the replica is DRAINING, the
gateway confirms that it sends it nothing new, the replica is told (long streams then reconnect, elsewhere), its
requests in flight end, and only then is it stopped.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

import aiohttp

from control_plane.clock import Clock, monotonic
from control_plane.errors import SourceUnavailable
from control_plane.local.back_off import BackOff
from control_plane.local.layout import LOOPBACK
from control_plane.local.ports import PortPool
from control_plane.local.processes import Command, Process, spawn
from control_plane.local.readiness import answers
from control_plane.local.specification import DeploymentSpec

log = logging.getLogger(__name__)

STARTS_AT_A_TIME = 2  # imports burn a core each; more at once would slow those that serve
START_POLL_SECONDS = 0.1
WATCH_POLL_SECONDS = 1.0
UNREADY_AFTER_FAILURES = 3  # of the watch, in a row
STUCK_SECONDS = 60.0  # alive and not ready this long: it is started again
DRAIN_POLL_SECONDS = 0.1
QUIET_LOOKS = 2  # in a row without requests in flight: one alone could fall between two requests on their way


class Phase(StrEnum):
    """Where a replica is in its life."""

    STARTING = "starting"  # alive, not (or no longer) ready
    READY = "ready"
    DRAINING = "draining"  # finishes what it has, gets nothing new
    BACKOFF = "backoff"  # ended by itself, waits to be started again


@dataclass(slots=True)
class Replica:
    """One replica, across the runs of its process."""

    id: str
    port: int
    phase: Phase
    phase_since: datetime
    restarts: int = 0
    ever_ready: bool = False
    process: Process | None = None
    started_at: datetime | None = None  # of the current or latest run
    task: asyncio.Task[None] | None = None

    @property
    def pid(self) -> int | None:
        return self.process.pid if self.process is not None and self.process.running else None


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What replicas of every deployment share."""

    http: aiohttp.ClientSession
    ports: PortPool
    starts: asyncio.Semaphore  # limits how many start at a time
    clock: Clock
    logs_dir: Path
    command: Callable[[str, DeploymentSpec, str, int], Command]  # deployment, its spec, replica id, port
    drain_seconds: float = 60.0  # longest wait for requests in flight of a replica that goes
    stop_seconds: float = 10.0  # from SIGTERM to SIGKILL


class ReplicaSet:
    """Keeps one deployment at its desired replicas."""

    def __init__(
        self,
        name: str,
        spec: DeploymentSpec,
        around: Surroundings,
        endpoints_changed: Callable[[str], None],
        endpoints_are_live: Callable[[str], Awaitable[None]],
    ) -> None:
        """`endpoints_changed` is called on each change of a phase; `endpoints_are_live` waits for the gateway."""
        self.name = name
        self.spec = spec
        self.desired = 0
        self.restarts = 0  # of all replicas, since the stack started
        self.fault: Mapping[str, Any] | None = None
        self._around = around
        self._endpoints_changed = endpoints_changed
        self._endpoints_are_live = endpoints_are_live
        self._replicas: dict[str, Replica] = {}  # oldest first
        self._going: set[asyncio.Task[None]] = set()
        self._started = 0
        self._fault_gone = asyncio.Event()

    @property
    def replicas(self) -> tuple[Replica, ...]:
        return tuple(self._replicas.values())

    def in_phase(self, phase: Phase) -> tuple[Replica, ...]:
        return tuple(replica for replica in self._replicas.values() if replica.phase is phase)

    def scale(self, desired: int) -> None:
        """Starts what is missing and lets go of what is too much: the not yet ready first, then the youngest."""
        self.desired = desired
        staying = [replica for replica in self._replicas.values() if replica.phase is not Phase.DRAINING]
        for _ in range(desired - len(staying)):
            self._add()
        surplus = len(staying) - desired
        if surplus > 0:
            youngest_first = list(reversed(staying))
            unready_first = sorted(youngest_first, key=lambda replica: replica.phase is Phase.READY)
            for replica in unready_first[:surplus]:
                self._let_go(replica)

    async def set_fault(self, fault: Mapping[str, Any] | None) -> None:
        """Tells every replica, now and at each start. Taking it away also ends the waits that a crash caused."""
        self.fault = fault
        if fault is None:
            self._fault_gone.set()
            self._fault_gone = asyncio.Event()
        await asyncio.gather(
            *(replica.process.tell({"fault": fault}) for replica in self.replicas if replica.process is not None)
        )

    async def stop(self) -> None:
        """Ends every replica without draining: the whole stack goes."""
        self.desired = 0
        tasks = [replica.task for replica in self.replicas if replica.task is not None] + list(self._going)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        processes = [replica.process for replica in self.replicas if replica.process is not None]
        await asyncio.gather(*(process.stop(self._around.stop_seconds) for process in processes))
        for replica in self.replicas:
            self._around.ports.give_back(replica.port)
        self._replicas.clear()

    # --- the life of one replica

    def _add(self) -> None:
        self._started += 1
        replica = Replica(
            id=f"{self.name}-{self._started}",
            port=self._around.ports.take(),
            phase=Phase.STARTING,
            phase_since=self._around.clock(),
        )
        self._replicas[replica.id] = replica
        replica.task = asyncio.create_task(self._keep_alive(replica), name=f"replica {replica.id}")
        self._endpoints_changed(self.name)

    async def _keep_alive(self, replica: Replica) -> None:
        back_off = BackOff()
        while True:
            ready_seconds = await self._run_once(replica)
            self._enter(replica, Phase.BACKOFF)
            delay = back_off.next_delay(ready_seconds)
            log.warning("%s ended; starting it again in %.1f s", replica.id, delay)
            if await self._fault_goes_within(delay):
                back_off.reset()
            replica.restarts += 1
            self.restarts += 1

    async def _run_once(self, replica: Replica) -> float:
        """One run from start to exit; seconds it was ready. Never raises: what fails is tried again."""
        async with self._around.starts:
            self._enter(replica, Phase.STARTING)
            try:
                replica.port = self._around.ports.renew(replica.port)  # somebody may have taken it meanwhile
                process = await spawn(self._around.command(self.name, self.spec, replica.id, replica.port))
            except SourceUnavailable as error:
                log.warning("%s", error)
                return 0.0
            replica.process = process
            replica.started_at = self._around.clock()
            if self.fault is not None:
                await process.tell({"fault": self.fault})
            await self._until_first_ready(replica, process)
        watch = asyncio.create_task(self._watch(replica, process))
        ready_since = monotonic() if replica.phase is Phase.READY else None
        try:
            code = await process.exited()
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        replica.process = None
        log.warning("%s (process %d) exited with code %d", replica.id, process.pid, code)
        return monotonic() - ready_since if ready_since is not None else 0.0

    async def _until_first_ready(self, replica: Replica, process: Process) -> None:
        """Returns when it is ready, has exited, or is stuck (then it was killed)."""
        deadline = monotonic() + STUCK_SECONDS
        while process.running:
            if await answers(self._around.http, _url(replica, "/ready")):
                self._enter(replica, Phase.READY)
                return
            if monotonic() > deadline:
                log.warning("%s was not ready within %.0f s", replica.id, STUCK_SECONDS)
                await process.stop(self._around.stop_seconds)
                return
            with suppress(TimeoutError):
                await asyncio.wait_for(process.exited(), START_POLL_SECONDS)

    async def _watch(self, replica: Replica, process: Process) -> None:
        """Takes a replica that hangs or says no out of the endpoints, and back in; stops one that stays so."""
        failures = 0
        last_ready = monotonic()
        while process.running:
            await asyncio.sleep(WATCH_POLL_SECONDS)
            if await answers(self._around.http, _url(replica, "/ready")):
                failures, last_ready = 0, monotonic()
                self._enter(replica, Phase.READY)
                continue
            failures += 1
            if failures >= UNREADY_AFTER_FAILURES:
                self._enter(replica, Phase.STARTING)
            if monotonic() - last_ready > STUCK_SECONDS:
                log.warning("%s was not ready for %.0f s; stopping it", replica.id, STUCK_SECONDS)
                await process.stop(self._around.stop_seconds)

    async def _fault_goes_within(self, seconds: float) -> bool:
        """Waits `seconds`, or until a fault was taken away: then True."""
        try:
            await asyncio.wait_for(self._fault_gone.wait(), seconds)
        except TimeoutError:
            return False
        return True

    def _enter(self, replica: Replica, phase: Phase) -> None:
        if replica.phase is phase:
            return
        replica.phase = phase
        replica.ever_ready = replica.ever_ready or phase is Phase.READY
        replica.phase_since = self._around.clock()
        self._endpoints_changed(self.name)

    # --- its end

    def _let_go(self, replica: Replica) -> None:
        if replica.task is not None:
            replica.task.cancel()
        served = replica.phase is Phase.READY
        self._enter(replica, Phase.DRAINING)
        going = asyncio.create_task(self._drain(replica, served), name=f"drain {replica.id}")
        self._going.add(going)
        going.add_done_callback(self._going.discard)

    async def _drain(self, replica: Replica, served: bool) -> None:
        if replica.task is not None:  # the life above must not touch the replica any more
            with suppress(asyncio.CancelledError):
                await replica.task
        process = replica.process
        if process is not None and process.running:
            if served:
                await self._until_nothing_new_comes(replica)
                await process.tell({"drain": True})
                await self._until_quiet(replica, process)
            await process.stop(self._around.stop_seconds)
        self._around.ports.give_back(replica.port)
        del self._replicas[replica.id]
        self._endpoints_changed(self.name)

    async def _until_nothing_new_comes(self, replica: Replica) -> None:
        try:
            await self._endpoints_are_live(self.name)
        except SourceUnavailable as error:  # without a gateway nothing new comes either
            log.warning("draining %s without the gateway's word: %s", replica.id, error)

    async def _until_quiet(self, replica: Replica, process: Process) -> None:
        deadline = monotonic() + self._around.drain_seconds
        quiet = 0
        while process.running and quiet < QUIET_LOOKS:
            if monotonic() > deadline:
                log.warning("%s still had requests in flight after %.0f s", replica.id, self._around.drain_seconds)
                return
            await asyncio.sleep(DRAIN_POLL_SECONDS)
            quiet = quiet + 1 if await self._requests_in_flight(replica) == 0 else 0

    async def _requests_in_flight(self, replica: Replica) -> float | None:
        """Requests that the replica is serving, by its own count; None when it does not say."""
        try:
            async with self._around.http.get(
                _url(replica, "/metrics"), timeout=aiohttp.ClientTimeout(total=2.0)
            ) as answer:
                answer.raise_for_status()
                return _in_flight(await answer.text())
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError):
            return None


_IN_FLIGHT = re.compile(r"^http_requests_in_flight(?:\{[^}]*\})? (\S+)$", re.MULTILINE)


def _in_flight(exposition: str) -> float | None:
    """Sum of `http_requests_in_flight` over all services of the process; None without any."""
    values = [float(value) for value in _IN_FLIGHT.findall(exposition)]
    return sum(values) if values else None


def _url(replica: Replica, path: str) -> str:
    return f"http://{LOOPBACK}:{replica.port}{path}"
