"""What an SLO promises and where its events are counted: the meaning of an OpenSLO file, free of its syntax."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from enum import StrEnum

from control_plane.errors import InvalidDefinition
from control_plane.slo.events import Selector
from control_plane.slo.state import Kind


@dataclass(frozen=True, slots=True)
class Objective:
    """Share of events (or of time slices) that must be good over a rolling window, e.g. 0.999 over 30 days."""

    target: Decimal  # ratio in (0, 1), parsed from the file's text: at 1 there is no error budget to burn
    window: timedelta

    def __post_init__(self) -> None:
        if not 0 < self.target < 1:
            raise InvalidDefinition(f"objective {self.target} is outside (0, 1): write 99.9 % as 0.999")

    @property
    def error_budget(self) -> Decimal:
        """Share of events that may be bad. A Decimal: 1 - 0.999 in floats is 0.0010000000000000009."""
        return 1 - self.target

    @property
    def target_text(self) -> str:
        """The target as a plain decimal ratio: "0.999" for `target: 0.9990` and `targetPercent: 99.9` alike."""
        return format(self.target.normalize(), "f")


class Budgeting(StrEnum):
    """What the budget is counted in."""

    OCCURRENCES = "Occurrences"  # events
    TIMESLICES = "Timeslices"  # time slices, each good when enough of its events are


@dataclass(frozen=True, slots=True)
class TimeSlices:
    """When a time slice is good: at least `target` of the events inside it are."""

    width: timedelta  # a whole number of minutes that divides an hour
    target: Decimal  # ratio in (0, 1]


@dataclass(frozen=True, slots=True)
class Counters:
    """Events counted by the sum of some counters."""

    selectors: tuple[Selector, ...]
    scrape_interval: timedelta  # of the source; what is expected, not what was seen

    def __post_init__(self) -> None:
        if not self.selectors:
            raise ValueError("a sum of no counters counts nothing")


@dataclass(frozen=True, slots=True)
class Bucket:
    """A histogram bucket that an SLO uses as "good": its boundary decides whether the number is exact."""

    metric: str  # with its suffix, e.g. "http_request_duration_seconds_bucket"
    boundary: Decimal  # as the file says it; "0.2", "0.20" and "0.200" are one boundary
    matchers: tuple[tuple[str, str, str], ...]  # all but the one on `le`

    @property
    def count_metric(self) -> str:
        """The counter of all observations of the same histogram."""
        return self.metric.removesuffix("_bucket") + "_count"


@dataclass(frozen=True, slots=True)
class Slo:
    """One service level objective. Exactly one of `good` and `bad` is set, except for a capacity objective."""

    name: str
    service: str
    kind: Kind
    objective: Objective
    budgeting: Budgeting = Budgeting.OCCURRENCES
    slices: TimeSlices | None = None  # set for TIMESLICES, None for OCCURRENCES
    total: Counters | None = None  # None only for a capacity objective
    good: Counters | None = None
    bad: Counters | None = None
    bucket: Bucket | None = None  # set when `good` is one histogram bucket
    capacity_per_second: Decimal | None = None  # a capacity objective's rate that must be exceeded
    title: str = ""
    description: str = ""
    ours: bool = False  # True: an addition of Backstay, not a promise of the user's document
    file: str = ""
    line: int = 0

    @property
    def scrape_interval(self) -> timedelta:
        """Expected time between two samples of the total; 0 for a capacity objective, which has none."""
        return self.total.scrape_interval if self.total else timedelta(0)

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """Every counter that the SLO reads, as the file has it."""
        return tuple(s for side in (self.total, self.good, self.bad) if side for s in side.selectors)


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All SLOs that were read together, with the services they speak of. Names are unique."""

    slos: tuple[Slo, ...]
    services: Mapping[str, str]  # name -> display name
