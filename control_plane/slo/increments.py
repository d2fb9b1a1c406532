"""Events out of counter readings: differences between neighbouring samples of one series, aware of resets and gaps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
SeriesKey = frozenset[tuple[str, str]]
"""A series' labels, metric name included."""
TargetKey = tuple[str, str]
"""What was scraped: job and instance. Both empty when the series carries neither."""


def series_key(labels: Mapping[str, str]) -> SeriesKey:
    return frozenset(labels.items())


def target_key(labels: Mapping[str, str]) -> TargetKey:
    return labels.get("job", ""), labels.get("instance", "")


@dataclass(frozen=True, slots=True)
class Reading:
    """The last sample of a series that was counted."""

    at: float
    value: float


@dataclass(frozen=True, slots=True)
class Increments:
    """Events between samples: `amounts[i]` in (`since[i]`, `times[i]`]; `since` equals `times` after a restart."""

    since: Floats
    times: Floats
    amounts: Floats
    seen: Floats  # times of the samples that were new, whether or not something was counted
    last: Reading | None  # to go on from; None when no usable sample was ever seen
    saw_nan: bool  # a sample was no number: it is left out, and what was counted is in doubt


_NONE = np.empty(0)


def increments(previous: Reading | None, born: bool, times: Floats, values: Floats) -> Increments:
    """Events counted by one series after `previous`. Samples at or before it are duplicates and are skipped.

    `previous` None is a series that was never seen. It counts from its first sample, because nobody knows since when
    it runs, unless it was `born` under our eyes: its target was scraped before without it, so all it shows is new.
    A reading below its predecessor is a restart from 0, so all of it is new. What was counted between the last sample
    and the restart is lost to every reader of counters.
    """
    usable = np.isfinite(values)
    if previous is not None:
        new = times > previous.at
        saw_nan = not usable[new].all()
        usable &= new
    else:
        saw_nan = not usable.all()
    times, values = times[usable], values[usable]
    if not len(times):
        return Increments(_NONE, _NONE, _NONE, _NONE, previous, bool(saw_nan))
    since = np.empty_like(times)
    since[1:] = times[:-1]
    since[0] = previous.at if previous else times[0]
    amounts = np.empty_like(values)
    np.subtract(values[1:], values[:-1], out=amounts[1:])
    amounts[0] = values[0] - (previous.value if previous else 0.0)
    restarted = amounts < 0
    if restarted.any():
        amounts[restarted] = values[restarted]
        since[restarted] = times[restarted]
    if previous is None and not born:
        amounts[0] = 0.0
    return Increments(since, times, amounts, times, Reading(float(times[-1]), float(values[-1])), bool(saw_nan))


def spread(found: Increments, spacing: float, slot: float) -> tuple[Floats, Floats]:
    """Times and amounts of the events, each at the sample that showed it; those of a gap evenly over its slots.

    `spacing` is the longest distance of two samples, in seconds, that is no gap.
    """
    counted = found.amounts > 0
    since, times, amounts = found.since[counted], found.times[counted], found.amounts[counted]
    gap = times - since > spacing
    if not gap.any():
        return times, amounts
    all_times, all_amounts = [times[~gap]], [amounts[~gap]]
    for start, end, amount in zip(since[gap], times[gap], amounts[gap], strict=True):
        edges = np.append(np.arange(np.floor(start / slot) + 1, np.ceil(end / slot)) * slot, end)
        all_times.append(edges)
        all_amounts.append(amount * np.diff(edges, prepend=start) / (end - start))
    return np.concatenate(all_times), np.concatenate(all_amounts)
