"""The supervisor: starts everything, in order, keeps it alive, and stops all of it."""

from __future__ import annotations

import asyncio
import errno
import json
import logging
import os
import secrets
import signal
import sys
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

import aiohttp

from control_plane.adapters.slo_files import read_texts
from control_plane.clock import Clock, monotonic, utc_now
from control_plane.errors import BackstayError, SourceUnavailable
from control_plane.local import tools
from control_plane.local.api import ClusterApi
from control_plane.local.cluster import Cluster
from control_plane.local.deployments import STARTS_AT_A_TIME, Phase, Surroundings
from control_plane.local.envoy import bootstrap
from control_plane.local.files import write_atomically
from control_plane.local.gateway import Gateway
from control_plane.local.kept_alive import KeptAlive
from control_plane.local.layout import Layout
from control_plane.local.lock import only_supervisor
from control_plane.local.log_files import rotate_by_copy, rotate_by_name
from control_plane.local.parts import (
    Part,
    Programs,
    Wave,
    all_parts,
    part_command,
    replica_command,
    without,
)
from control_plane.local.ports import PortPool, refuse_taken
from control_plane.local.progress import STACK, OnProgress, Progress, Stage
from control_plane.local.prometheus_config import prometheus_config
from control_plane.local.relocation import ALERTMANAGER_DATA, PROMETHEUS_DATA, runnable
from control_plane.local.specification import StackSpec, load_specification
from control_plane.slo.loading import load
from control_plane.slo.rules import rules_text

log = logging.getLogger(__name__)

REPOSITORY = Path(__file__).resolve().parent.parent.parent

SPECIFICATION = REPOSITORY / "deploy" / "local" / "stack.yaml"

PART_READY_SECONDS = 60.0
REPLICAS_READY_SECONDS = 120.0
ROTATION_SECONDS = 30.0
NEEDED_BYTES = 256 * 1024 * 1024
"""Free space without which a start is refused: Prometheus and SQLite fail in ugly ways on a full disk."""

DEFAULT_CONSOLE = "http://127.0.0.1:7010"
"""Where links of our own rules lead, unless the stack runs on other ports."""

QUIET_ALERTMANAGER = "route: {receiver: nobody}\nreceivers: [{name: nobody}]\n"
"""Keeps and shows alerts, and notifies nobody."""


@dataclass(frozen=True, slots=True)
class StackOptions:
    """What to start, and where."""

    layout: Layout
    specification: Path = SPECIFICATION
    slos: Path = REPOSITORY / "slos"
    own_rules: Path = REPOSITORY / "alerts" / "backstay.rules.yml"
    alertmanager_config: Path = REPOSITORY / "alerts" / "alertmanager.yml"  # missing: alerts notify nobody
    launcher: tuple[str, ...] = (sys.executable, "-m", "services.launch")  # program of a replica
    left_out: tuple[str, ...] = ()  # names of parts not to start
    folder: Path = REPOSITORY  # working directory of every child
    policy_profile: str = "local"  # which profile of the decision policy holds
    progress_file: Path | None = None  # JSON lines for a command that waits; None: nobody does
    programs: Programs | None = None  # None: looked for


async def run_stack(options: StackOptions, on_progress: OnProgress, clock: Clock = utc_now) -> None:
    """Runs the stack until SIGINT, SIGTERM or an order to go down; nothing of it is left when this returns.

    Raises ActuationRefused for a second stack or a taken port, ToolMissing, InvalidDefinition for a bad file, and
    SourceUnavailable when a part does not come up; what had started is stopped first. Call it on the main thread.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, stop.set)
    try:
        with _last_word(options, on_progress) as tell, writing_to(options.layout.state_dir):
            make_folders(options.layout)
            with only_supervisor(options.layout):
                await _Supervisor(options, tell, clock, stop).run()
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            loop.remove_signal_handler(number)


def make_folders(layout: Layout, needed_bytes: int = NEEDED_BYTES) -> None:
    """Makes the state folder, for its owner alone. SourceUnavailable when the disk is nearly full, and OSError."""
    for folder in layout.folders:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    disk = os.statvfs(layout.state_dir)
    free = disk.f_bavail * disk.f_frsize
    if free < needed_bytes:
        raise SourceUnavailable(
            f"Only {free // 2**20} MiB are free where {layout.state_dir} is, and {needed_bytes // 2**20} are needed. "
            "Free some, or choose another folder with BACKSTAY_STATE_DIR."
        )


@contextmanager
def writing_to(folder: Path) -> Iterator[None]:
    """Turns the errors of a disk into a sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR):
            raise
        where = error.filename or folder
        raise SourceUnavailable(
            f"{where} cannot be written: {error.strerror}. Mend that, or choose another folder with BACKSTAY_STATE_DIR."
        ) from error


