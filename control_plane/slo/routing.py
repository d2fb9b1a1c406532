"""Which columns of the ledger a series counts in: selectors matched to labels, histogram buckets to thresholds."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import Enum, auto
from typing import Any

from control_plane.slo.events import Selector
from control_plane.slo.increments import SeriesKey
from control_plane.slo.labels import boundary, le_pattern, matches
from control_plane.slo.ledger import Columns
from control_plane.slo.spec import Bucket, Slo

INFINITY = Decimal("Infinity")
Group = frozenset[tuple[str, str]]
"""One histogram: its labels without name and `le`."""


class Role(Enum):
    """What a series is to an SLO."""

    TOTAL = auto()
    GOOD = auto()
    BAD = auto()
    BUCKET = auto()  # a bucket of the histogram whose threshold bucket counts as good


@dataclass(frozen=True, slots=True)
class Match:
    """A series that an SLO reads."""

    slo: int  # index of the SLO
    role: Role
    group: Group | None  # its histogram; None when the SLO has no bucket or the total is another metric
    le: Decimal | None = None  # of a bucket


@dataclass(frozen=True, slots=True)
class Neighbours:
    """The buckets next to a threshold that is no boundary of the histogram. `below` None: there is no lower bucket."""

    below: Decimal | None
    above: Decimal


Resolution = Decimal | Neighbours
"""How a histogram answers for a threshold: by the bucket itself, or by its neighbours."""


@dataclass(slots=True)
class Buckets:
    """What is known of the histograms behind one SLO."""

    bucket: Bucket
    groups: dict[Group, Resolution] = field(default_factory=dict)
    wide: bool = True  # ask for all buckets: some histogram's are not known yet
    blind: bool = False  # a histogram counts, and shows no bucket although all were asked for

    def asked(self) -> frozenset[Decimal] | None:
        """Boundaries to ask for; None: all of them."""
        if self.wide:
            return None
        wanted = {self.bucket.boundary}  # always, so that a bucket that is added later is noticed
        for resolution in self.groups.values():
            if isinstance(resolution, Neighbours):
                wanted |= {resolution.above} | ({resolution.below} if resolution.below is not None else set())
        return frozenset(wanted)

    def selector(self) -> Selector:
        """The buckets to fetch, whatever their spelling."""
        asked = self.asked()
        if asked is None:
            return Selector(self.bucket.metric, self.bucket.matchers)
        spelt = "|".join(le_pattern(value) for value in sorted(asked))
        return Selector(self.bucket.metric, tuple(sorted((*self.bucket.matchers, ("le", "=~", spelt)))))

    def learn(self, seen: Mapping[Group, Iterable[Decimal]], totals: Iterable[Group]) -> bool:
        """Takes in the boundaries that a reading showed, and which histograms counted. True when something changed."""
        before = (dict(self.groups), self.wide)
        complete = self.wide
        for group, boundaries in seen.items():
            if self.bucket.boundary in boundaries:
                self.groups[group] = self.bucket.boundary
            elif complete:
                self.groups[group] = neighbours(self.bucket.boundary, boundaries)
        unknown = [group for group in {*totals, *seen} if group not in self.groups]
        if self.groups or unknown:
            self.wide = bool(unknown)
        self.blind = complete and bool(unknown)
        return before != (self.groups, self.wide)

    def to_json(self) -> list[Any]:
        """What is known, as JSON values."""
        return [
            [sorted(group), *([str(found)] if isinstance(found, Decimal) else [_text(found.below), str(found.above)])]
            for group, found in self.groups.items()
        ]

    def take(self, known: Iterable[Any]) -> None:
        """What `to_json` gave."""
        for group, *found in known:
            key = frozenset((name, value) for name, value in group)
            if len(found) == 1:
                self.groups[key] = Decimal(found[0])
            else:
                self.groups[key] = Neighbours(None if found[0] is None else Decimal(found[0]), Decimal(found[1]))
        self.wide = not self.groups

    def forget(self, alive: Iterable[Group]) -> None:
        """Drops histograms that are gone."""
        alive = set(alive)
        self.groups = {group: found for group, found in self.groups.items() if group in alive}

    def unsure_bad_share(self) -> float:
        """Share of events between the neighbours that is probably slow, as if spread evenly; a half where unbounded."""
        shares = [
            float((found.above - self.bucket.boundary) / (found.above - (found.below or 0)))
            for found in self.groups.values()
            if isinstance(found, Neighbours) and found.above != INFINITY
        ]
        return sum(shares) / len(shares) if shares else 0.5

    def problem(self) -> str | None:
        """Why nothing can be said about latencies; None when something can."""
        return f"{self.bucket.metric} shows no buckets beside its total." if self.blind else None

    def note(self) -> str | None:
        """What a reader of the numbers should know of the buckets; None when they answer exactly."""
        inexact = [found for found in self.groups.values() if isinstance(found, Neighbours)]
        if not inexact:
            return None
        limits = f"{inexact[0].below if inexact[0].below is not None else 0} and {inexact[0].above}"
        return (
            f"{self.bucket.metric} has no bucket at {self.bucket.boundary}: the SLI is known between the buckets "
            f"{limits} only; add the bucket {self.bucket.boundary}."
        )


def _text(value: Decimal | None) -> str | None:
    return None if value is None else str(value)


def neighbours(threshold: Decimal, boundaries: Iterable[Decimal]) -> Neighbours:
    """The buckets next to a threshold, of those that a histogram has."""
    below = [value for value in boundaries if value < threshold]
    above = [value for value in boundaries if value > threshold]
    return Neighbours(max(below) if below else None, min(above) if above else INFINITY)


def _reads(slo: Slo) -> Iterable[tuple[Role, Selector]]:
    """What the SLO reads, and what it takes each for; of a histogram any bucket, since the right one may be missing."""
    for side, role in ((slo.total, Role.TOTAL), (slo.bad, Role.BAD)):
        yield from ((role, selector) for selector in (side.selectors if side else ()))
    if slo.bucket:
        yield Role.BUCKET, Selector(slo.bucket.metric, slo.bucket.matchers)
    elif slo.good:
        yield from ((Role.GOOD, selector) for selector in slo.good.selectors)


class Router:
    """Matches series to SLOs, and remembers each label set, so that it costs once per series and not per tick."""

    def __init__(self, slos: Sequence[Slo], columns: Sequence[Columns]) -> None:
        self._slos = slos
        self._columns = columns
        self._matches: dict[SeriesKey, tuple[Match, ...]] = {}
        self._routes: dict[SeriesKey, tuple[tuple[int, float], ...]] = {}
        self.buckets: dict[int, Buckets] = {i: Buckets(slo.bucket) for i, slo in enumerate(slos) if slo.bucket}
        self._readers: dict[str, list[tuple[int, Role, Selector]]] = {}
        for i, slo in enumerate(slos):
            for role, selector in _reads(slo):
                self._readers.setdefault(selector.metric, []).append((i, role, selector))

    def selectors(self) -> tuple[Selector, ...]:
        """Everything to fetch next."""
        wanted: dict[Selector, None] = {}
        for i, slo in enumerate(self._slos):
            sides = (slo.total, slo.bad) if i in self.buckets else (slo.total, slo.good, slo.bad)
            wanted.update(dict.fromkeys(s for side in sides if side for s in side.selectors))
            if i in self.buckets:
                wanted[self.buckets[i].selector()] = None
        return tuple(wanted)

    def matches(self, key: SeriesKey, labels: Mapping[str, str]) -> tuple[Match, ...]:
        """The SLOs that read a series; empty for a series that came along unasked."""
        known = self._matches.get(key)
        if known is None:
            known = tuple(self._match(labels))
            self._matches[key] = known
        return known

    def _match(self, labels: Mapping[str, str]) -> Iterable[Match]:
        for i, role, selector in self._readers.get(labels.get("__name__", ""), ()):
            if not matches(selector, labels):
                continue
            bucket = self._slos[i].bucket
            if role is Role.BUCKET:
                le = boundary(labels.get("le", ""))
                if le is not None:
                    yield Match(i, role, self._group(i, labels), le)
            else:
                counted = role is Role.TOTAL and bucket is not None
                yield Match(i, role, self._group(i, labels) if counted else None)

    def _group(self, slo: int, labels: Mapping[str, str]) -> Group:
        """The histogram of a series; all of them as one when the total is another metric, which names no histogram."""
        bucket, total = self._slos[slo].bucket, self._slos[slo].total
        if bucket is None or total is None or any(s.metric != bucket.count_metric for s in total.selectors):
            return frozenset()
        return frozenset((name, value) for name, value in labels.items() if name not in ("__name__", "le"))

    def changed(self) -> None:
        """Histograms were learnt or lost: what series count in is worked out anew."""
        self._routes.clear()

    def keep(self, alive: Iterable[SeriesKey]) -> None:
        """Forgets series that are gone."""
        self._matches = {key: self._matches[key] for key in alive if key in self._matches}
        self._routes.clear()
        for i, buckets in self.buckets.items():
            buckets.forget(
                match.group
                for found in self._matches.values()
                for match in found
                if match.slo == i and match.group is not None
            )

    def route(self, key: SeriesKey) -> tuple[tuple[int, float], ...]:
        """Columns that a matched series' events are added to, each with its sign."""
        route = self._routes.get(key)
        if route is None:
            route = tuple(step for match in self._matches[key] for step in self._steps(match))
            self._routes[key] = route
        return route

    def _steps(self, match: Match) -> tuple[tuple[int, float], ...]:
        columns = self._columns[match.slo]
        if match.role is Role.BAD:
            return ((columns.bad, 1.0),)
        if match.role is Role.GOOD:
            return ((columns.bad, -1.0),)
        if columns.unsure is None:  # no bucket: good or bad is counted outright
            counts_as_bad = self._slos[match.slo].good is not None
            return ((columns.total, 1.0), (columns.bad, 1.0)) if counts_as_bad else ((columns.total, 1.0),)
        resolution = self.buckets[match.slo].groups.get(match.group or frozenset())
        if match.role is Role.TOTAL:
            return ((columns.total, 1.0), (columns.unsure if resolution is None else columns.bad, 1.0))
        if isinstance(resolution, Neighbours):
            if match.le == resolution.above:
                return ((columns.bad, -1.0), (columns.unsure, 1.0))
            return ((columns.unsure, -1.0),) if match.le == resolution.below else ()
        return ((columns.bad, -1.0),) if match.le == resolution else ()
