"""Counted events and what a series of them looks like: the raw material of every SLI."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class EventCounts:
    """How many events were seen, and how many of them were bad. `bad` may exceed `total` only in contradictory data."""

    total: float
    bad: float

    @property
    def good(self) -> float:
        return self.total - self.bad

    def __add__(self, other: EventCounts) -> EventCounts:
        return EventCounts(self.total + other.total, self.bad + other.bad)


@dataclass(frozen=True, slots=True, eq=False)
class Series:
    """Samples of one counter as scraped, each with its own timestamp; sorted by time.

    `timestamps` are Unix seconds (float64), `values` the raw counter readings (float64), same length.
    """

    labels: Mapping[str, str]  # includes __name__
    timestamps: NDArray[np.float64]
    values: NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Selector:
    """A counter selector: metric name and exact or regular-expression matchers, e.g. `code=~"5.."`."""

    metric: str
    matchers: tuple[tuple[str, str, str], ...] = field(default=())  # (label, operator, value); operator in = != =~ !~


@dataclass(frozen=True, slots=True)
class RecentEvents:
    """Per-second events of one SLO over the last minute or so, for the fast-path tests.

    `seconds` are whole Unix seconds, ascending, one entry a scrape interval; `total` and `bad` are increments
    that fell into it. `dispersion` is the variance-to-mean ratio of bad events over the last hour (>= 1.0), by which
    counts are divided before testing; 1.0 when unknown.
    """

    seconds: tuple[int, ...]
    total: tuple[float, ...]
    bad: tuple[float, ...]
    dispersion: float = 1.0
