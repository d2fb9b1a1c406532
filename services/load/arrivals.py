"""When users arrive: a Poisson process, fixed beforehand. Slow answers slow it as little as they slow real users."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

RAMP_START = 0.1
"""Share of the full rate at the start of a ramp: enough to see that things work, too little to hurt."""


def arrivals(per_second: float, ramp_seconds: float, chance: random.Random) -> Iterator[float]:
    """Seconds from the start at which users arrive, without end; nobody ever arrives at a rate of 0.

    The rate grows in a line from a tenth to the full one over `ramp_seconds`. Exact for such a rate: the expected
    number of arrivals is drawn, and the time at which so many are expected is solved for.
    """
    if per_second <= 0:
        return
    expected = 0.0
    while True:
        expected += chance.expovariate(1.0)
        yield _time_of(expected, per_second, ramp_seconds)


def expected_arrivals(seconds: float, per_second: float, ramp_seconds: float) -> float:
    """How many users arrive on average within the first `seconds`."""
    ramp = min(seconds, ramp_seconds)
    grown = RAMP_START * ramp + (1 - RAMP_START) * ramp * ramp / (2 * ramp_seconds) if ramp_seconds else 0.0
    return per_second * (grown + max(0.0, seconds - ramp_seconds))


def _time_of(expected: float, per_second: float, ramp_seconds: float) -> float:
    """The inverse: by when `expected` users arrive on average."""
    within_ramp = expected_arrivals(ramp_seconds, per_second, ramp_seconds)
    if expected >= within_ramp:
        return ramp_seconds + (expected - within_ramp) / per_second
    slope = (1 - RAMP_START) / (2 * ramp_seconds)  # slope t^2 + RAMP_START t = expected / per_second
    return (math.sqrt(RAMP_START**2 + 4 * slope * expected / per_second) - RAMP_START) / (2 * slope)
