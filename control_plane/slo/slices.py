"""Judges time slices: good when enough of the events inside are. For SLOs whose budget is counted in time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from enum import IntEnum
from fractions import Fraction

import numpy as np

from control_plane.slo.ledger import HOUR, Columns, Ledger
from control_plane.slo.spec import TimeSlices

REMEMBERED = 6 * HOUR
"""Seconds for which a judged slice may still be corrected by late events."""


class Judgement(IntEnum):
    NONE = 0  # no event, or not measured: no evidence either way
    GOOD = 1
    BAD = 2


@dataclass(slots=True)
class SliceJudge:
    """The judgements of one SLO, so that late events can correct them. Slice k is (k, k+1] widths since the epoch."""

    slices: TimeSlices
    columns: Columns
    judged: dict[int, Judgement] = field(default_factory=dict)
    next_slice: int | None = None  # first one that was not closed yet

    def corrections(
        self, ledger: Ledger, touched_from: float, newest: float | None
    ) -> Iterator[tuple[float, int, int]]:
        """Judges slices that closed by `newest` (None: none did) and those with events since `touched_from`.

        Yields (end of slice, change of judged slices, change of bad slices) for the ledger.
        """
        width = int(self.slices.width.total_seconds())
        touched = math.ceil(touched_from / width) - 1
        first = touched if self.next_slice is None else min(touched, self.next_slice)
        closed = max(math.floor((newest or 0) / width), self.next_slice or 0)  # first slice that is still open
        self.next_slice = closed
        if first >= closed:
            return
        wanted = (self.columns.total, self.columns.bad, self.columns.measured)
        multiples, rows = ledger.rows_every(width, first, closed, wanted)
        events = np.diff(rows, axis=0)
        for index, (total, bad, measured) in zip(multiples[:-1].tolist(), events.tolist(), strict=True):
            now = self._judge(total, bad) if total > 0 and measured > 0 else Judgement.NONE
            before = self.judged.get(index, Judgement.NONE)
            if now is not before:
                self.judged[index] = now
                change = int(now is not Judgement.NONE) - int(before is not Judgement.NONE)
                change_bad = int(now is Judgement.BAD) - int(before is Judgement.BAD)
                yield float((index + 1) * width), change, change_bad
        self._forget(closed - REMEMBERED // width)

    def _judge(self, total: float, bad: float) -> Judgement:
        """Good when at least the target's share was; exact where floats would decide a tie by their last bit."""
        allowed = 1 - self.slices.target
        difference = bad - float(allowed) * total
        if abs(difference) > 1e-6:
            return Judgement.BAD if difference > 0 else Judgement.GOOD
        return Judgement.BAD if Fraction(bad) > Fraction(allowed) * Fraction(total) else Judgement.GOOD

    def _forget(self, oldest: int) -> None:
        if len(self.judged) > 2 * REMEMBERED // int(self.slices.width.total_seconds()):
            self.judged = {index: judgement for index, judgement in self.judged.items() if index >= oldest}
