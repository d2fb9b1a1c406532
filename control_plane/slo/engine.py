"""The SLO engine: takes in counter readings, keeps the ledger, and tells the state of every SLO."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
from numpy.typing import NDArray

from control_plane.slo.evaluate import LoadTest, SloLedger, evaluate
from control_plane.slo.events import Selector, Series
from control_plane.slo.exclusions import Exclusion, excluded_spans
from control_plane.slo.increments import (
    Floats,
    Reading,
    SeriesKey,
    TargetKey,
    increments,
    series_key,
    spread,
    target_key,
)
from control_plane.slo.labels import written
from control_plane.slo.ledger import DAY, HOUR, MINUTE, RESOLUTIONS, Columns, Indices, Ledger
from control_plane.slo.routing import Group, Match, Role, Router
from control_plane.slo.slices import Judgement, SliceJudge
from control_plane.slo.snapshot import UnreadableSnapshot, pack, unpack
from control_plane.slo.spec import Slo
from control_plane.slo.state import SloState

UP = Selector("up")
"""Prometheus's own series of each scrape: it tells a series that was just born from one whose target is new."""
OVERLAP = timedelta(seconds=30)
"""How far a reading reaches back beyond the last one, so that late samples are still found."""
RAW_REACH = timedelta(minutes=15)
"""Longest gap that is filled with raw samples; a longer one is filled with readings every HISTORY_STEP."""
HISTORY_STEP = timedelta(minutes=1)
HISTORY_PART = timedelta(days=1)
"""One request for history, so that memory stays bounded."""
SPACING_SECONDS = 30.0
"""Two samples this far apart are neighbours; further apart, there is a gap between them."""
CLOCK_LEEWAY_SECONDS = 60.0
"""A sample further ahead of the reading's own time than this is refused: a clock jumped."""
FORGET_AFTER = 1 * DAY
"""Seconds after its last sample at which a series or a target is forgotten."""


@dataclass(slots=True)
class Feed:
    """What the engine knows of one SLO's source."""

    first_seen: float | None = None
    last_sample_at: float | None = None
    measured_until: float = -math.inf  # end of the newest scrape slot that was counted as measured
    problem: str | None = None


@dataclass(frozen=True, slots=True)
class HistoryPart:
    """One request for readings of the past."""

    start: datetime
    end: datetime
    step: timedelta


@dataclass(slots=True)
class Target:
    """A scraped process: when it was seen first and last, over all its series."""

    first_seen: float
    last_seen: float


@dataclass(frozen=True, slots=True)
class _Arrival:
    """A series of the reading that some SLO reads."""

    key: SeriesKey
    target: TargetKey
    matches: tuple[Match, ...]
    times: Floats
    values: Floats


