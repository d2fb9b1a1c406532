"""How a service's users fared since an instant, by its own objectives: what a rollback is verified with."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

import numpy as np

from control_plane.actions.soundness import SampleCounts
from control_plane.clock import Clock
from control_plane.errors import SourceUnavailable
from control_plane.ports import EventSource
from control_plane.slo.engine import UP
from control_plane.slo.events import Selector, Series
from control_plane.slo.increments import TargetKey, increments, target_key
from control_plane.slo.labels import matches
from control_plane.slo.spec import Slo
from control_plane.slo.state import Kind

REACH_BACK = timedelta(seconds=20)
"""Samples of this long before the instant are read too, so that each series has one to count from."""
PROVIDER_OVER = timedelta(minutes=2)


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
        series = await self._events.samples([*wanted, UP], now - since + REACH_BACK, now)
        counted = _Counted(series, since.timestamp())
        failed = 0 if errors is None else counted.bad(errors)
        if latency is None:
            return SampleCounts(counted.total(errors), failed, None)
        return SampleCounts(counted.total(latency), failed, counted.bad(latency))


async def provider_seconds(events: EventSource, service: str, now: datetime) -> float:
    """Mean seconds that a request of the service waits for its model provider, holding a slot; of two minutes."""
    start = now - PROVIDER_OVER
    parts = [Selector(f"provider_wait_seconds_{part}", (("service", "=", service),)) for part in ("sum", "count")]
    series = await events.samples([*parts, UP], PROVIDER_OVER + REACH_BACK, now)
    counted = _Counted(series, start.timestamp())
    total, waits = (counted.increase((part,)) for part in parts)
    if waits <= 0:
        raise SourceUnavailable(f"Nobody waited for a provider behind {service} lately, so its time is not known.")
    return total / waits


class _Counted:
    """What raw samples say was counted after an instant (Unix seconds)."""

    def __init__(self, series: Sequence[Series], start: float) -> None:
        self._series = series
        self._start = start
        self._seen_before: dict[TargetKey, bool] = {}  # targets tried before `start`: whether any scrape succeeded
        for each in series:
            if each.labels.get("__name__") == UP.metric:
                before = each.values[each.timestamps <= start]
                if len(before):
                    self._seen_before[target_key(each.labels)] = bool((before == 1).any())

    def total(self, slo: Slo | None) -> int:
        return 0 if slo is None or slo.total is None else round(self.increase(slo.total.selectors))

    def bad(self, slo: Slo) -> int:
        """Bad events, or those that are not good where the objective counts the good ones."""
        if slo.bad is not None:
            return round(self.increase(slo.bad.selectors))
        good = 0 if slo.good is None else round(self.increase(slo.good.selectors))
        return max(0, self.total(slo) - good)

    def increase(self, selectors: Iterable[Selector]) -> float:
        """Events that any of the selectors counted."""
        wanted = tuple(selectors)
        return sum(
            self._increase(each) for each in self._series if any(matches(selector, each.labels) for selector in wanted)
        )

    def _increase(self, series: Series) -> float:
        """Events of one counter. One without an earlier sample began after it, so all that it shows is new.

        Not so when every scrape of its target failed before: then it may be old, and counts from its first sample.
        """
        before = int(np.searchsorted(series.timestamps, self._start, side="right"))
        born = before == 0 and self._seen_before.get(target_key(series.labels), True)
        first = max(0, before - 1)
        found = increments(None, born, series.timestamps[first:], series.values[first:])
        return float(found.amounts.sum())
