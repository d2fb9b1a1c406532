"""Makers of SLOs, series and engines; each test states only what it is about."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np

from control_plane.slo.engine import SloEngine
from control_plane.slo.events import Selector, Series
from control_plane.slo.spec import Bucket, Budgeting, Counters, Objective, Slo, TimeSlices
from control_plane.slo.state import Kind, SloState

START = 1_700_000_040.0  # a whole minute
TARGET = {"job": "gateway", "instance": "127.0.0.1:7002"}
SECOND = timedelta(seconds=1)


def at(seconds: float) -> datetime:
    """An instant, in seconds after START."""
    return datetime.fromtimestamp(START + seconds, UTC)


def counters(*metrics: str, every: float = 1) -> Counters:
    return Counters(tuple(Selector(metric) for metric in metrics), timedelta(seconds=every))


def an_slo(**changes: Any) -> Slo:
    """Errors of one service, 99.9 % over 30 days, scraped every second."""
    slo = Slo(
        name="search-service-errors",
        service="search-service",
        kind=Kind.ERRORS,
        objective=Objective(Decimal("0.999"), timedelta(days=30)),
        total=counters("requests_total"),
        bad=counters("errors_total"),
    )
    return replace(slo, **changes)


def an_availability_slo(**changes: Any) -> Slo:
    """Minutes in which 95 % were served, 99.9 % of them over 30 days."""
    return an_slo(
        name="search-service-availability",
        kind=Kind.AVAILABILITY,
        budgeting=Budgeting.TIMESLICES,
        slices=TimeSlices(timedelta(minutes=1), Decimal("0.95")),
        **changes,
    )


def a_latency_slo(**changes: Any) -> Slo:
    """95 % below 0.2 s over 30 days."""
    selector = Selector("seconds_bucket", (("le", "=", "0.2"),))
    return an_slo(
        name="search-service-latency",
        kind=Kind.LATENCY,
        objective=Objective(Decimal("0.95"), timedelta(days=30)),
        total=counters("seconds_count"),
        good=Counters((selector,), SECOND),
        bad=None,
        bucket=Bucket("seconds_bucket", Decimal("0.2"), ()),
        **changes,
    )


def readings(metric: str, times: Sequence[float], values: Sequence[float], **labels: str) -> Series:
    """A series by its samples, times in seconds after START."""
    return Series(
        {"__name__": metric, **TARGET, **labels},
        np.array(times, dtype=np.float64) + START,
        np.array(values, dtype=np.float64),
    )


def counting(
    metric: str, start: float, end: float, count: Callable[[float], float], every: float = 1, **labels: str
) -> Series:
    """A series that reads `count(t)` at every scrape in [`start`, `end`]."""
    times = np.arange(start, end + 1e-9, every)
    return readings(metric, times.tolist(), [count(t) for t in times.tolist()], **labels)


def observed(engine: SloEngine, *series: Series, now: float) -> SloState:
    """The first SLO's state after one reading."""
    engine.observe(series, at(now))
    return engine.states(at(now))[0]
