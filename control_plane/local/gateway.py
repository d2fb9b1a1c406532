"""Steers a running Envoy: writes its files, waits until it says that it has them, reads its counters."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

import aiohttp

from control_plane.clock import monotonic
from control_plane.errors import SourceUnavailable
from control_plane.local import envoy
from control_plane.local.files import write_atomically
from control_plane.local.layout import Layout
from control_plane.topology import SERVICES, Backend, BackendTraffic, Weights

ACKNOWLEDGE_SECONDS = 5.0
HEALTHY_SECONDS = 2.0
FIRST_LOOK_SECONDS = 0.004  # a new file is in force after 2-3 ms
LONGEST_LOOK_SECONDS = 0.05


class Gateway:
    """The files and the admin port of one Envoy. While Envoy is down only files change: it reads them at start."""

    def __init__(self, layout: Layout, token: str, http: aiohttp.ClientSession) -> None:
        self._layout = layout
        self._token = token
        self._http = http
        self._admin = layout.url(layout.envoy_admin_port)
        self._written: dict[str, str] = {}  # version by the statistic that shows the live one

    def write_routes(self, weights: Mapping[str, Weights]) -> None:
        """Puts weights into both listeners' route files. Raises OSError."""
        for listener in envoy.LISTENERS:
            statistic = f"http.{listener}.rds.{listener}.version_text"
            routes = envoy.routes(listener, weights, self._token)
            if self._written.get(statistic) != routes.version:
                write_atomically(self._layout.routes_file(listener), routes.text)
                self._written[statistic] = routes.version

    def write_endpoints(self, cluster: str, ports: Iterable[int]) -> None:
        """Puts the members of one cluster into its file. Raises OSError."""
        statistic = _endpoints_statistic(cluster)
        endpoints = envoy.endpoints(cluster, ports)
        if self._written.get(statistic) != endpoints.version:
            write_atomically(self._layout.endpoints_file(cluster), endpoints.text)
            self._written[statistic] = endpoints.version

    async def routes_are_live(self, within_seconds: float = ACKNOWLEDGE_SECONDS) -> None:
        """Waits until both listeners route by the latest weights. Raises SourceUnavailable when it does not say so."""
        await self._until_live(
            [f"http.{listener}.rds.{listener}.version_text" for listener in envoy.LISTENERS], within_seconds
        )

    async def endpoints_are_live(self, clusters: Iterable[str], within_seconds: float = ACKNOWLEDGE_SECONDS) -> None:
        """Waits until Envoy uses the latest members of these clusters. Raises SourceUnavailable likewise."""
        await self._until_live([_endpoints_statistic(cluster) for cluster in clusters], within_seconds)

    async def finds_healthy(self, cluster: str, within_seconds: float = HEALTHY_SECONDS) -> bool:
        """Whether Envoy itself has a healthy member there: a new one counts after its first check, in milliseconds."""
        name = f"cluster.{cluster}.membership_healthy"
        deadline = monotonic() + within_seconds
        while True:
            body = await self._stats({"format": "json", "filter": f"^{re.escape(name)}$"})
            if any(entry.get("name") == name and entry.get("value", 0) > 0 for entry in body.get("stats", ())):
                return True
            if monotonic() > deadline:
                return False
            await asyncio.sleep(LONGEST_LOOK_SECONDS)

    async def traffic(self) -> dict[str, dict[Backend, BackendTraffic]]:
        """Counters of every service and backend since Envoy started. Raises SourceUnavailable."""
        pattern = r"^cluster\..*\.upstream_rq_(completed|5xx|active)$"
        body = await self._stats({"format": "json", "filter": pattern})
        try:
            values = {entry["name"]: int(entry["value"]) for entry in body["stats"]}
            return {
                service: {backend: _backend_traffic(values, service, backend) for backend in Backend}
                for service in SERVICES
            }
        except (KeyError, TypeError, ValueError) as error:
            raise SourceUnavailable(
                f"Envoy's counters at {self._admin} are not what was asked for: {error!r}"
            ) from error

    async def _until_live(self, statistics: list[str], within_seconds: float) -> None:
        deadline = monotonic() + within_seconds
        pause = FIRST_LOOK_SECONDS
        while True:
            problem = None
            try:
                live = await self._versions()
                # compared with what is written now: a later write holds at least what the awaited one did
                waiting = [name for name in statistics if live.get(name) != self._written.get(name)]
                if not waiting:
                    return
                problem = f"still has the old version of {', '.join(waiting)}"
            except SourceUnavailable as error:
                problem = str(error)
            if monotonic() + pause > deadline:
                raise SourceUnavailable(
                    f"Envoy did not confirm the change within {within_seconds:.0f} s ({problem}). "
                    "The files are written, so it takes effect when Envoy is back; "
                    f"see {self._layout.logs_dir / 'envoy.log'}"
                )
            await asyncio.sleep(pause)
            pause = min(pause * 2, LONGEST_LOOK_SECONDS)

    async def _versions(self) -> dict[str, str]:
        text = await self._ask("/stats", {"type": "TextReadouts", "filter": r"version_text$"})
        pairs = (line.split(": ", 1) for line in text.splitlines() if ": " in line)
        return {name: value.strip('"') for name, value in pairs}

    async def _stats(self, query: Mapping[str, str]) -> dict[str, Any]:
        try:
            body = json.loads(await self._ask("/stats", query))
        except ValueError as error:
            raise SourceUnavailable(f"Envoy's admin port at {self._admin} did not answer JSON: {error}") from error
        if not isinstance(body, dict):
            raise SourceUnavailable(
                f"Envoy's admin port at {self._admin} answered {type(body).__name__}, not an object"
            )
        return body

    async def _ask(self, path: str, query: Mapping[str, str]) -> str:
        try:
            async with self._http.get(
                f"{self._admin}{path}", params=query, timeout=aiohttp.ClientTimeout(total=1.0)
            ) as answer:
                answer.raise_for_status()
                return await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise SourceUnavailable(f"Envoy's admin port at {self._admin} did not answer: {error!r}") from error


def _endpoints_statistic(cluster: str) -> str:
    return f"cluster.{cluster}.version_text"


def _backend_traffic(values: Mapping[str, int], service: str, backend: Backend) -> BackendTraffic:
    prefix = f"cluster.{envoy.cluster_name(service, backend)}.upstream_rq"
    return BackendTraffic(
        completed=values[f"{prefix}_completed"],
        server_errors=values.get(f"{prefix}_5xx", 0),  # Envoy makes this counter at the first 5xx
        active=values[f"{prefix}_active"],
    )