def find_programs() -> Programs:
    """The programs of this machine, runnable from wherever they were unpacked. Raises ToolMissing."""
    prometheus = runnable(tools.find("prometheus"), PROMETHEUS_DATA)
    alertmanager = runnable(tools.find("alertmanager"), ALERTMANAGER_DATA)
    return Programs(
        envoy=tools.find("envoy"),
        prometheus=prometheus.program,
        alertmanager=alertmanager.program,
        prometheus_folder=prometheus.folder,
        alertmanager_folder=alertmanager.folder,
    )


def token_of(layout: Layout) -> str:
    """The stack's bearer token, made at the first start. Raises OSError."""
    try:
        text = layout.token_file.read_text().strip()
        if len(text) >= 32:
            return text
    except FileNotFoundError:
        pass
    token = secrets.token_urlsafe(32)
    write_atomically(layout.token_file, token)
    return token


@contextmanager
def _last_word(options: StackOptions, on_progress: OnProgress) -> Iterator[OnProgress]:
    """Stamps each step, also writes it where a waiting command reads it, and tells how it all ended."""
    began = monotonic()

    def tell(step: Progress) -> None:
        stamped = replace(step, after_seconds=round(monotonic() - began, 2))
        if options.progress_file is not None:
            with suppress(OSError), options.progress_file.open("a") as lines:  # a full disk must not stop the stop
                lines.write(stamped.as_line() + "\n")
        on_progress(stamped)

    try:
        yield tell
    except BackstayError as error:
        tell(Progress(STACK, Stage.FAILED, str(error)))
        raise
    except BaseException as error:
        tell(Progress(STACK, Stage.FAILED, repr(error)))
        raise
    tell(Progress(STACK, Stage.STOPPED))