class SloEngine:
    """One state machine for all SLOs: `observe` readings in order of time, ask for `states` at any moment."""

    def __init__(self, slos: Sequence[Slo]) -> None:
        self.slos = tuple(slos)
        self.columns = columns_of(self.slos)
        self.ledger = Ledger(sum(place >= 0 for columns in self.columns for place in _as_list(columns)))
        self.router = Router(self.slos, self.columns)
        self.feeds = [Feed() for _ in self.slos]
        self.judges = {
            i: SliceJudge(slo.slices, self.columns[i]) for i, slo in enumerate(self.slos) if slo.slices and slo.total
        }
        self.readings: dict[SeriesKey, Reading] = {}
        self.targets: dict[TargetKey, Target] = {}
        self._asked: dict[int, frozenset[Decimal] | None] = {}  # bucket boundaries that the last reading asked for
        self._forgot_at = -math.inf
        self.newest_sample_at: float | None = None  # of any series; the samples' own time, so no clock can move it
        self.failure: str | None = None  # why the newest reading failed; None: it did not

    @property
    def selectors(self) -> tuple[Selector, ...]:
        """Counters to fetch next. Ask again before each reading: it narrows once a histogram's buckets are known."""
        return (*self.router.selectors(), UP)

    def reach(self, now: datetime) -> timedelta:
        """How far back the next reading of raw samples must go to leave no gap, at most RAW_REACH."""
        slowest = max((slo.scrape_interval for slo in self.slos), default=timedelta(0))
        overlap = max(OVERLAP, 4 * slowest)
        if self.newest_sample_at is None:
            return overlap
        missed = timedelta(seconds=max(0.0, now.timestamp() - self.newest_sample_at))
        return min(RAW_REACH, missed + overlap)

    def backfill(self, now: datetime) -> tuple[HistoryPart, ...]:
        """What to ask history for before the next reading, oldest first; nothing if the gap is at most RAW_REACH."""
        end = math.floor(now.timestamp() / MINUTE) * MINUTE
        start = end - RESOLUTIONS[-1][1]
        if self.newest_sample_at is not None:
            start = max(start, math.floor(self.newest_sample_at / MINUTE) * MINUTE)
            if end - start <= RAW_REACH.total_seconds():
                return ()
        parts = []
        while start < end:
            until = min(end, start + int(HISTORY_PART.total_seconds()))
            parts.append(HistoryPart(_at(start, now), _at(until, now), HISTORY_STEP))
            start = until
        return tuple(parts)

    def observe(self, series: Iterable[Series], at: datetime, step: timedelta | None = None) -> None:
        """Takes in readings up to `at`. Samples that were seen before are ignored, late ones find their place.

        `step` is the distance of readings from history, each standing for the time since the one before; None: raw.
        Readings of history come before raw ones: of each series, only samples newer than its last one count.
        """
        self.failure = None
        arrivals, scrapes = self._arrivals(series, at.timestamp() + CLOCK_LEEWAY_SECONDS)
        asked = {i: buckets.asked() for i, buckets in self.router.buckets.items()}
        self._learn_buckets(arrivals)
        spacing = max(SPACING_SECONDS, 1.5 * step.total_seconds() if step else 0.0)
        batch = _Batch()
        doubtful: set[int] = set()
        for arrival in arrivals:
            previous = self.readings.get(arrival.key)
            born = previous is None and self._born(arrival, scrapes[arrival.target])
            found = increments(previous, born, arrival.times, arrival.values)
            if found.saw_nan:
                doubtful.update(match.slo for match in arrival.matches)
            if found.last is None or found.last is previous:
                continue
            self.readings[arrival.key] = found.last
            for match in arrival.matches:
                if match.role is Role.TOTAL:
                    batch.seen.setdefault(match.slo, []).append(found.seen)
            times, amounts = spread(found, spacing, MINUTE)
            if len(times):
                for column, sign in self.router.route(arrival.key):
                    batch.add(column, times, amounts * sign)
        self._asked = asked
        self._remember_targets(scrapes)
        for i, seen in batch.seen.items():
            self._measure(i, np.unique(np.concatenate(seen)), batch, step)
        self._count(batch)
        for i, feed in enumerate(self.feeds):
            feed.problem = None
            if i in doubtful:
                feed.problem = "A counter reads NaN."
            elif i in self.router.buckets:
                feed.problem = self.router.buckets[i].problem()
        self._forget()

    def observe_failure(self, reason: str, at: datetime) -> None:
        """A reading could not be had: every SLO is unknown until the next one. What was counted stays."""
        del at  # the age of the data tells the rest
        self.failure = reason

    def states(
        self,
        now: datetime,
        exclusions: Iterable[Exclusion] = (),
        load_tests: Mapping[str, LoadTest] | None = None,
    ) -> tuple[SloState, ...]:
        """The state of every SLO at `now`, in the order of the catalogue. `load_tests` by service."""
        exclusions = tuple(exclusions)
        self._pin(exclusions, now.timestamp())
        tests = load_tests or {}
        return tuple(
            evaluate(slo, self.view(i), now, exclusions, tests.get(slo.service)) for i, slo in enumerate(self.slos)
        )

    def view(self, index: int) -> SloLedger:
        """One SLO's part of the ledger."""
        feed, buckets = self.feeds[index], self.router.buckets.get(index)
        note = buckets.note() if buckets else None
        return SloLedger(
            ledger=self.ledger,
            columns=self.columns[index],
            first_seen=feed.first_seen,
            last_sample_at=feed.last_sample_at,
            problem=self.failure or feed.problem,
            unsure_bad_share=buckets.unsure_bad_share() if buckets else 0.5,
            notes=(note,) if note else (),
        )

    def _arrivals(self, series: Iterable[Series], latest: float) -> tuple[list[_Arrival], dict[TargetKey, Target]]:
        """The series that SLOs read, and when each target was scraped first and last in this reading."""
        arrivals: list[_Arrival] = []
        scrapes: dict[TargetKey, Target] = {}
        for each in series:
            times, values = each.timestamps, each.values
            if len(times) and times[-1] > latest:
                times, values = times[times <= latest], values[times <= latest]
            if each.labels.get("__name__") == UP.metric:
                matches: tuple[Match, ...] = ()
                key: SeriesKey = frozenset()
                times = times[values == 1]
            else:
                key = series_key(each.labels)
                matches = self.router.matches(key, each.labels)
                if not matches:
                    continue
            if not len(times):
                continue
            target, first, last = target_key(each.labels), float(times[0]), float(times[-1])
            known = scrapes.setdefault(target, Target(first, last))
            known.first_seen, known.last_seen = min(known.first_seen, first), max(known.last_seen, last)
            if matches:
                arrivals.append(_Arrival(key, target, matches, times, values))
        return arrivals, scrapes

    def _learn_buckets(self, arrivals: Iterable[_Arrival]) -> None:
        shown: dict[int, dict[Group, set[Decimal]]] = {i: {} for i in self.router.buckets}
        totals: dict[int, set[Group]] = {i: set() for i in self.router.buckets}
        for arrival in arrivals:
            for match in arrival.matches:
                if match.group is None:
                    continue
                if match.le is not None:
                    shown[match.slo].setdefault(match.group, set()).add(match.le)
                else:
                    totals[match.slo].add(match.group)
        changed = [buckets.learn(shown[i], totals[i]) for i, buckets in self.router.buckets.items()]
        if any(changed):
            self.router.changed()

    def _born(self, arrival: _Arrival, scrapes: Target) -> bool:
        """Whether a series that was never seen began under our eyes: its target was scraped before without it.

        Not so when it was not asked for until now or its whole target is new: nobody knows since when it runs.
        """
        first = float(arrival.times[0])
        if scrapes.first_seen < first:
            return True
        target = self.targets.get(arrival.target)
        if target is None or target.last_seen >= first:
            return False
        return all(self._was_asked(match) for match in arrival.matches)

    def _was_asked(self, match: Match) -> bool:
        wanted = self._asked.get(match.slo)
        return match.le is None or wanted is None or match.le in wanted

    def _remember_targets(self, scrapes: Mapping[TargetKey, Target]) -> None:
        for key, seen in scrapes.items():
            target = self.targets.setdefault(key, seen)
            target.last_seen = max(target.last_seen, seen.last_seen)
            self.newest_sample_at = max(seen.last_seen, self.newest_sample_at or -math.inf)

    def _measure(self, index: int, seen: Floats, batch: _Batch, step: timedelta | None) -> None:
        """Notes which scrape slots of the total were measured, each once, however many series filled it."""
        feed = self.feeds[index]
        feed.first_seen = float(seen[0]) if feed.first_seen is None else min(feed.first_seen, float(seen[0]))
        feed.last_sample_at = max(float(seen[-1]), feed.last_sample_at or -math.inf)
        width = (step or self.slos[index].scrape_interval).total_seconds()
        ends = np.unique(np.ceil(seen / width)) * width
        ends = ends[ends > feed.measured_until]
        if len(ends):
            feed.measured_until = float(ends[-1])
            batch.add(self.columns[index].measured, ends, np.full(len(ends), width))

    def _count(self, batch: _Batch) -> None:
        """Adds events to the ledger and judges time slices, hour by hour: old minutes are not held for long."""
        columns, times, amounts = batch.joined()
        if not len(times):
            return
        order = np.argsort(times, kind="stable")
        columns, times, amounts = columns[order], times[order], amounts[order]
        cuts = np.searchsorted(times, np.arange(times[0] + HOUR, times[-1], HOUR))
        for part in np.split(np.arange(len(times)), cuts):
            if len(part):
                self.ledger.add(columns[part], times[part], amounts[part])
                self._judge(columns[part], times[part])

    def _judge(self, columns: Indices, times: Floats) -> None:
        found: list[tuple[int, float, float]] = []
        for judge in self.judges.values():
            own = judge.columns
            touched = times[(columns == own.total) | (columns == own.bad) | (columns == own.measured)]
            measured = times[columns == own.measured]
            if not len(touched) or own.slices is None or own.bad_slices is None:
                continue
            newest = float(measured[-1]) if len(measured) else None
            for end, judged, bad in judge.corrections(self.ledger, float(touched[0]), newest):
                found += [(own.slices, end, float(judged)), (own.bad_slices, end, float(bad))]
        if found:
            slots, ends, changes = zip(*found, strict=True)
            self.ledger.add(np.array(slots), np.array(ends), np.array(changes))

    def _pin(self, exclusions: Iterable[Exclusion], now: float) -> None:
        """Keeps the edges of exclusions exactly, from the first moment that they are known."""
        edges = {
            edge for slo in self.slos for span in excluded_spans(slo, exclusions, now) for edge in span if edge <= now
        }
        if edges:
            self.ledger.pin(sorted(edges))

    def _forget(self) -> None:
        """Drops what is known of series and targets that are long gone, once they are the many."""
        newest = self.ledger.newest
        if newest is None or newest - self._forgot_at < HOUR:
            return
        self._forgot_at = newest
        gone = newest - FORGET_AFTER
        self.readings = {key: reading for key, reading in self.readings.items() if reading.at >= gone}
        self.targets = {key: target for key, target in self.targets.items() if target.last_seen >= gone}
        self.router.keep(self.readings)

    def snapshot(self) -> bytes:
        """Everything the engine remembers."""
        series = [[sorted(key), reading.at, reading.value] for key, reading in self.readings.items()]
        header = {
            "newest_sample_at": self.newest_sample_at,
            "slos": {slo.name: self._slo_header(i) for i, slo in enumerate(self.slos)},
            "series": series,
            "targets": [[*key, target.first_seen, target.last_seen] for key, target in self.targets.items()],
        }
        return pack(header, self.ledger.arrays())

    def _slo_header(self, index: int) -> dict[str, Any]:
        feed, judge, buckets = self.feeds[index], self.judges.get(index), self.router.buckets.get(index)
        return {
            "signature": _signature(self.slos[index]),
            "columns": _as_list(self.columns[index]),
            "first_seen": feed.first_seen,
            "last_sample_at": feed.last_sample_at,
            "measured_until": None if feed.measured_until == -math.inf else feed.measured_until,
            "judged": [[k, int(v)] for k, v in judge.judged.items()] if judge else [],
            "next_slice": judge.next_slice if judge else None,
            "buckets": buckets.to_json() if buckets else None,
        }

    @classmethod
    def restore(cls, slos: Sequence[Slo], data: bytes) -> SloEngine:
        """An engine that goes on where the snapshot ended. Raises UnreadableSnapshot.

        An SLO that is new, or that now counts other events, starts empty; its target and title may have changed.
        """
        header, arrays = unpack(data)
        engine = cls(slos)
        try:
            engine._take(header, arrays)
        except (KeyError, TypeError, ValueError, IndexError) as error:
            raise UnreadableSnapshot(f"the snapshot does not fit: {error!r}") from error
        return engine

    def _take(self, header: Mapping[str, Any], arrays: Mapping[str, NDArray[Any]]) -> None:
        source = np.full(self.ledger.columns, -1, dtype=np.int64)
        for i, slo in enumerate(self.slos):
            held = header["slos"].get(slo.name)
            if held is None or held["signature"] != _signature(slo):
                continue
            for here, there in zip(_as_list(self.columns[i]), held["columns"], strict=True):
                if here >= 0:
                    source[here] = there
            self.feeds[i] = Feed(
                held["first_seen"],
                held["last_sample_at"],
                -math.inf if held["measured_until"] is None else held["measured_until"],
            )
            if i in self.judges:
                self.judges[i].judged = {int(k): Judgement(v) for k, v in held["judged"]}
                self.judges[i].next_slice = held["next_slice"]
            if i in self.router.buckets:
                self.router.buckets[i].take(held["buckets"])
        self.ledger = Ledger.of_arrays(arrays, source)
        self.readings = {frozenset((n, v) for n, v in key): Reading(at, value) for key, at, value in header["series"]}
        self.targets = {(job, instance): Target(a, b) for job, instance, a, b in header["targets"]}
        self.newest_sample_at = header["newest_sample_at"]
        self._asked = {i: buckets.asked() for i, buckets in self.router.buckets.items()}


