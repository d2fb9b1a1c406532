"""SLI, burn rate and what is left of the budget, from counted events."""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from fractions import Fraction

from control_plane.slo.events import EventCounts
from control_plane.slo.spec import Objective
from control_plane.slo.state import Interval

ONE_SIDED_99_PERCENT = 2.3263478740408408
"""Quantile of the normal distribution below which 99 % lies."""


@dataclass(frozen=True, slots=True)
class Tally:
    """Events of a window, `bad` of them surely bad, and `unsure` of which a share of `unsure_bad_share` probably is."""

    total: float
    bad: float
    unsure: float = 0.0
    unsure_bad_share: float = 0.5

    @property
    def estimate(self) -> EventCounts:
        return EventCounts(self.total, self.bad + self.unsure * self.unsure_bad_share)

    @property
    def sli(self) -> Interval | None:
        """Share of good events. None without events."""
        if self.total <= 0:
            return None
        shares = (self.bad + self.unsure, self.estimate.bad, self.bad)
        lower, estimate, upper = (min(1.0, max(0.0, 1 - bad / self.total)) for bad in shares)
        return Interval(lower, estimate, upper)

    def minus(self, other: Tally) -> Tally:
        return Tally(self.total - other.total, self.bad - other.bad, self.unsure - other.unsure, self.unsure_bad_share)


def burn_rate(events: EventCounts, objective: Objective) -> float | None:
    """Speed of error budget spend: 1.0 uses up exactly the whole budget in `objective.window`.

    Dimensionless and unrounded; only templates round. None when there are no events, because no traffic is no evidence
    of health. Source: Google SRE Workbook, ch. 5, "Alerting on SLOs".
    """
    if events.total <= 0:
        return None
    return max(0.0, events.bad) / events.total / float(objective.error_budget)


def burns_faster(events: EventCounts, objective: Objective, factor: Decimal) -> bool:
    """Whether the burn rate is above `factor`: exact where floats would decide a tie by their last bit."""
    if events.total <= 0:
        return False
    allowed = factor * objective.error_budget
    difference = events.bad / events.total - float(allowed)
    if abs(difference) > 1e-9:
        return difference > 0
    return Fraction(events.bad) > Fraction(allowed) * Fraction(events.total)


def lower_bound(events: EventCounts) -> float:
    """Share of bad events that is exceeded with 99 % confidence (Wilson's score interval, one-sided)."""
    if events.total <= 0 or events.bad <= 0:  # the formula gives 0 here too, but for rounding
        return 0.0
    n, z = events.total, ONE_SIDED_99_PERCENT
    share = min(1.0, max(0.0, events.bad / n))
    spread = z * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return max(0.0, (share + z * z / (2 * n) - spread) / (1 + z * z / n))


def budget_remaining(events: EventCounts, objective: Objective) -> float | None:
    """1.0 untouched, 0 spent, negative overspent; of the budget that the window's events allow. None without events."""
    if events.total <= 0:
        return None
    return 1 - max(0.0, events.bad) / (float(objective.error_budget) * events.total)


def time_to_exhaustion(remaining: float | None, burn: float | None, objective: Objective) -> timedelta | None:
    """How long the rest of the budget lasts at this burn rate.

    None when one of them is unknown and at a burn rate of 1 or less, which a rolling window bears forever.
    """
    if remaining is None or burn is None or burn <= 1:
        return None
    return timedelta(seconds=max(0.0, remaining) * objective.window.total_seconds() / burn)
