"""How full the slots of each deployment are, from the gauges its replicas export."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from control_plane.decisions.capacity import NO_DEMAND, Demand
from control_plane.slo.events import Selector, Series
from control_plane.topology import MONOLITH

SATURATION_SELECTORS: tuple[Selector, ...] = (
    Selector("http_slots"),
    Selector("http_slots_in_use"),
    Selector("http_queue_length"),
)
"""Everything that is read here: one query a line, whatever the number of services."""

AVERAGED_SECONDS = 15.0
"""Gauges are looked at only when they are scraped, so one reading is chance: they are averaged over this long."""

FRESH_SECONDS = 12.0
"""A replica whose newest sample is older (two scrapes of 5 s, and some) is gone: its slots are not there any more."""

_BIN_SECONDS = 5.0


@dataclass(frozen=True, slots=True)
class Saturation:
    """What the replicas of one deployment hold now, queue included. Only replicas that report are in it."""

    replicas: int
    slots: Demand  # that these replicas have, by kind
    used: Demand  # taken slots and the queue for them

    @property
    def utilisation(self) -> float:
        """Share of the scarcer kind of slot that is asked for; above 1.0 there is a queue."""
        shares = [
            used / slots
            for used, slots in (
                (self.used.requests, self.slots.requests),
                (self.used.streams, self.slots.streams),
            )
            if slots > 0
        ]
        return max(shares, default=0.0)


@dataclass(frozen=True, slots=True)
class SlotUse:
    """Slots of everything, at one moment. What reported nothing is absent: not known is not idle."""

    deployments: Mapping[str, Saturation]
    services: Mapping[str, Demand]  # by the service that is asked, whichever deployments answer


def slot_use(series: Sequence[Series], at: float) -> SlotUse:
    """From raw samples of `SATURATION_SELECTORS` that reach back 15 s from `at` (Unix seconds) or more.

    A replica that shows its slots but nothing in use holds nothing: gauges of use exist from the first request on.
    """
    slots: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    replicas: dict[str, set[str]] = defaultdict(set)
    used: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    asked: dict[str, dict[str, float]] = defaultdict(lambda: defaultdict(float))
    for each in series:
        labels = each.labels
        kind = labels.get("kind", "")
        if kind not in ("request", "stream"):
            continue
        deployment, replica = _deployment(labels), labels.get("replica") or labels.get("instance", "")
        if labels.get("__name__") == "http_slots":
            newest = _newest(each, at)
            if newest is not None:
                slots[deployment][kind] += newest
                replicas[deployment].add(replica)
        else:
            mean = _recent_mean(each, at)
            if mean is not None:
                used[deployment][kind] += mean
                asked[labels.get("service", deployment)][kind] += mean
    known = {
        deployment: Saturation(len(replicas[deployment]), _demand(by_kind), _demand(used.get(deployment, {})))
        for deployment, by_kind in slots.items()
    }
    services = {service: _demand(by_kind) for service, by_kind in asked.items()}
    for deployment in known:
        if deployment != MONOLITH:
            services.setdefault(deployment, NO_DEMAND)
    return SlotUse(known, services)


def peak_demand(series: Sequence[Series], at: float, over: float) -> Mapping[str, Demand]:
    """Largest demand of each deployment in the last `over` seconds, five seconds at a time.

    A deployment that did not report in at least nine of ten of these is absent: what it needed then is not known.
    """
    count = max(1, int(over // _BIN_SECONDS))
    start = at - count * _BIN_SECONDS
    sums: dict[tuple[str, str], np.ndarray[tuple[int], np.dtype[np.float64]]] = {}
    reported: dict[str, np.ndarray[tuple[int], np.dtype[np.bool_]]] = {}
    for each in series:
        labels = each.labels
        kind = labels.get("kind", "")
        if kind not in ("request", "stream"):
            continue
        deployment = _deployment(labels)
        within = (each.timestamps > start) & (each.timestamps <= at) & np.isfinite(each.values)
        bins = np.minimum(((each.timestamps[within] - start) // _BIN_SECONDS).astype(int), count - 1)
        if labels.get("__name__") == "http_slots":
            reported.setdefault(deployment, np.zeros(count, dtype=np.bool_))[bins] = True
        elif len(bins):
            seen = np.bincount(bins, minlength=count)
            total = np.bincount(bins, weights=each.values[within], minlength=count)
            sums.setdefault((deployment, kind), np.zeros(count))[:] += total / np.maximum(seen, 1)
    nothing = np.zeros(count)
    return {
        deployment: Demand(
            float(sums.get((deployment, "request"), nothing).max()),
            float(sums.get((deployment, "stream"), nothing).max()),
        )
        for deployment, bins_seen in reported.items()
        if bins_seen.mean() >= 0.9
    }


def _deployment(labels: Mapping[str, str]) -> str:
    return labels.get("deployment") or labels.get("service", "")


def _demand(by_kind: Mapping[str, float]) -> Demand:
    return Demand(by_kind.get("request", 0.0), by_kind.get("stream", 0.0))


def _newest(series: Series, at: float) -> float | None:
    last = int(np.searchsorted(series.timestamps, at, side="right")) - 1
    if last < 0 or series.timestamps[last] < at - FRESH_SECONDS or not np.isfinite(series.values[last]):
        return None
    return float(series.values[last])


def _recent_mean(series: Series, at: float) -> float | None:
    if _newest(series, at) is None:
        return None
    first, last = np.searchsorted(series.timestamps, (at - AVERAGED_SECONDS, at), side="right")
    return float(np.nanmean(series.values[first:last]))
