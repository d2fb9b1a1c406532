"""The event ledger: running totals of every SLO at several resolutions, so that any window is one subtraction.

A *boundary* is an instant that is a whole multiple of a level's slot width. Each level keeps, for its newest
boundaries, everything that was ever counted up to that boundary (a prefix sum). Events between two instants are the
difference of two rows, each read from the finest level that still holds it, so a window costs the same whatever its
length, and late events are added to all rows after their own time.

One ledger holds the columns of many SLOs side by side: a tick is a few vector additions, not a loop over SLOs.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Indices = NDArray[np.int64]

SECOND, MINUTE, HOUR, DAY = 1, 60, 3600, 86400
RESOLUTIONS: tuple[tuple[int, int], ...] = (
    (SECOND, 3 * MINUTE),  # the fast path
    (5 * SECOND, 15 * MINUTE),
    (MINUTE, 6 * HOUR),
    (15 * MINUTE, 35 * DAY),
)
"""Slot width and how far back it reaches, in seconds, finest first."""


class _Level:
    """Prefix sums at one resolution, in a ring of rows; the newest row holds everything counted so far."""

    def __init__(self, width: int, reach: int, columns: int) -> None:
        self.width = width
        self.sums = np.zeros((reach // width + 1, columns))
        self.head: int | None = None  # newest boundary, in slot widths since the epoch; None while empty

    @property
    def oldest(self) -> int:
        assert self.head is not None  # noqa: S101 - callers ask after the first event only
        return self.head - len(self.sums) + 1

    def row(self, boundary: int) -> Floats:
        row: Floats = self.sums[boundary % len(self.sums)]
        return row

    def advance(self, boundary: int) -> None:
        """Opens rows up to `boundary`: nothing is counted in them yet, so each repeats the newest one."""
        if self.head is None:
            self.head = boundary
        if boundary <= self.head:
            return
        opened = np.arange(max(self.head + 1, boundary - len(self.sums) + 1), boundary + 1)
        self.sums[opened % len(self.sums)] = self.row(self.head).copy()
        self.head = boundary

    def add(self, columns: Indices, times: Floats, amounts: Floats) -> None:
        """Counts events; those before the oldest row count in every row, as a prefix sum must."""
        boundaries = np.ceil(times / self.width).astype(np.int64)  # a slot is open at its left end: (k-1, k]
        self.advance(int(boundaries.max()))
        assert self.head is not None  # noqa: S101 - `advance` just set it
        first = max(int(boundaries.min()), self.oldest)
        delta = np.zeros((self.head - first + 1, self.sums.shape[1]))
        np.add.at(delta, (np.maximum(boundaries, first) - first, columns), amounts)
        rows = np.arange(first, self.head + 1) % len(self.sums)
        self.sums[rows] += np.cumsum(delta, axis=0)


class Ledger:
    """Running totals of a fixed number of columns. Times are Unix seconds."""

    def __init__(self, columns: int) -> None:
        self.columns = columns
        self._levels = [_Level(width, reach, columns) for width, reach in RESOLUTIONS]
        self._pinned_at = np.empty(0)  # ascending
        self._pinned = np.empty((0, columns))
        self._looked_up: dict[float, Floats] = {}  # rows by time, until the next change: all SLOs ask the same times

    @property
    def newest(self) -> float | None:
        """Newest boundary that holds events; None while empty."""
        head = self._levels[0].head
        return None if head is None else float(head * self._levels[0].width)

    def add(self, columns: Indices, times: Floats, amounts: Floats) -> None:
        """Counts `amounts[i]` in `columns[i]` at `times[i]`, in any order of time."""
        if not len(times):
            return
        self._looked_up.clear()
        for level in self._levels:
            level.add(columns, times, amounts)
        if len(self._pinned_at):
            after = np.searchsorted(self._pinned_at, times, side="left")
            delta = np.zeros((len(self._pinned_at) + 1, self.columns))
            np.add.at(delta, (after, columns), amounts)
            self._pinned += np.cumsum(delta[:-1], axis=0)

    def at(self, time: float) -> Floats:
        """Everything counted up to `time`, rounded down to the finest boundary still held. Not for writing."""
        row = self._looked_up.get(time)
        if row is None:
            row = self._looked_up[time] = self._look_up(time)
        return row

    def _look_up(self, time: float) -> Floats:
        pin = int(np.searchsorted(self._pinned_at, time))
        if pin < len(self._pinned_at) and self._pinned_at[pin] == time:
            pinned: Floats = self._pinned[pin]
            return pinned
        for level in self._levels:
            if level.head is None:
                return np.zeros(self.columns)
            boundary = int(time // level.width)
            if boundary >= level.oldest:
                return level.row(min(boundary, level.head))
        return level.row(level.oldest)

    def newest_rows(self, width: int, count: int, columns: Sequence[int]) -> tuple[Floats, Floats]:
        """The newest `count` + 1 rows `width` seconds apart, oldest first, and their times; fewer when not held.

        Only `columns`, in this order: a row of all SLOs for each SLO would cost the square of their number.
        """
        for level in self._levels:
            if level.head is None or width % level.width or width * count > (len(level.sums) - 2) * level.width:
                continue
            step = width // level.width
            last = -(-level.head // step) * step  # the slot that is still filling ends after the newest row
            boundaries = np.arange(last - count * step, last + 1, step)
            boundaries = boundaries[boundaries >= level.oldest]
            held = np.minimum(boundaries, level.head)
            return boundaries.astype(np.float64) * level.width, self._rows(level, held, columns)
        return np.empty(0), np.empty((0, len(columns)))

    def rows_every(self, width: int, first: int, last: int, columns: Sequence[int]) -> tuple[Indices, Floats]:
        """`columns` at multiples `first`..`last` of `width` seconds (whole minutes), as far as minutes are held."""
        level = next(level for level in self._levels if level.width == MINUTE)
        if level.head is None:
            return np.empty(0, dtype=np.int64), np.empty((0, len(columns)))
        step = width // level.width
        multiples = np.arange(max(first, -(-level.oldest // step)), last + 1)
        return multiples, self._rows(level, np.minimum(multiples * step, level.head), columns)

    @staticmethod
    def _rows(level: _Level, boundaries: Indices, columns: Sequence[int]) -> Floats:
        rows: Floats = level.sums[(boundaries % len(level.sums))[:, np.newaxis], columns]
        return rows

    def pin(self, times: Iterable[float]) -> None:
        """Keeps the running totals at these instants for good, at the precision that is held now.

        The edges of exclusions are pinned while they are fresh: months later they would only be known to a quarter of
        an hour. Late events still reach them.
        """
        for time in times:
            place = int(np.searchsorted(self._pinned_at, time))
            if place < len(self._pinned_at) and self._pinned_at[place] == time:
                continue
            row = self.at(time).copy()
            self._looked_up.clear()
            self._pinned_at = np.insert(self._pinned_at, place, time)
            self._pinned = np.insert(self._pinned, place, row, axis=0)
        self._forget_old_pins()

    def _forget_old_pins(self) -> None:
        newest = self.newest
        if newest is not None and len(self._pinned_at) and self._pinned_at[0] < newest - RESOLUTIONS[-1][1]:
            keep = self._pinned_at >= newest - RESOLUTIONS[-1][1]
            self._pinned_at, self._pinned = self._pinned_at[keep], self._pinned[keep]

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Everything held, by name, for a snapshot."""
        held: dict[str, NDArray[Any]] = {
            "pinned_at": self._pinned_at,
            "pinned": self._pinned,
        }
        for i, level in enumerate(self._levels):
            held[f"head_{i}"] = np.array([-1 if level.head is None else level.head], dtype=np.int64)
            held[f"sums_{i}"] = level.sums
        return held

    @classmethod
    def of_arrays(cls, held: Mapping[str, NDArray[Any]], columns: Indices) -> Ledger:
        """A ledger out of `arrays()`; column i is what was column `columns[i]`, and empty for -1.

        Raises ValueError when the arrays are not of this shape.
        """
        ledger = cls(len(columns))
        kept = columns >= 0
        ledger._pinned_at = np.asarray(held["pinned_at"], dtype=np.float64)
        ledger._pinned = np.zeros((len(ledger._pinned_at), len(columns)))
        ledger._pinned[:, kept] = held["pinned"][:, columns[kept]]
        for i, level in enumerate(ledger._levels):
            sums, head = held[f"sums_{i}"], int(held[f"head_{i}"][0])
            if len(sums) != len(level.sums):
                raise ValueError("the snapshot has other resolutions")
            level.head = None if head < 0 else head
            level.sums[:, kept] = sums[:, columns[kept]]
        return ledger


@dataclass(frozen=True, slots=True)
class Columns:
    """Where one SLO's numbers stand in a ledger. None: this SLO has no such number."""

    total: int
    bad: int  # surely bad
    measured: int  # seconds in which the total was sampled
    unsure: int | None  # good or bad, nobody knows: between two histogram buckets
    slices: int | None  # time slices judged
    bad_slices: int | None
