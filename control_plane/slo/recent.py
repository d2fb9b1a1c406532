"""The newest seconds of one SLO, for the fast-path tests."""

from __future__ import annotations

from datetime import timedelta

import numpy as np
from numpy.typing import NDArray

from control_plane.slo.events import RecentEvents
from control_plane.slo.exclusions import Span
from control_plane.slo.ledger import MINUTE, Columns, Ledger

SPAN = timedelta(minutes=2)
DISPERSION_MINUTES = 60
EDGES = 4
"""Pairs of minutes at the edges of one incident: two at each end, since it begins and ends within a minute."""


def recent_events(ledger: Ledger, columns: Columns, scrape_seconds: float, spans: tuple[Span, ...]) -> RecentEvents:
    """Increments per scrape over the last two minutes, those of unmeasured scrapes left out.

    Excluded events are kept: a drill must be seen. The dispersion leaves them out, lest a drill blind the next hour.
    """
    width = max(1, round(scrape_seconds))
    wanted = (columns.total, columns.bad, columns.measured)
    times, rows = ledger.newest_rows(width, int(SPAN.total_seconds()) // width, wanted)
    if len(times) < 2:
        return RecentEvents((), (), ())
    steps = np.diff(rows, axis=0)
    seen = steps[:, 2] > 0
    return RecentEvents(
        seconds=tuple(times[1:][seen].astype(np.int64).tolist()),
        total=tuple(steps[seen, 0].tolist()),
        bad=tuple(np.maximum(steps[seen, 1], 0.0).tolist()),
        dispersion=_dispersion(ledger, columns, spans),
    )


def _dispersion(ledger: Ledger, columns: Columns, spans: tuple[Span, ...]) -> float:
    """How much more the bad events of a minute vary than independent ones would, over the last hour; at least 1.0.

    The newest two minutes are left out: what happens now must not excuse itself. Compared are neighbouring minutes,
    (a - b)^2 / (a + b), which is 1 on average for independent events of any slowly changing rate, so that an earlier
    incident counts at its edges only. The largest fifth, and at least those edges, is cut off: one incident must not
    blind the next hour to another.
    """
    newest = ledger.newest
    if newest is None:
        return 1.0
    last = int(newest // MINUTE) - 2
    minutes, rows = ledger.rows_every(MINUTE, last - DISPERSION_MINUTES, last, (columns.bad,))
    bad = np.maximum(np.diff(rows[:, 0]), 0.0)
    ends = minutes[1:] * MINUTE
    counted = np.ones(len(bad), dtype=bool)
    for start, end in spans:
        counted &= (ends <= start) | (ends - MINUTE >= end)
    first, second = bad[:-1], bad[1:]
    both = counted[:-1] & counted[1:] & (first + second > 0)
    if not both.any():
        return 1.0
    ratios: NDArray[np.float64] = np.sort((first[both] - second[both]) ** 2 / (first[both] + second[both]))
    kept = ratios[: max(0, len(ratios) - max(EDGES, len(ratios) // 5))]
    return max(1.0, float(kept.mean())) if len(kept) else 1.0
