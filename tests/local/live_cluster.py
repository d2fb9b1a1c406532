"""A real Envoy in front of small real backends, for tests of what only happens between processes."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp

from control_plane.clock import monotonic, utc_now
from control_plane.local import tools
from control_plane.local.api import ClusterApi
from control_plane.local.cluster import Cluster
from control_plane.local.deployments import Phase, Surroundings
from control_plane.local.envoy import CLUSTERS, bootstrap
from control_plane.local.gateway import Gateway
from control_plane.local.kept_alive import KeptAlive
from control_plane.local.layout import Layout
from control_plane.local.parts import Programs, all_parts, part_command, replica_command
from control_plane.local.ports import PortPool, is_free
from control_plane.local.specification import DEPLOYMENTS, DeploymentSpec, StackSpec
from control_plane.topology import deployment_of

TOKEN = "a-token-for-tests-of-thirty-two-bytes"
SMALL_BACKEND = (sys.executable, str(Path(__file__).with_name("small_backend.py")))
FIRST_BASE = 21000


def a_free_base() -> int:
    """A port base on which nobody listens."""
    for base in range(FIRST_BASE, 30000, 1100):
        if all(is_free(base + offset) for offset in (0, 1, 2, 3, 10, 18, 90, 93, 200, 201, 202)):
            return base
    raise AssertionError("no free range of ports")


def a_layout(folder: Path) -> Layout:
    layout = Layout(a_free_base(), folder / "state")
    for path in layout.folders:
        path.mkdir(parents=True)
    return layout


def a_spec(replicas: Mapping[str, int], **changes: Any) -> StackSpec:
    """Replicas as given, none of the others."""
    return StackSpec(
        deployments={name: DeploymentSpec(replicas=replicas.get(name, 0), **changes) for name in DEPLOYMENTS}
    )


@dataclass
class Live:
    """What a test holds of a running cluster."""

    layout: Layout
    cluster: Cluster
    gateway: Gateway
    envoy: KeptAlive
    http: aiohttp.ClientSession

    async def ask(
        self, path: str, *, method: str = "GET", mesh: str | None = None, headers: Mapping[str, str] | None = None
    ) -> Answer:
        """One request at the gateway, or at the mesh listener with `mesh` as Host."""
        port = self.layout.mesh_port if mesh else self.layout.gateway_port
        sent = {**(headers or {}), **({"Host": mesh} if mesh else {})}
        timeout = aiohttp.ClientTimeout(total=20)
        async with self.http.request(method, self.layout.url(port) + path, headers=sent, timeout=timeout) as answer:
            return Answer(answer.status, await answer.text(), {k.lower(): v for k, v in answer.headers.items()})

    async def who(self, path: str, count: int, **options: Any) -> Counter[str]:
        """Which service's process answered each of `count` requests, or the status where none did."""
        answers = [await self.ask(path, **options) for _ in range(count)]
        return Counter(a.body["service"] if a.status == 200 else str(a.status) for a in answers)

    async def statistics(self) -> str:
        async with self.http.get(f"{self.layout.url(self.layout.envoy_admin_port)}/stats/prometheus") as answer:
            return await answer.text()

    async def statistic(self, line_start: str) -> float | None:
        """Value of the series that is written so, or None."""
        lines = [line for line in (await self.statistics()).splitlines() if line.startswith(line_start)]
        return float(lines[0].rsplit(" ", 1)[1]) if lines else None

    def replicas(self, deployment: str, phase: Phase = Phase.READY) -> list[str]:
        return [replica.id for replica in self.cluster.deployments[deployment].in_phase(phase)]


@dataclass(frozen=True)
class Answer:
    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def body(self) -> dict[str, Any]:
        loaded: dict[str, Any] = json.loads(self.text)
        return loaded


async def until(condition: Callable[[], Any], within_seconds: float = 15.0) -> float:
    """Waits until it holds; the seconds that took. Conditions may be coroutine functions."""
    began = monotonic()
    while True:
        held = condition()
        if asyncio.iscoroutine(held):
            held = await held
        if held:
            return monotonic() - began
        assert monotonic() - began < within_seconds, f"{condition} did not hold within {within_seconds} s"
        await asyncio.sleep(0.02)


@asynccontextmanager
async def live_cluster(folder: Path, replicas: Mapping[str, int], **surroundings: Any) -> AsyncIterator[Live]:
    """Envoy and a cluster with these replicas, all ready; everything is gone afterwards."""
    layout = a_layout(folder)
    layout.bootstrap_file.write_text(json.dumps(bootstrap(layout)))
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as http:
        gateway = Gateway(layout, TOKEN, http)
        around = Surroundings(
            **{
                "http": http,
                "ports": PortPool(layout.replica_ports),
                "starts": asyncio.Semaphore(2),
                "clock": utc_now,
                "logs_dir": layout.logs_dir,
                "command": partial(replica_command, layout, SMALL_BACKEND, Path.cwd()),
                "drain_seconds": 10.0,
                "stop_seconds": 3.0,
                **surroundings,
            }
        )
        spec = a_spec(replicas)
        cluster = Cluster(layout, spec, gateway, around, utc_now)
        cluster.write_files()
        programs = Programs(tools.find("envoy"), Path("prometheus"), Path("alertmanager"))
        part = all_parts(layout, spec, programs, Path("alertmanager.yml"), "local")[0]
        envoy = KeptAlive(part_command(layout, part, Path.cwd()), layout.url(part.port) + part.ready_path, http)
        envoy.start()
        try:
            await envoy.until_ready(15)
            cluster.start()
            await until(cluster.ready)
            live = Live(layout, cluster, gateway, envoy, http)
            await until(partial(_all_members_are_healthy, live))
            yield live
        finally:
            await cluster.stop()
            await envoy.stop()


async def _all_members_are_healthy(live: Live) -> bool:
    """Envoy has checked each member once: until then it answers 503."""
    numbers: dict[str, Counter[str]] = {"total": Counter(), "healthy": Counter()}
    for line in (await live.statistics()).splitlines():
        for kind, found in numbers.items():
            if line.startswith(f"envoy_cluster_membership_{kind}{{"):
                series, value = line.rsplit(" ", 1)
                found[series.split("{", 1)[1]] = int(value)
    ready = {name: len(s.in_phase(Phase.READY)) for name, s in live.cluster.deployments.items()}
    wanted = sum(ready[deployment_of(service, backend)] for service, backend in CLUSTERS)
    return sum(numbers["total"].values()) == sum(numbers["healthy"].values()) == wanted


@asynccontextmanager
async def live_api(live: Live) -> AsyncIterator[str]:
    """The cluster API over a live cluster; its base URL."""
    api = ClusterApi(live.cluster, live.gateway, TOKEN, utc_now, dict, lambda: None)
    server = await api.serve(live.layout.cluster_port)
    try:
        yield live.layout.url(live.layout.cluster_port)
    finally:
        await server.cleanup()
