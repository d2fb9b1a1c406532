"""What the SLO engine costs a tick, for the SLOs of `slos/` and for many times as many, on series made up in memory."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta

import numpy as np

from control_plane.adapters.slo_files import read_texts
from control_plane.local.bench.machine import REPOSITORY
from control_plane.local.bench.page import Result, Table
from control_plane.slo import loading
from control_plane.slo.engine import SloEngine
from control_plane.slo.events import Selector, Series
from control_plane.slo.spec import Bucket, Counters, Slo

MIB = 1024**2
EVERY = timedelta(seconds=5)
START = datetime(2026, 1, 1, tzinfo=UTC)
TIMES = (1, 10, 100)
"""How often each SLO of `slos/` stands in the catalogue."""

REPLICAS = 2
ENDPOINTS = ("/a", "/a/{id}", "/b", "/b/{id}", "/c")
"""A replica of the suite exports a histogram an endpoint."""

REQUESTS_PER_SECOND = 10.0  # of each series of totals
GOOD_SHARE = 0.99
BAD_SHARE = 0.0005


@dataclass(frozen=True, slots=True)
class Counting:
    """A counter that is scraped: its labels, how often, and how fast it counts."""

    labels: dict[str, str]
    every: float  # seconds
    rate: float  # events a second

    def samples(self, start: float, end: float) -> Series:
        """As Prometheus would answer for (`start`, `end`], in Unix seconds."""
        first = int(start // self.every) + 1
        times = np.arange(first, int(end // self.every) + 1, dtype=np.float64) * self.every
        return Series(self.labels, times, np.floor((times - START.timestamp() + 1e6) * self.rate))


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one kind of tick."""

    slos: int
    series: int
    samples: int  # read in one tick
    first_seconds: float  # the tick that meets every series for the first time
    observe_seconds: tuple[float, ...]
    states_seconds: tuple[float, ...]
    cpu_seconds: tuple[float, ...]  # of both
    ledger_bytes: int  # once it holds all that it may


def copies(slos: Sequence[Slo], times: int) -> tuple[Slo, ...]:
    """Each SLO `times` times, every copy of a service of its own."""
    return tuple(slos) + tuple(_copy(slo, number) for number in range(1, times) for slo in slos)


def counters(slos: Iterable[Slo]) -> list[Counting]:
    """The series behind SLOs, as the local stack has them, and `up` of every target; each once."""
    found: dict[frozenset[tuple[str, str]], Counting] = {}
    for slo in slos:
        for side, rate in ((slo.total, 1.0), (slo.good, GOOD_SHARE), (slo.bad, BAD_SHARE)):
            for selector in side.selectors if side else ():
                assert side is not None  # noqa: S101 - the line above
                for each in _series_of(selector, side.scrape_interval.total_seconds(), rate * REQUESTS_PER_SECOND):
                    found.setdefault(frozenset(each.labels.items()), each)
    targets = {(each.labels["job"], each.labels["instance"], each.every) for each in found.values()}
    scrapes = [
        Counting({"__name__": "up", "job": job, "instance": at}, every, 0.0) for job, at, every in sorted(targets)
    ]
    return [*found.values(), *scrapes]


def measure(times: Sequence[int] = TIMES, ticks: int = 20, tell: Callable[[str], None] = lambda _: None) -> Result:
    """One engine after another, each larger than the last."""
    slos = loading.load(read_texts([REPOSITORY / "slos"])).slos
    costs = []
    for many in times:
        tell(f"tick: {many * len(slos)} SLOs")
        costs.append(cost(copies(slos, many), ticks if many < 100 else 3))
    tell("tick: 35 days of history")
    return result(costs, *history(slos))


def cost(slos: Sequence[Slo], ticks: int) -> Cost:
    """Ticks five seconds apart, as the loop makes them: a reading of the last half minute, then every state."""
    gc.collect()
    engine = SloEngine(slos)
    sources = counters(slos)
    observed, stated, used, samples = [], [], [], 0
    for number in range(ticks + 1):
        now = START + (number + 10) * EVERY
        end = now.timestamp()
        reading = [source.samples(end - engine.reach(now).total_seconds(), end) for source in sources]
        samples = sum(len(each.timestamps) for each in reading)
        cpu, wall = time.process_time(), time.perf_counter()
        engine.observe(reading, now)
        between = time.perf_counter()
        engine.states(now)
        observed.append(between - wall)
        stated.append(time.perf_counter() - between)
        used.append(time.process_time() - cpu)
    return Cost(
        slos=len(slos),
        series=len(sources),
        samples=samples,
        first_seconds=observed[0] + stated[0],
        observe_seconds=tuple(observed[1:]),
        states_seconds=tuple(stated[1:]),
        cpu_seconds=tuple(used[1:]),
        ledger_bytes=sum(each.nbytes for each in engine.ledger.arrays().values()),
    )


