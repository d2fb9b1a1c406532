"""From counted events to what is known of one SLO: verdict, SLI, burn rates, budget, coverage."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from control_plane.slo.alerts import TIERS, alert_state
from control_plane.slo.burn_rate import Tally, budget_remaining, burn_rate, time_to_exhaustion
from control_plane.slo.durations import format_duration
from control_plane.slo.events import EventCounts
from control_plane.slo.exclusions import Exclusion, Span, excluded_spans
from control_plane.slo.ledger import Columns, Floats, Ledger
from control_plane.slo.recent import recent_events
from control_plane.slo.spec import Slo
from control_plane.slo.state import AlertState, Kind, SloState, Verdict
from control_plane.slo.windows import BURN_WINDOWS

STALE_AFTER_SCRAPES = 2
SCRAPE_GRACE = timedelta(seconds=2)
"""What a scrape and the query for it may take on a busy machine before the data counts as stale."""
CLOCK_LEEWAY = timedelta(seconds=60)
"""How far in the future of our clock a sample may lie before one of the two clocks is wrong."""
QUIET_AFTER = timedelta(minutes=5)
"""Without an event for so long, an SLO that is being measured has no traffic."""
CONTRADICTION = 0.01
"""Share of the total by which bad events may exceed it, since two metrics are not read at the same instant."""


@dataclass(frozen=True, slots=True)
class SloLedger:
    """One SLO's part of the ledger, with what is known of its source."""

    ledger: Ledger
    columns: Columns
    first_seen: float | None = None  # Unix seconds of the first sample of the total ever seen
    last_sample_at: float | None = None
    problem: str | None = None  # why the newest reading of the source is no evidence; None: it is
    unsure_bad_share: float = 0.5  # share of `unsure` events that is probably bad
    notes: tuple[str, ...] = ()  # what a reader of the numbers should know, e.g. a missing bucket

    def tally(self, start: float, end: float, *, slices: bool = False) -> Tally:
        """Events (or judged time slices) in (`start`, `end`]."""
        return self._difference(self.ledger.at(start), self.ledger.at(end), slices)

    def tally_without(self, spans: Iterable[Span], start: float, end: float, *, slices: bool = False) -> Tally:
        """The same without the events inside `spans`."""
        tally = self.tally(start, end, slices=slices)
        for left_out_from, left_out_to in spans:
            first, last = max(start, left_out_from), min(end, left_out_to)
            if first < last:
                tally = tally.minus(self.tally(first, last, slices=slices))
        return tally

    def measured_seconds(self, start: float, end: float) -> float:
        """Time in (`start`, `end`] in which the total was sampled."""
        return float(self.ledger.at(end)[self.columns.measured] - self.ledger.at(start)[self.columns.measured])

    def _difference(self, before: Floats, after: Floats, slices: bool) -> Tally:
        columns = self.columns
        if slices and columns.slices is not None and columns.bad_slices is not None:
            total, bad, unsure = columns.slices, columns.bad_slices, None
        else:
            total, bad, unsure = columns.total, columns.bad, columns.unsure
        return Tally(
            total=float(after[total] - before[total]),
            bad=float(after[bad] - before[bad]),
            unsure=float(after[unsure] - before[unsure]) if unsure is not None else 0.0,
            unsure_bad_share=self.unsure_bad_share,
        )


@dataclass(frozen=True, slots=True)
class LoadTest:
    """The last recorded load test of a service: the only thing that can judge a capacity objective."""

    at: datetime
    commit: str
    requests_per_second: float  # sustained with correct answers
    share_of_seconds: float  # seconds of the test in which the rate held


def evaluate(
    slo: Slo,
    ledger: SloLedger,
    now: datetime,
    exclusions: Iterable[Exclusion] = (),
    load_test: LoadTest | None = None,
) -> SloState:
    """Everything known of one SLO at `now`. Nothing is rounded before it is compared.

    Unknown comes first: of a source that is missing, stale, contradictory or in error nothing is concluded, neither
    good nor bad nor zero.
    """
    if slo.kind is Kind.THROUGHPUT:
        return _capacity(slo, now, load_test)
    end = float(math.ceil(now.timestamp()))
    spans = excluded_spans(slo, exclusions, end)
    slices = slo.slices is not None
    start = end - slo.objective.window.total_seconds()
    counted = ledger.tally_without(spans, start, end, slices=slices)
    events = {
        name: ledger.tally_without(spans, end - window.total_seconds(), end, slices=slices).estimate
        for name, window in BURN_WINDOWS.items()
    }
    first_seen = _utc(ledger.first_seen)
    age = None if first_seen is None else max(timedelta(0), now - first_seen)
    alerts = tuple(alert_state(tier, slo.objective, events, age) for tier in TIERS)
    burn_rates = {name: burn_rate(found, slo.objective) for name, found in events.items()}
    remaining = budget_remaining(counted.estimate, slo.objective)
    coverage, measured = _coverage(slo, ledger, start, end)
    doubt = _doubt(slo, ledger, now, end)
    if doubt is not None:
        verdict, reason = Verdict.UNKNOWN, doubt
        alerts = tuple(_held(alert) for alert in alerts)
    elif ledger.tally(end - QUIET_AFTER.total_seconds(), end).total <= 0:
        quiet = format_duration(QUIET_AFTER)
        verdict, reason = Verdict.NO_TRAFFIC, f"No request in the last {quiet}; the counters are there and stand still."
        alerts = tuple(_held(alert) for alert in alerts)
    else:
        verdict, reason = _judged(alerts, remaining, counted.estimate)
    return SloState(
        name=slo.name,
        service=slo.service,
        kind=slo.kind,
        target=slo.objective.target_text,
        window=slo.objective.window,
        verdict=verdict,
        reason=" ".join((reason, *ledger.notes)),
        sli=counted.sli,
        sli_without_exclusions=ledger.tally(start, end, slices=slices).sli,
        budget_remaining_ratio=remaining,
        burn_rates=burn_rates,
        alerts=alerts,
        coverage_ratio=coverage,
        measured_ratio=measured,
        events=counted.estimate if counted.total > 0 else None,
        time_to_exhaustion=time_to_exhaustion(remaining, burn_rates["1h"], slo.objective),
        first_seen=first_seen,
        last_sample_at=_utc(ledger.last_sample_at),
        as_of=now,
        recent=recent_events(ledger.ledger, ledger.columns, slo.scrape_interval.total_seconds(), spans),
    )


