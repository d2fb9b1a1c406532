"""A suite whose counters follow from time alone, as Prometheus would hold them: the EventSource port over a World."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import numpy as np
from numpy.typing import NDArray

from control_plane.errors import SourceUnavailable
from control_plane.slo.events import Selector, Series
from control_plane.slo.labels import matches
from control_plane.topology import MONOLITH, SERVICES
from tests.actions.suite_world import NOON, World

GATEWAY_EVERY, SUITE_EVERY = 1.0, 5.0
BORN = NOON.timestamp() - 3600.0
"""When every counter read 0: an hour before a world begins."""


@dataclass
class Trouble:
    """A share of a service's requests that goes wrong from `began` on, in seconds of the world."""

    service: str
    share: float
    began: float
    ended: float = float("inf")
    slow: bool = False  # slow answers instead of failing ones


@dataclass
class MeasuredSuite:
    """The EventSource port. Every service gets `world.rate` requests a second; calls, slots and latency go with it."""

    world: World
    troubles: list[Trouble] = field(default_factory=list)
    calls: tuple[tuple[str, str], ...] = (("ai-gateway-service", "identity-service"),)
    busy: dict[str, float] = field(default_factory=dict)  # slots in use by deployment; 4 unless told
    down: bool = False
    hangs: bool = False
    mute_since: float | None = None  # seconds of the world from which nothing is scraped any more
    queries: int = 0
    asked: list[tuple[Sequence[Selector], timedelta, datetime]] = field(default_factory=list)
    history_asked: list[tuple[datetime, datetime]] = field(default_factory=list)

    async def samples(self, selectors: Sequence[Selector], over: timedelta, at: datetime) -> Sequence[Series]:
        self.queries += 1
        self.asked.append((selectors, over, at))
        await self._answer()
        start = at.timestamp() - over.total_seconds()
        end = min(at, self.world.clock).timestamp()  # its own clock stamps what it scrapes
        if self.mute_since is not None:
            end = min(end, NOON.timestamp() + self.mute_since)
        wanted: dict[str, list[Selector]] = {}
        for selector in selectors:
            wanted.setdefault(selector.metric, []).append(selector)
        return [
            each
            for each in self._all(start, end, wanted)
            if any(matches(selector, each.labels) for selector in wanted[each.labels["__name__"]])
        ]

    async def history(
        self, selectors: Sequence[Selector], start: datetime, end: datetime, step: timedelta
    ) -> Sequence[Series]:
        self.queries += 1
        self.history_asked.append((start, end))
        await self._answer()
        return []

    async def _answer(self) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.down:
            raise SourceUnavailable("Prometheus did not answer")

    def _all(self, start: float, end: float, metrics: Collection[str]) -> Iterator[Series]:
        """Every series of those metrics."""
        return (each for each in self._every(start, end, metrics) if each is not None)

    def _every(self, start: float, end: float, metrics: Collection[str]) -> Iterator[Series | None]:
        def series(metric: str, every: float, count: Count, **labels: str) -> Series | None:
            if metric not in metrics:
                return None
            times = np.arange(np.floor(start / every) + 1, np.floor(end / every) + 1) * every
            job = {"job": "gateway", "instance": "gateway:1"} if every == GATEWAY_EVERY else {"job": "suite"}
            return Series({"__name__": metric, **job, **labels}, times, count(times))

        yield series("up", GATEWAY_EVERY, always(1.0))
        for name in SERVICES:
            served, failed, slow = self._served, self._bad(name, slow=False), self._bad(name, slow=True)
            route = {"envoy_virtual_host": "gateway", "envoy_route": name}
            yield series("envoy_vhost_route_upstream_rq_completed", GATEWAY_EVERY, served, **route)
            five = {**route, "envoy_response_code_class": "5"}
            yield series("envoy_vhost_route_upstream_rq_xx", GATEWAY_EVERY, failed, **five)
            yield series("envoy_vhost_route_upstream_rq_time_count", GATEWAY_EVERY, served, **route)
            quick, good = minus(served, slow), minus(served, failed)
            yield series("envoy_vhost_route_upstream_rq_time_bucket", GATEWAY_EVERY, quick, **route, le="200")
            mine = {"service": name, "deployment": name, "backend": "service", "replica": "1", "instance": f"{name}:1"}
            yield series("up", SUITE_EVERY, always(1.0), instance=f"{name}:1")
            yield series("http_requests_total", SUITE_EVERY, good, **mine, status_code="200")
            yield series("http_requests_total", SUITE_EVERY, failed, **mine, status_code="500")
            yield series("http_request_own_duration_seconds_count", SUITE_EVERY, served, **mine)
            yield series("http_request_own_duration_seconds_bucket", SUITE_EVERY, quick, **mine, le="0.2")
            seconds = seconds_of(served, slow)
            yield series("http_request_own_duration_seconds_sum", SUITE_EVERY, seconds, **mine)
            for caller, peer in self.calls:
                if caller == name:
                    made = {**mine, "peer": peer, "outcome": "ok"}
                    yield series("http_client_requests_total", SUITE_EVERY, served, **made)
        for name in (*SERVICES, MONOLITH):
            deployment = self.world.deployments[name]
            where = {"deployment": name, "replica": "1", "instance": f"{name}:1", "kind": "request"}
            slots = always(float(deployment.slots * deployment.ready))
            yield series("http_slots", SUITE_EVERY, slots, **where)
            asked = name if name != MONOLITH else "search-service"
            yield series("http_slots_in_use", SUITE_EVERY, always(self.busy.get(name, 4.0)), **where, service=asked)

    def _served(self, times: Times) -> Times:
        return np.round(self.world.rate * (times - BORN))

    def _bad(self, service: str, *, slow: bool) -> Count:
        mine = [each for each in self.troubles if each.service == service and each.slow is slow]

        def count(times: Times) -> Times:
            bad = np.zeros(len(times))
            for each in mine:
                bad += each.share * np.maximum(0.0, np.minimum(times - NOON.timestamp(), each.ended) - each.began)
            return np.round(self.world.rate * bad)

        return count


Times = NDArray[np.float64]
Count = Callable[[Times], Times]
"""What a counter reads at some instants."""


def always(value: float) -> Count:
    return lambda times: np.full(len(times), value)


def minus(one: Count, other: Count) -> Count:
    return lambda times: one(times) - other(times)


def seconds_of(served: Count, slow: Count) -> Count:
    """Total time of all answers: 20 ms each, and 400 ms more for the slow ones."""
    return lambda times: 0.02 * served(times) + 0.4 * slow(times)
