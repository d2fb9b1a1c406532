"""How a service's users fared since an instant, by its own objectives: what a rollback is verified with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import numpy as np

from control_plane.actions.soundness import SampleCounts
from control_plane.clock import Clock
from control_plane.errors import SourceUnavailable
from control_plane.ports import EventSource
from control_plane.slo.events import Selector, Series
from control_plane.slo.increments import increments
from control_plane.slo.labels import matches
from control_plane.slo.spec import Counters, Slo
from control_plane.slo.state import Kind

REACH_BACK = timedelta(seconds=20)
"""Samples of this long before the instant are read too, so that each series has one to count from."""


class ObjectiveSamples:
    """Counts events of the latency objective (and the errors among them) from raw samples of Prometheus."""

    def __init__(self, events: EventSource, slos: Iterable[Slo], clock: Clock) -> None:
        self._events = events
        self._clock = clock
        self._by_service: dict[str, dict[Kind, Slo]] = {}
        for slo in slos:
            if not slo.ours:
                self._by_service.setdefault(slo.service, {}).setdefault(slo.kind, slo)

    async def since(self, service: str, since: datetime) -> SampleCounts:
        """Requests that were counted after `since`. `slow` is None when the service has no latency objective."""
        slos = self._by_service.get(service, {})
        latency, errors = slos.get(Kind.LATENCY), slos.get(Kind.ERRORS)
        wanted = [selector for slo in (latency, errors) if slo is not None for selector in slo.selectors]
        if not wanted:
            return SampleCounts(0, 0, None)
        now = self._clock()
        series = await self._events.samples(wanted, now - since + REACH_BACK, now)
        start = since.timestamp()
        bad = _count(series, errors.bad, start) if errors is not None else 0
        if latency is None:
            total = _count(series, errors.total, start) if errors is not None else 0
            return SampleCounts(total, bad, None)
        total = _count(series, latency.total, start)
        if latency.bad is not None:
            slow = _count(series, latency.bad, start)
        else:
            slow = max(0, total - _count(series, latency.good, start))
        return SampleCounts(total, bad, slow)


async def provider_seconds(events: EventSource, service: str, now: datetime) -> float:
    """Mean seconds that a request of the service waits for its model provider, holding a slot; of two minutes."""
    reach = timedelta(minutes=2)
    parts = [Selector(f"provider_wait_seconds_{part}", (("service", "=", service),)) for part in ("sum", "count")]
    series = await events.samples(parts, reach, now)
    start = (now - reach).timestamp()
    total, waits = (sum(_increase(each, start) for each in series if matches(part, each.labels)) for part in parts)
    if waits <= 0:
        raise SourceUnavailable(f"Nobody waited for a provider behind {service} lately, so its time is not known.")
    return total / waits


def _count(series: Sequence[Series], counters: Counters | None, start: float) -> int:
    if counters is None:
        return 0
    return round(sum(_increase(each, start) for each in series if _wanted(counters.selectors, each)))


def _wanted(selectors: Iterable[Selector], series: Series) -> bool:
    return any(matches(selector, series.labels) for selector in selectors)


def _increase(series: Series, start: float) -> float:
    """Events after `start`; a series without an earlier sample began after it, so all that it shows is new."""
    before = int(np.searchsorted(series.timestamps, start, side="right"))
    first = max(0, before - 1)
    found = increments(None, before == 0, series.timestamps[first:], series.values[first:])
    return float(found.amounts.sum())