class _Batch:
    """Events of one reading on their way to the ledger."""

    def __init__(self) -> None:
        self.seen: dict[int, list[Floats]] = {}  # by SLO: times of new samples of its total
        self._columns: list[Indices] = []
        self._times: list[Floats] = []
        self._amounts: list[Floats] = []

    def add(self, column: int, times: Floats, amounts: Floats) -> None:
        self._columns.append(np.full(len(times), column, dtype=np.int64))
        self._times.append(times)
        self._amounts.append(amounts)

    def joined(self) -> tuple[Indices, Floats, Floats]:
        if not self._times:
            return np.empty(0, dtype=np.int64), np.empty(0), np.empty(0)
        return np.concatenate(self._columns), np.concatenate(self._times), np.concatenate(self._amounts)


def columns_of(slos: Sequence[Slo]) -> tuple[Columns, ...]:
    """Places in the ledger, only as many as each SLO needs."""
    free = itertools.count()
    return tuple(
        Columns(
            total=next(free),
            bad=next(free),
            measured=next(free),
            unsure=next(free) if slo.bucket else None,
            slices=next(free) if slo.slices else None,
            bad_slices=next(free) if slo.slices else None,
        )
        for slo in slos
    )


def _as_list(columns: Columns) -> list[int]:
    return [-1 if place is None else place for place in astuple(columns)]


def _signature(slo: Slo) -> str:
    """Changes when the SLO counts other events than before."""
    slices = (str(slo.slices.width), str(slo.slices.target)) if slo.slices else None
    sides = [[written(s) for s in side.selectors] if side else None for side in (slo.total, slo.good, slo.bad)]
    return json.dumps([sides, slices])


def _at(seconds: float, like: datetime) -> datetime:
    return datetime.fromtimestamp(seconds, like.tzinfo)
