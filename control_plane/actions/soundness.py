"""Is a share of bad requests small enough, too large, or not known yet? Exact binomial bounds, no averages."""

from __future__ import annotations

from dataclasses import dataclass

from control_plane.decisions.statistics import binomial_tail, upper_bound

GOOD_CONFIDENCE = 0.95
BAD_CONFIDENCE = 0.99
_ROUNDING = 1e-9  # relative: what n clean requests rule out is just what n clean requests open


@dataclass(frozen=True, slots=True)
class SampleCounts:
    """Requests of a service since an instant. `bad` failed; `slow` took longer than its latency objective allows.

    `slow` is None where latency is not measured.
    """

    total: int
    bad: int
    slow: int | None = None


def surely_below(bad: int, total: int, limit: float) -> bool:
    """Whether the one-sided upper 95 % bound of the share lies below `limit`. No requests: no."""
    return upper_bound(bad, total, GOOD_CONFIDENCE) <= limit * (1 + _ROUNDING)


def surely_above(bad: int, total: int, limit: float) -> bool:
    """Whether the one-sided lower 99 % bound of the share lies above `limit`."""
    return 0 < bad <= total and binomial_tail(bad, total, limit) < 1 - BAD_CONFIDENCE


def ruled_out_by(clean: int) -> float:
    """The share that `clean` requests without a bad one rule out: 208 of them rule out 1.43 %."""
    return upper_bound(0, clean, GOOD_CONFIDENCE)


def requests_needed(bad: int, limit: float) -> int:
    """The fewest requests, `bad` of them bad, whose upper bound lies below `limit`: 207 clean ones for 1.44 %."""
    low, high = bad, max(16, bad * 2)
    while not surely_below(bad, high, limit):
        low, high = high, high * 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if surely_below(bad, middle, limit) else (middle, high)
    return high
