"""Tests on counted events: can chance explain what was seen? Exact binomial tails, no averages, no normal curve."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from itertools import pairwise

from scipy.special import betainc, betaincinv

from control_plane.decisions import phrases
from control_plane.slo.events import RecentEvents

SUSPECT_BELOW = 1e-3
"""Probability below which a stream is worth a closer look (traces), though not yet an action."""


def binomial_tail(bad: float, total: float, share: float) -> float:
    """Probability of `bad` or more bad events among `total` when each is bad with probability `share`.

    Exact for whole numbers. Counts that were divided by a dispersion are not whole; for these the regularised
    incomplete beta function is the smooth curve through the exact values. Contradictory counts (bad > total) are
    answered as if every event were bad.
    """
    if bad <= 0:
        return 1.0
    if bad >= total:
        return math.exp(max(total, bad) * math.log(share)) if share > 0 else 0.0
    return float(betainc(bad, total - bad + 1, share))


def upper_bound(bad: int, total: int, confidence: float) -> float:
    """One-sided upper bound of the bad share, exact (Clopper-Pearson): 0 bad of 208 is below 1.43 % at 95 %.

    One-sided, because whoever asks wants to know only whether the share could still be too large. Without any request
    the bound is 1: nothing is proved.
    """
    if bad >= total:
        return 1.0
    return float(betaincinv(bad + 1, total - bad, confidence))


class Outcome(StrEnum):
    """What a fast-path test says."""

    FIRED = "fired"  # chance does not explain it
    SUSPECT = "suspect"  # chance explains it badly: look closer, wait for more
    QUIET = "quiet"  # nothing to see
    NO_DATA = "no_data"  # no request in the longest window: says nothing


@dataclass(frozen=True, slots=True)
class Missing:
    """What a test still needs to fire, if the share of bad events stays what it is."""

    requests: int
    seconds: int | None  # at the present rate; None: even the longest window never holds enough

    def __str__(self) -> str:
        more = phrases.plural(self.requests, "more request")
        if self.seconds is None:
            return f"{more} in one window, which this rate never gives"
        return f"{more} or {self.seconds} s" if self.requests else f"{self.seconds} s"


@dataclass(frozen=True, slots=True)
class FastPathResult:
    """Verdict of the test over several windows, told by the window with the strongest evidence."""

    outcome: Outcome
    null_share: float  # the largest share of bad events that would still be tolerated
    window_seconds: int = 0
    total: float = 0.0  # events in that window
    bad: float = 0.0
    p_value: float = 1.0  # of that window
    bad_scrapes: int = 0  # distinct scrapes with bad events in that window
    began_at: int | None = None  # Unix seconds: likeliest begin of what is seen now; None when there is nothing
    missing: Missing | None = None  # None unless suspect

    @property
    def fired(self) -> bool:
        return self.outcome is Outcome.FIRED

    @property
    def share(self) -> float:
        return self.bad / self.total if self.total else 0.0

    def sentence(self, what: str) -> str:
        """The numbers in words. `what` is what happened to the bad ones: "failed", "were slow"."""
        if self.outcome is Outcome.NO_DATA:
            return "no request in the last minute"
        seen = (
            f"{phrases.whole(self.bad)} of {phrases.whole(self.total)} requests {what} in the last "
            f"{self.window_seconds} s ({phrases.percent(self.share)}, {phrases.probability(self.p_value)} "
            f"if at most {phrases.percent(self.null_share)} were normal)"
        )
        return f"{seen}; {self.missing} would settle it" if self.missing else seen


def fast_path(
    recent: RecentEvents,
    null_share: float,
    *,
    alpha: float,
    windows: Sequence[int],
    bad_seconds: int,
    since: float | None = None,
) -> FastPathResult:
    """Tests whether the share of bad events is above `null_share`, over the last seconds.

    One look spends `alpha`, split evenly over `windows` (seconds, ascending). Counts are divided by the dispersion of
    bad events, because events that come in clumps weigh less than independent ones. Bad events must lie in
    `bad_seconds` distinct seconds, so that one hiccup is not a trend; coarser scrapes need fewer scrapes, as long as
    these prove the same spread. Events up to `since` (Unix seconds) are left out: what was before an action proves
    nothing about what is after it.
    """
    first = 0
    if since is not None:
        while first < len(recent.seconds) and recent.seconds[first] <= since:
            first += 1
    seconds, total, bad = recent.seconds[first:], recent.total[first:], recent.bad[first:]
    if not seconds:
        return FastPathResult(Outcome.NO_DATA, null_share)
    width = _scrape_width(recent.seconds)
    spread = 2 + math.ceil(max(0, bad_seconds - 2) / width)
    level = alpha / len(windows)
    tested: list[FastPathResult] = []
    begin = len(seconds)
    window_total = window_bad = 0.0
    bad_scrapes = 0
    for window in windows:  # each window extends the one before it, so every event is added once
        while begin > 0 and seconds[begin - 1] > seconds[-1] - window:
            begin -= 1
            window_total += total[begin]
            window_bad += bad[begin]
            bad_scrapes += bad[begin] > 0
        p = 1.0
        if window_bad > null_share * window_total:
            p = binomial_tail(window_bad / recent.dispersion, window_total / recent.dispersion, null_share)
        fired = p <= level and bad_scrapes >= spread
        outcome = Outcome.FIRED if fired else Outcome.QUIET
        tested.append(FastPathResult(outcome, null_share, window, window_total, window_bad, p, bad_scrapes))
    longest = tested[-1]
    if longest.total <= 0 and longest.bad <= 0:
        return FastPathResult(Outcome.NO_DATA, null_share)
    best = max(tested, key=lambda result: (result.fired, -result.p_value))
    if not best.fired and best.p_value > SUSPECT_BELOW:
        return longest
    began_at = _began_at(seconds, total, bad, null_share, best.share)
    if best.fired:
        return _with(best, Outcome.FIRED, began_at, None)
    rate = longest.total / (seconds[-1] - seconds[begin] + width)
    missing = _missing(best, level, recent.dispersion, rate, windows[-1], max(0, spread - best.bad_scrapes) * width)
    return _with(best, Outcome.SUSPECT, began_at, missing)


def _with(found: FastPathResult, outcome: Outcome, began_at: int, missing: Missing | None) -> FastPathResult:
    return FastPathResult(
        outcome,
        found.null_share,
        found.window_seconds,
        found.total,
        found.bad,
        found.p_value,
        found.bad_scrapes,
        began_at,
        missing,
    )


def _scrape_width(seconds: Sequence[int]) -> int:
    """Seconds that one entry covers: the median gap, so that a lost scrape does not matter."""
    if len(seconds) < 2:
        return 1
    gaps = sorted(later - earlier for earlier, later in pairwise(seconds))
    return max(1, gaps[len(gaps) // 2])


def _began_at(
    seconds: Sequence[int], total: Sequence[float], bad: Sequence[float], null_share: float, share: float
) -> int:
    """Likeliest second at which the share rose from `null_share` to `share` (maximum likelihood change point).

    It is the end of the first scrape that showed it. At the first entry it may have begun before what is remembered.
    """
    share = min(max(share, null_share * 1.01), 1 - 1e-9)
    gain_bad = math.log(share / null_share)
    gain_good = math.log((1 - share) / (1 - null_share))
    best, score, began = -math.inf, 0.0, seconds[-1]
    for index in range(len(seconds) - 1, -1, -1):
        score += bad[index] * gain_bad + max(0.0, total[index] - bad[index]) * gain_good
        if score > best and bad[index] > 0:
            best, began = score, seconds[index]
    return began


def _missing(
    found: FastPathResult, level: float, dispersion: float, rate: float, longest_window: int, spread_seconds: int
) -> Missing:
    """Bisects for the total at which the same share would be significant."""

    def significant(total: float) -> bool:
        effective = total / dispersion
        return binomial_tail(found.share * effective, effective, found.null_share) <= level

    low, high = found.total, max(found.total, 1.0)
    while not significant(high) and high < 1e9:
        low, high = high, high * 2
    while high - low > 0.5:
        middle = (low + high) / 2
        low, high = (low, middle) if significant(middle) else (middle, high)
    requests = max(0, math.ceil(high - found.total))
    if rate <= 0 or high > rate * longest_window:
        return Missing(requests, None)
    return Missing(requests, max(1, math.ceil(requests / rate), spread_seconds))
