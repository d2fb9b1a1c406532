"""Spans of time whose events do not count against the budget: drills and maintenance. Always shown both ways."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

from control_plane.slo.spec import Slo


@dataclass(frozen=True, slots=True)
class Exclusion:
    """Events of `services` in (`start`, `end`] are left out. `end` None: still going on."""

    start: datetime
    end: datetime | None
    reason: str  # e.g. "drill errors on ai-gateway-service"
    services: frozenset[str] | None = None  # None: all services

    def concerns(self, slo: Slo) -> bool:
        return self.services is None or slo.service in self.services


Span = tuple[float, float]
"""Start and end in Unix seconds."""


def excluded_spans(slo: Slo, exclusions: Iterable[Exclusion], now: float) -> tuple[Span, ...]:
    """What to leave out for one SLO: ascending, apart from each other, on whole seconds, none after `now` begins.

    An exclusion reaches one scrape further, since an event is counted at the sample that shows it, and for time slices
    to the end of the slice it touches: half a slice cannot be judged.
    """
    step = slo.slices.width.total_seconds() if slo.slices else 1.0
    late = slo.scrape_interval.total_seconds()
    spans: list[Span] = []
    for exclusion in exclusions:
        start = exclusion.start.timestamp()
        if not exclusion.concerns(slo) or start > now:
            continue
        end = math.inf if exclusion.end is None else math.ceil((exclusion.end.timestamp() + late) / step) * step
        spans.append((float(math.floor(start)), float(end)))
    return _merged(sorted(spans))


def _merged(spans: Sequence[Span]) -> tuple[Span, ...]:
    merged: list[Span] = []
    for start, end in spans:
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return tuple(merged)