def history(slos: Sequence[Slo]) -> tuple[float, float]:
    """Seconds to take in 35 days of history, and of a tick with them behind it."""
    engine, sources = SloEngine(slos), counters(slos)
    now = START + timedelta(days=40)
    began = time.perf_counter()
    for part in engine.backfill(now):
        step = part.step.total_seconds()
        reading = [
            replace(source, every=step).samples(part.start.timestamp() - 1, part.end.timestamp()) for source in sources
        ]
        engine.observe(reading, part.end, part.step)
    filled = time.perf_counter() - began
    ticks = []
    for number in range(1, 11):
        at = now + number * EVERY
        end = at.timestamp()
        reading = [source.samples(end - engine.reach(at).total_seconds(), end) for source in sources]
        began = time.perf_counter()
        engine.observe(reading, at)
        engine.states(at)
        ticks.append(time.perf_counter() - began)
    return filled, statistics.median(ticks)


def result(costs: Sequence[Cost], filled_seconds: float, tick_seconds: float) -> Result:
    """The part of the page."""
    rows = tuple(
        (
            str(each.slos),
            f"{each.series} ({each.samples} samples)",
            _milliseconds(statistics.median(each.observe_seconds)),
            _milliseconds(statistics.median(each.states_seconds)),
            _milliseconds(max(a + b for a, b in zip(each.observe_seconds, each.states_seconds, strict=True))),
            _milliseconds(statistics.mean(each.cpu_seconds)),
            f"{statistics.mean(each.cpu_seconds) / EVERY.total_seconds():.1%}",
            _milliseconds(each.first_seconds),
            f"{each.ledger_bytes / MIB:.0f} MiB",
        )
        for each in costs
    )
    headings = ("SLOs", "series", "observe", "states", "worst tick", "CPU", "of a core at 5 s", "first tick", "ledger")
    return Result(
        "tick",
        tables=(Table(headings, rows),),
        notes=(
            "Medians, if nothing else is said, of `SloEngine.observe` and `SloEngine.states` in one process, on "
            f"made-up samples of the last 35 s (gateway 1 s apart, {REPLICAS} replicas 5 s apart). Asking "
            "Prometheus, attribution, the decision and the database come on top: the stack's own tick, above, has "
            "all of it. The first tick meets every series for the first time. The ledger is its size when full.",
            f"With 35 days of history behind them the {costs[0].slos} SLOs take {_milliseconds(tick_seconds)} a tick: "
            f"windows cost nothing. Taking that history in (a reading a minute, {costs[0].series} series) takes "
            f"{filled_seconds:.1f} s, once.",
        ),
    )


def _series_of(selector: Selector, every: float, rate: float) -> Iterator[Counting]:
    labels = {label: value for label, operator, value in selector.matchers if operator == "="}
    labels["__name__"] = selector.metric
    if "service" not in labels:
        yield Counting({**labels, "job": "gateway", "instance": "gateway:9901"}, every, rate)
        return
    for replica in range(REPLICAS):
        target = {"job": "suite", "instance": f"{labels['service']}-{replica}:80"}
        for endpoint in ENDPOINTS if "duration" in selector.metric else ENDPOINTS[:1]:
            yield Counting({**labels, **target, "endpoint": endpoint, "method": "GET"}, every, rate)


def _copy(slo: Slo, number: int) -> Slo:
    service = f"{slo.service}-{number}"

    def renamed(matchers: tuple[tuple[str, str, str], ...]) -> tuple[tuple[str, str, str], ...]:
        return tuple((label, op, service if value == slo.service else value) for label, op, value in matchers)

    def side(counted: Counters | None) -> Counters | None:
        if counted is None:
            return None
        return replace(
            counted, selectors=tuple(replace(each, matchers=renamed(each.matchers)) for each in counted.selectors)
        )

    bucket: Bucket | None = slo.bucket and replace(slo.bucket, matchers=renamed(slo.bucket.matchers))
    return replace(
        slo,
        name=f"{slo.name}-{number}",
        service=service,
        total=side(slo.total),
        good=side(slo.good),
        bad=side(slo.bad),
        bucket=bucket,
    )


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f} ms" if seconds < 0.1 else f"{seconds * 1000:.0f} ms"
