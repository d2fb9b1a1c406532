"""Multi-window multi-burn-rate alerts, after the Google SRE Workbook, ch. 5."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from functools import lru_cache

from control_plane.slo.burn_rate import burn_rate, burns_faster, lower_bound
from control_plane.slo.events import EventCounts
from control_plane.slo.spec import Objective
from control_plane.slo.state import AlertState
from control_plane.slo.windows import BURN_WINDOWS

FEWEST_FAILURES = 5
"""Bad events without which data younger than the long window fires nothing, however high their share."""

REACHABLE_SHARE = Decimal("0.9")
"""Share of bad events at which a lowered threshold stands: a full outage must exceed it."""


@dataclass(frozen=True, slots=True)
class Tier:
    """One rule: fires when both windows burn faster than the factor. The short one ends it soon after the cause."""

    name: str
    severity: str  # page or ticket
    long: str
    short: str
    budget_share: Decimal  # of the whole budget, spent within the long window

    def factor(self, objective: Objective) -> Decimal:
        """Burn rate that spends `budget_share` within the long window; 14.4, 6, 3, 1 for 30 days. Never below 1."""
        periods = Decimal(objective.window // timedelta(seconds=1)) / Decimal(
            BURN_WINDOWS[self.long] // timedelta(seconds=1)
        )
        return max(Decimal(1), self.budget_share * periods)


TIERS: tuple[Tier, ...] = (
    Tier("page_fast", "page", "1h", "5m", Decimal("0.02")),
    Tier("page_slow", "page", "6h", "30m", Decimal("0.05")),
    Tier("ticket_fast", "ticket", "1d", "2h", Decimal("0.10")),
    Tier("ticket_slow", "ticket", "3d", "6h", Decimal("0.10")),
)


@lru_cache(maxsize=4096)
def factor_in_force(tier: Tier, objective: Objective) -> Decimal:
    """The tier's factor, lowered where even a full outage could not exceed it (factor x budget >= 1)."""
    factor = tier.factor(objective)
    if factor * objective.error_budget < 1:
        return factor
    return max(Decimal(1), REACHABLE_SHARE / objective.error_budget)


def alert_state(
    tier: Tier, objective: Objective, events: Mapping[str, EventCounts], age: timedelta | None
) -> AlertState:
    """The tier's state from the events of each window. `age` is how long data has been seen; None: not at all.

    A long window that is older than the data would judge minutes as if they were hours: then it fires only when at
    least FEWEST_FAILURES were seen and the lower confidence bound of the bad share exceeds the threshold.
    """
    factor = factor_in_force(tier, objective)
    long, short = events[tier.long], events[tier.short]
    firing = burns_faster(long, objective, factor) and burns_faster(short, objective, factor)
    if firing and (age is None or age < BURN_WINDOWS[tier.long]):
        firing = long.bad >= FEWEST_FAILURES and lower_bound(long) > float(factor * objective.error_budget)
    return AlertState(
        tier=tier.name,
        severity=tier.severity,
        long_window=BURN_WINDOWS[tier.long],
        short_window=BURN_WINDOWS[tier.short],
        factor=float(factor),
        long_burn_rate=burn_rate(long, objective),
        short_burn_rate=burn_rate(short, objective),
        firing=firing,
    )
