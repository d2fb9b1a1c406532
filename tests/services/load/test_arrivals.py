"""Arrivals: a Poisson process that is fixed beforehand."""

import random
from itertools import islice, takewhile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.load.arrivals import arrivals, expected_arrivals

RATES = st.floats(0.01, 500)
RAMPS = st.floats(0.1, 100) | st.just(0.0)


@given(RATES, RAMPS, st.integers())
def test_times_never_go_back_and_a_seed_fixes_them_all(rate: float, ramp: float, seed: int) -> None:
    times = list(islice(arrivals(rate, ramp, random.Random(seed)), 50))
    assert times == sorted(times)
    assert times[0] >= 0
    assert times == list(islice(arrivals(rate, ramp, random.Random(seed)), 50))


def test_nobody_arrives_at_a_rate_of_zero() -> None:
    assert list(arrivals(0, 10, random.Random(1))) == []


@pytest.mark.parametrize(("ramp", "until"), [(0, 100), (30, 15), (30, 30), (30, 100)])
def test_as_many_arrive_as_the_rate_says(ramp: float, until: float) -> None:
    runs = [
        sum(1 for _ in takewhile(lambda t: t < until, arrivals(5, ramp, random.Random(seed)))) for seed in range(200)
    ]
    expected = expected_arrivals(until, 5, ramp)
    assert sum(runs) / len(runs) == pytest.approx(expected, rel=0.05)
    variance = sum((run - expected) ** 2 for run in runs) / len(runs)
    assert variance == pytest.approx(expected, rel=0.4)  # of a Poisson process: variance and mean are equal


def test_a_ramp_grows_from_a_tenth_to_the_full_rate() -> None:
    first, last = expected_arrivals(1, 100, 30), expected_arrivals(30, 100, 30) - expected_arrivals(29, 100, 30)
    assert first == pytest.approx(11.5)
    assert last == pytest.approx(98.5)
    assert expected_arrivals(31, 100, 30) - expected_arrivals(30, 100, 30) == pytest.approx(100)