class _Supervisor:
    """One run of a stack, from the check of its ports to the end of its last process."""

    def __init__(self, options: StackOptions, tell: OnProgress, clock: Clock, stop: asyncio.Event) -> None:
        self._options = options
        self._layout = options.layout
        self._tell = tell
        self._clock = clock
        self._stop = stop
        self._kept: dict[str, KeptAlive] = {}

    async def run(self) -> None:
        spec = load_specification(self._options.specification)
        parts = self._parts(spec)
        self._refuse_taken_ports(parts)
        token = token_of(self._layout)
        self._write_configuration()
        async with AsyncExitStack() as ending:
            http = await ending.enter_async_context(aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)))
            gateway = Gateway(self._layout, token, http)
            cluster = Cluster(self._layout, spec, gateway, self._surroundings(http), self._clock)
            cluster.write_files()
            ending.push_async_callback(self._stop_parts, parts, Wave.FIRST)
            ending.push_async_callback(cluster.stop)
            ending.push_async_callback(self._stop_parts, parts, Wave.WITH_REPLICAS)
            ending.push_async_callback(self._stop_parts, parts, Wave.LAST)
            api = ClusterApi(cluster, gateway, token, self._clock, self._pids, self._stop.set)
            server = await api.serve(self._layout.cluster_port)
            ending.push_async_callback(server.cleanup)
            rotation = asyncio.create_task(self._rotate_logs(), name="rotate logs")
            ending.callback(rotation.cancel)
            self._kept = {part.name: self._keep(part, http) for part in parts}

            starting = asyncio.create_task(self._start(parts, cluster), name="start")
            stopping = asyncio.create_task(self._stop.wait(), name="wait for the end")
            try:
                await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
                if starting.done():
                    starting.result()
                    self._tell(Progress(STACK, Stage.READY, self._layout.url(self._layout.console_port)))
                    await stopping
            finally:
                starting.cancel()
                stopping.cancel()
                with suppress(asyncio.CancelledError, BackstayError):
                    await starting
                self._tell(Progress(STACK, Stage.STOPPING))

    def _parts(self, spec: StackSpec) -> tuple[Part, ...]:
        options = self._options
        programs = options.programs or find_programs()
        config = options.alertmanager_config
        if not config.exists():
            config = self._layout.alertmanager_dir / "alertmanager.yml"
            write_atomically(config, QUIET_ALERTMANAGER)
        return without(
            all_parts(self._layout, spec, programs, config, options.policy_profile),
            options.left_out,
        )

    def _refuse_taken_ports(self, parts: tuple[Part, ...]) -> None:
        layout = self._layout
        refuse_taken(
            {
                "gateway": layout.gateway_port,
                "calls between services": layout.mesh_port,
                "cluster API": layout.cluster_port,
                **{part.title if part.name != "envoy" else "Envoy's admin": part.port for part in parts},
            }
        )

    def _write_configuration(self) -> None:
        layout = self._layout
        write_atomically(layout.bootstrap_file, json.dumps(bootstrap(layout)))
        write_atomically(layout.prometheus_dir / "prometheus.yml", prometheus_config(layout))
        console = layout.url(layout.console_port)
        rules = layout.prometheus_dir / "rules"
        write_atomically(rules / "slos.yml", rules_text(load(read_texts([self._options.slos])).slos, console))
        own_rules = self._options.own_rules.read_text(encoding="utf-8")
        write_atomically(rules / "backstay.yml", own_rules.replace(DEFAULT_CONSOLE, console))

    def _surroundings(self, http: aiohttp.ClientSession) -> Surroundings:
        return Surroundings(
            http=http,
            ports=PortPool(self._layout.replica_ports),
            starts=asyncio.Semaphore(STARTS_AT_A_TIME),
            clock=self._clock,
            logs_dir=self._layout.logs_dir,
            command=partial(replica_command, self._layout, self._options.launcher, self._options.folder),
        )

    def _keep(self, part: Part, http: aiohttp.ClientSession) -> KeptAlive:
        command = part_command(self._layout, part, self._options.folder)
        return KeptAlive(command, self._layout.url(part.port) + part.ready_path, http)

    # --- start

    async def _start(self, parts: tuple[Part, ...], cluster: Cluster) -> None:
        await self._start_wave(parts, Wave.FIRST)
        cluster.start()
        await _together(self._start_wave(parts, Wave.WITH_REPLICAS), self._until_replicas_are_ready(cluster))
        await self._start_wave(parts, Wave.LAST)

    async def _start_wave(self, parts: tuple[Part, ...], wave: Wave) -> None:
        await _together(*(self._start_part(part) for part in parts if part.wave is wave))

    async def _start_part(self, part: Part) -> None:
        self._tell(Progress(part.name, Stage.STARTING, part.title))
        kept = self._kept[part.name]
        kept.start()
        await kept.until_ready(PART_READY_SECONDS)
        self._tell(Progress(part.name, Stage.READY, part.url or part.title))

    async def _until_replicas_are_ready(self, cluster: Cluster) -> None:
        waiting = dict(cluster.deployments)
        for name, replica_set in waiting.items():
            self._tell(Progress(name, Stage.STARTING, _replicas(replica_set.desired)))
        deadline = monotonic() + REPLICAS_READY_SECONDS
        while waiting:
            for name, replica_set in list(waiting.items()):
                ready = len(replica_set.in_phase(Phase.READY))
                if ready >= replica_set.desired:
                    del waiting[name]
                    self._tell(Progress(name, Stage.READY, _replicas(ready)))
            if waiting and monotonic() > deadline:
                raise SourceUnavailable(
                    f"{', '.join(waiting)}: not ready after {REPLICAS_READY_SECONDS:.0f} s. Each has a log in "
                    f"{self._layout.logs_dir}"
                )
            await asyncio.sleep(0.1)

    # --- run and stop

    def _pids(self) -> dict[str, int]:
        running = {kept.name: kept.process.pid for kept in self._kept.values() if kept.process is not None}
        return {STACK: os.getpid(), **running}

    async def _rotate_logs(self) -> None:
        while True:
            await asyncio.sleep(ROTATION_SECONDS)
            try:
                await asyncio.to_thread(self._rotate_once)
            except OSError as error:
                log.warning("logs cannot be rotated: %s", error)

    def _rotate_once(self) -> None:
        for path in self._layout.logs_dir.glob("*.log"):
            rotate_by_copy(path)
        access_logs = (self._layout.gateway_access_log, self._layout.mesh_access_log)
        rotated = [rotate_by_name(path) for path in access_logs]
        envoy = self._kept.get("envoy")
        if any(rotated) and envoy is not None and envoy.process is not None:
            envoy.process.signal(signal.SIGUSR1)  # it opens its access logs anew

    async def _stop_parts(self, parts: tuple[Part, ...], wave: Wave) -> None:
        names = [part.name for part in parts if part.wave is wave and part.name in self._kept]
        await asyncio.gather(*(self._kept[name].stop() for name in names))


def _replicas(count: int) -> str:
    return "1 replica" if count == 1 else f"{count} replicas"


async def _together(*work: Coroutine[None, None, None]) -> None:
    """Runs all at the same time; the first error ends the others, and is raised as it is."""
    tasks = [asyncio.create_task(one) for one in work]
    try:
        await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
