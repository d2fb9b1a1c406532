"""What is known of one SLO at one moment: the value that decisions, console, alerts and reports all read."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from control_plane.slo.events import EventCounts, RecentEvents


class Verdict(StrEnum):
    """Worst first: PAGE, TICKET, UNKNOWN, NO_TRAFFIC, OK."""

    OK = "ok"
    TICKET = "ticket"
    PAGE = "page"
    UNKNOWN = "unknown"
    NO_TRAFFIC = "no_traffic"


class Kind(StrEnum):
    """Which of the document's promises an SLO states."""

    ERRORS = "errors"
    LATENCY = "latency"
    AVAILABILITY = "availability"
    THROUGHPUT = "throughput"


@dataclass(frozen=True, slots=True)
class Interval:
    """A number known to lie between `lower` and `upper`; all three are equal when it is exact."""

    lower: float
    estimate: float
    upper: float


@dataclass(frozen=True, slots=True)
class AlertState:
    """One multi-window burn-rate alert."""

    tier: str  # page_fast, page_slow, ticket_fast, ticket_slow
    severity: str  # page or ticket
    long_window: timedelta
    short_window: timedelta
    factor: float  # the factor in force, after scaling and lowering
    long_burn_rate: float | None
    short_burn_rate: float | None
    firing: bool


@dataclass(frozen=True, slots=True)
class SloState:
    """Everything known of one SLO at `as_of`. None is "not known"; NaN never appears."""

    name: str
    service: str
    kind: Kind
    target: str  # decimal ratio as text, e.g. "0.999"
    window: timedelta
    verdict: Verdict
    reason: str  # one plain sentence: why this verdict
    sli: Interval | None
    sli_without_exclusions: Interval | None  # the same window with excluded slices (drills, maintenance) counted
    budget_remaining_ratio: float | None  # 1.0 untouched, 0 spent, negative overspent
    burn_rates: Mapping[str, float | None]  # by window: "5m", "30m", "1h", "2h", "6h", "1d", "3d"
    alerts: tuple[AlertState, ...]
    coverage_ratio: float | None  # of what should have been measured since first seen
    measured_ratio: float | None  # of the whole window
    events: EventCounts | None  # in the whole window
    time_to_exhaustion: timedelta | None  # at the 1 h burn rate; None when not burning or not known
    first_seen: datetime | None
    last_sample_at: datetime | None
    as_of: datetime
    recent: RecentEvents | None
