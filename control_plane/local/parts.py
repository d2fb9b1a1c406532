"""The parts of the stack that are no replicas, as data: how each is run, and how one sees that it is ready. Pure."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path

from control_plane.errors import InvalidDefinition
from control_plane.local.layout import Layout
from control_plane.local.processes import Command
from control_plane.local.prometheus_config import alertmanager_arguments, prometheus_arguments
from control_plane.local.specification import DeploymentSpec, StackSpec


class Wave(IntEnum):
    """When a part starts; a wave begins when the one before is ready."""

    FIRST = 1  # what replicas need or are seen by
    WITH_REPLICAS = 2
    LAST = 3  # what needs a suite that serves


@dataclass(frozen=True, slots=True)
class Part:
    """One process that is kept alive."""

    name: str
    title: str  # for people
    argv: tuple[str, ...]
    port: int
    ready_path: str
    wave: Wave
    url: str | None = None  # what people open; None: nothing for people there
    tethered: bool = False  # one of our own programs
    folder: Path | None = None  # working directory it needs; None: any
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Programs:
    """Paths of the programs that are not ours."""

    envoy: Path
    prometheus: Path
    alertmanager: Path
    prometheus_folder: Path | None = None  # working directories that they need; None: any
    alertmanager_folder: Path | None = None


def all_parts(
    layout: Layout, spec: StackSpec, programs: Programs, alertmanager_config: Path, policy_profile: str
) -> tuple[Part, ...]:
    """Every part of the stack, in the order of their start."""
    ours = own_environment(layout)
    return (
        Part(
            "envoy",
            "gateway",
            (
                str(programs.envoy),
                "--config-path",
                str(layout.bootstrap_file),
                # Else a second Envoy fails, and this one ends with the process that started it.
                "--disable-hot-restart",
                "--concurrency",
                "1",
                "--log-level",
                "warning",
                "--file-flush-interval-msec",
                "500",  # a drill reads the access log
            ),
            layout.envoy_admin_port,
            "/ready",
            Wave.FIRST,
            url=layout.url(layout.gateway_port),
        ),
        Part(
            "traces",
            "trace store",
            (sys.executable, "-m", "control_plane.adapters.trace_store"),
            layout.traces_port,
            "/api/services",
            Wave.FIRST,
            url=layout.url(layout.traces_port),
            tethered=True,
            environment=ours,
        ),
        Part(
            "alertmanager",
            "Alertmanager",
            (str(programs.alertmanager), *alertmanager_arguments(layout, alertmanager_config)),
            layout.alertmanager_port,
            "/-/ready",
            Wave.FIRST,
            url=layout.url(layout.alertmanager_port),
            folder=programs.alertmanager_folder,
        ),
        Part(
            "prometheus",
            "Prometheus",
            (str(programs.prometheus), *prometheus_arguments(layout)),
            layout.prometheus_port,
            "/-/ready",
            Wave.FIRST,
            url=layout.url(layout.prometheus_port),
            folder=programs.prometheus_folder,
        ),
        Part(
            "control-plane",
            "console",
            (sys.executable, "-m", "control_plane"),
            layout.console_port,
            "/health",
            Wave.WITH_REPLICAS,
            url=layout.url(layout.console_port),
            tethered=True,
            environment={**ours, "BACKSTAY_POLICY_PROFILE": policy_profile},
        ),
        Part(
            "load",
            "demo traffic",
            (sys.executable, "-m", "services.load"),
            layout.load_port,
            "/health",
            Wave.LAST,
            tethered=True,
            environment={
                **ours,
                "SUITE_LOAD_GATEWAY_URL": layout.url(layout.gateway_port),
                "SUITE_LOAD_PORT": str(layout.load_port),
                "SUITE_LOAD_TOKEN_FILE": str(layout.token_file),
                "SUITE_LOAD_SCALE": str(spec.demo.scale),
            },
        ),
    )


def without(parts: Sequence[Part], names: Sequence[str]) -> tuple[Part, ...]:
    """The parts but for those named. Raises InvalidDefinition for a name that no part has."""
    known = {part.name for part in parts}
    if unknown := [name for name in names if name not in known]:
        raise InvalidDefinition(f"no part is called {unknown[0]!r}: choose from {', '.join(sorted(known))}")
    return tuple(part for part in parts if part.name not in names)


def part_command(layout: Layout, part: Part, folder: Path) -> Command:
    """How the part is run, in `folder` unless it needs another."""
    return Command(
        part.name,
        part.argv,
        layout.logs_dir / f"{part.name}.log",
        environment=part.environment,
        tethered=part.tethered,
        folder=part.folder or folder,
    )


def own_environment(layout: Layout) -> dict[str, str]:
    """What every program of ours is told about this stack."""
    return {
        "BACKSTAY_PORT_BASE": str(layout.port_base),
        "BACKSTAY_STATE_DIR": str(layout.state_dir),
        "SUITE_DATA_DIR": str(layout.data_dir),
        "SUITE_MESH_URL": layout.url(layout.mesh_port),
        "SUITE_OTLP_URL": layout.url(layout.traces_port),
        "SUITE_SAMPLING_RATE": "1.0",  # one machine can keep them all
        "PYTHONUNBUFFERED": "1",
        "MALLOC_ARENA_MAX": "2",  # glibc would keep an arena for each thread: tens of MiB a process
    }


def replica_command(
    layout: Layout,
    launcher: tuple[str, ...],
    folder: Path,
    deployment: str,
    spec: DeploymentSpec,
    replica: str,
    port: int,
) -> Command:
    """How one replica is run; `launcher` is the program, which takes `--service`, `--port` and `--replica`."""
    return Command(
        replica,
        (*launcher, "--service", deployment, "--port", str(port), "--replica", replica),
        layout.logs_dir / f"{deployment}.log",  # all replicas of a deployment: each line names its replica
        environment={
            **own_environment(layout),
            "SUITE_SLOTS": str(spec.slots),
            "SUITE_STREAM_SLOTS": str(spec.stream_slots),
        },
        tethered=True,
        folder=folder,
    )