def stale_after(slo: Slo) -> timedelta:
    """Age of the newest sample from which on it says nothing about now."""
    return STALE_AFTER_SCRAPES * slo.scrape_interval + SCRAPE_GRACE


def _doubt(slo: Slo, ledger: SloLedger, now: datetime, end: float) -> str | None:
    """Why the data is no evidence about now, in one sentence; None when it is."""
    if ledger.problem is not None:
        return ledger.problem
    last = _utc(ledger.last_sample_at)
    if last is None:
        metric = slo.total.selectors[0].metric if slo.total else "its counter"
        return f"The total was never seen: Prometheus has no series of {metric} for this SLO."
    age = now - last
    if age > stale_after(slo):
        every = format_duration(slo.scrape_interval)
        return f"The newest sample is {age.total_seconds():.0f} s old, and one is due every {every}."
    if age < -CLOCK_LEEWAY:
        return f"The newest sample is {-age.total_seconds():.0f} s ahead of this clock: one of the two clocks is wrong."
    for window in ("5m", "1h"):
        seen = ledger.tally(end - BURN_WINDOWS[window].total_seconds(), end)
        if seen.bad - seen.total > max(1.0, CONTRADICTION * seen.total):
            return (
                f"More bad events than events in {window}: {seen.bad:.0f} of {seen.total:.0f}; the counters disagree."
            )
        if -seen.bad > max(1.0, CONTRADICTION * seen.total):
            return f"More good events than events in {window}: {seen.total:.0f} in all; the counters disagree."
    return None


def _judged(alerts: tuple[AlertState, ...], remaining: float | None, events: EventCounts) -> tuple[Verdict, str]:
    """Verdict and reason of an SLO whose data can be trusted."""
    for alert in alerts:
        if alert.firing and alert.long_burn_rate is not None and alert.short_burn_rate is not None:
            return (
                Verdict.PAGE if alert.severity == "page" else Verdict.TICKET,
                f"The budget burns {alert.long_burn_rate:.1f}x as fast as it may over "
                f"{format_duration(alert.long_window)} and {alert.short_burn_rate:.1f}x over "
                f"{format_duration(alert.short_window)}, above {alert.factor:.3g}x.",
            )
    if remaining is None:
        return Verdict.OK, "All events in the window are excluded."
    if remaining < 0:
        return (
            Verdict.OK,
            f"The budget is overspent ({events.bad:.0f} bad of {events.total:.0f}), and burns no faster now.",
        )
    return Verdict.OK, "The budget burns within its limits."


def _held(alert: AlertState) -> AlertState:
    return AlertState(
        tier=alert.tier,
        severity=alert.severity,
        long_window=alert.long_window,
        short_window=alert.short_window,
        factor=alert.factor,
        long_burn_rate=alert.long_burn_rate,
        short_burn_rate=alert.short_burn_rate,
        firing=False,
    )


def _coverage(slo: Slo, ledger: SloLedger, start: float, end: float) -> tuple[float | None, float | None]:
    """Measured share of what should have been since first seen, and of the whole window. None before the first sample.

    The newest scrapes may still be on their way, so that much is not yet expected.
    """
    if ledger.first_seen is None:
        return None, None
    measured = ledger.measured_seconds(start, end)
    interval = slo.scrape_interval.total_seconds()
    since = max(start, ledger.first_seen - interval)
    expected = end - since - stale_after(slo).total_seconds()
    coverage = 1.0 if expected <= 0 else min(1.0, measured / expected)
    return coverage, min(1.0, measured / (end - start))


def _capacity(slo: Slo, now: datetime, test: LoadTest | None) -> SloState:
    """A capacity objective: judged by the last load test, never by demand. Unknown without one; it never pages."""
    share = float(slo.objective.target)
    wanted = f"{slo.capacity_per_second:f} requests/s"
    if test is None:
        verdict, reason = (
            Verdict.UNKNOWN,
            f"No load test is recorded yet; capacity of {wanted} is neither proven nor denied.",
        )
    else:
        when = f"load test of {test.at:%Y-%m-%d} at commit {test.commit[:12]}"
        held = test.requests_per_second > float(slo.capacity_per_second or 0) and test.share_of_seconds >= share
        verdict = Verdict.OK if held else Verdict.TICKET
        reason = f"{test.requests_per_second:.0f} requests/s in the {when}; the promise is more than {wanted}."
    return SloState(
        name=slo.name,
        service=slo.service,
        kind=slo.kind,
        target=slo.objective.target_text,
        window=slo.objective.window,
        verdict=verdict,
        reason=reason,
        sli=None,
        sli_without_exclusions=None,
        budget_remaining_ratio=None,
        burn_rates=dict.fromkeys(BURN_WINDOWS),
        alerts=(),
        coverage_ratio=None,
        measured_ratio=None,
        events=None,
        time_to_exhaustion=None,
        first_seen=None,
        last_sample_at=test.at if test else None,
        as_of=now,
        recent=None,
    )


def _utc(seconds: float | None) -> datetime | None:
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
