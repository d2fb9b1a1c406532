"""The tests behind automatic action: exact, quiet on healthy streams, quick on sick ones."""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.decisions.statistics import (
    FastPathResult,
    Outcome,
    binomial_tail,
    fast_path,
    upper_bound,
)
from control_plane.slo.events import RecentEvents

WINDOWS = (10, 20, 30, 60)
START = 1_800_000_000


def recent(total: Sequence[float], bad: Sequence[float], width: int = 1, dispersion: float = 1.0) -> RecentEvents:
    seconds = tuple(START + width * (i + 1) for i in range(len(total)))
    return RecentEvents(seconds, tuple(map(float, total)), tuple(map(float, bad)), dispersion)


def looked_at(
    total: Sequence[float],
    bad: Sequence[float],
    null_share: float = 0.005,
    *,
    width: int = 1,
    dispersion: float = 1.0,
    since: float | None = None,
) -> FastPathResult:
    return fast_path(
        recent(total, bad, width, dispersion), null_share, alpha=1e-6, windows=WINDOWS, bad_seconds=4, since=since
    )


def exact_tail(bad: int, total: int, share: Fraction) -> Fraction:
    return sum(
        (Fraction(math.comb(total, k)) * share**k * (1 - share) ** (total - k) for k in range(bad, total + 1)),
        Fraction(0),
    )


@given(st.integers(0, 60), st.integers(0, 60), st.integers(1, 200))
def test_the_binomial_tail_is_exact(bad: int, more: int, per_thousand: int) -> None:
    share = Fraction(per_thousand, 1000)
    assert binomial_tail(bad, bad + more, float(share)) == pytest.approx(
        float(exact_tail(bad, bad + more, share)), rel=1e-9
    )


def test_the_binomial_tail_holds_at_its_ends() -> None:
    assert binomial_tail(0, 0, 0.005) == 1.0
    assert binomial_tail(0, 10, 0.005) == 1.0
    assert binomial_tail(10, 10, 0.005) == pytest.approx(0.005**10)
    assert binomial_tail(1_000_000, 1_000_000, 0.005) == 0.0
    assert binomial_tail(5_000_000, 1_000_000_000, 0.005) == pytest.approx(0.5, abs=1e-3)
    assert binomial_tail(12, 10, 0.005) < binomial_tail(10, 10, 0.005)


@given(st.floats(0, 500), st.floats(0, 500), st.floats(0.1, 50), st.floats(0.001, 0.5))
def test_more_bad_events_are_never_weaker_evidence(bad: float, good: float, more: float, share: float) -> None:
    total = bad + good + more
    assert binomial_tail(bad + more, total, share) <= binomial_tail(bad, total, share) + 1e-12


def test_no_bad_of_208_leaves_a_share_of_1_43_percent() -> None:
    assert upper_bound(0, 208, 0.95) == pytest.approx(1 - 0.05 ** (1 / 208))
    assert upper_bound(0, 208, 0.95) < 0.0143


@given(st.integers(0, 30), st.integers(0, 300))
def test_the_bound_is_where_the_tail_leaves_five_percent(bad: int, good: int) -> None:
    bound = upper_bound(bad, bad + good, 0.95)
    if good == 0:
        assert bound == 1.0
    else:
        assert 1 - binomial_tail(bad + 1, bad + good, bound) == pytest.approx(0.05, abs=1e-6)


def test_a_fifth_of_the_requests_failing_fires_with_its_numbers() -> None:
    result = looked_at([10] * 60, [0] * 50 + [2] * 10)
    assert result.fired
    assert (result.window_seconds, result.total, result.bad, result.bad_scrapes) == (10, 100.0, 20.0, 10)
    assert result.began_at == START + 51
    assert "20 of 100 requests failed in the last 10 s (20 %" in result.sentence("failed")


def test_one_bad_second_is_no_trend() -> None:
    assert looked_at([50] * 60, [0] * 55 + [50] + [0] * 4).outcome is Outcome.SUSPECT
    assert looked_at([50] * 60, [0] * 52 + [20] * 3 + [0] * 5).outcome is Outcome.SUSPECT
    assert looked_at([50] * 60, [0] * 52 + [20] * 4 + [0] * 4).fired


def test_scrapes_of_five_seconds_need_three_with_bad_events() -> None:
    """Two may be one hiccup on their border; three are at least five seconds."""
    assert not looked_at([100] * 12, [0] * 10 + [50, 50], 0.1, width=5).fired
    assert looked_at([100] * 12, [0] * 9 + [50, 50, 50], 0.1, width=5).fired


def test_clumped_events_weigh_less() -> None:
    bad = [0] * 50 + [1] * 10
    assert looked_at([20] * 60, bad).fired
    assert not looked_at([20] * 60, bad, dispersion=5.0).fired


def test_what_was_before_an_action_proves_nothing_after_it() -> None:
    total, bad = [10] * 60, [0] * 40 + [5] * 10 + [0] * 10
    assert looked_at(total, bad).fired
    assert looked_at(total, bad, since=START + 50).outcome is Outcome.QUIET
    assert looked_at(total, bad, since=START + 60).outcome is Outcome.NO_DATA


def test_no_requests_say_nothing() -> None:
    assert looked_at([], []).outcome is Outcome.NO_DATA
    assert looked_at([0] * 60, [0] * 60).outcome is Outcome.NO_DATA


def test_low_traffic_says_how_much_is_missing() -> None:
    result = looked_at([1] * 60, [0] * 56 + [1, 0, 1, 1])
    assert result.outcome is Outcome.SUSPECT
    assert result.missing is not None
    assert result.missing.requests >= 1
    assert result.missing.seconds is not None
    assert "would settle it" in result.sentence("failed")


def test_what_is_said_to_be_missing_is_enough() -> None:
    total, bad = [50.0] * 60, [0.0] * 40 + [1.0] * 20
    first = looked_at(total, bad)
    assert first.outcome is Outcome.SUSPECT
    assert first.missing is not None
    assert first.missing.seconds is not None
    more = first.missing.seconds + 5
    assert looked_at(total[more:] + [50.0] * more, bad[more:] + [1.0] * more).fired


def test_a_rate_that_can_never_prove_it_says_so() -> None:
    result = looked_at([0.05] * 60, [0] * 57 + [0.05] * 3, 0.1)
    assert result.missing is None or result.missing.seconds is None


@given(
    st.lists(st.tuples(st.integers(0, 80), st.integers(0, 80)), min_size=1, max_size=120),
    st.integers(0, 119),
    st.integers(1, 20),
)
def test_the_strongest_window_is_monotone_in_bad_events(events: list[tuple[int, int]], where: int, more: int) -> None:
    total = [float(bad + good + more) for bad, good in events]
    bad = [float(b) for b, _ in events]
    worse = list(bad)
    worse[where % len(bad)] += more
    before, after = looked_at(total, bad), looked_at(total, worse)
    assert after.fired or not before.fired
    if not before.fired and not after.fired:
        assert after.p_value <= before.p_value + 1e-12


def test_a_service_that_is_just_good_enough_is_hardly_ever_accused() -> None:
    """At the very edge (0.5 % errors), with an alpha that can be measured: false alarms stay below it."""
    random = np.random.default_rng(7)
    alpha, looks, fired = 0.01, 4000, 0
    for _ in range(looks):
        total = random.poisson(50, 60)
        bad = random.binomial(total, 0.005)
        result = fast_path(recent(total.tolist(), bad.tolist()), 0.005, alpha=alpha, windows=WINDOWS, bad_seconds=4)
        fired += result.fired
    assert fired / looks <= alpha


def test_a_healthy_stream_never_fires_in_a_day() -> None:
    """0.05 % errors at 50 requests/s, looked at every five seconds for a day."""
    random = np.random.default_rng(11)
    total = random.poisson(50, 86_400).astype(float)
    bad = random.binomial(total.astype(int), 0.0005).astype(float)
    for end in range(60, 86_400, 5):
        if bad[end - 10 : end].sum() >= 4:  # fewer cannot fire, and a day is long
            assert not looked_at(total[end - 60 : end].tolist(), bad[end - 60 : end].tolist()).fired


@pytest.mark.parametrize(
    ("rate", "share", "within", "null_share"),
    [(50, 0.05, 15, 0.005), (10, 0.20, 10, 0.005), (20, 0.20, 10, 0.005), (20, 0.50, 10, 0.1)],
)
def test_sick_services_are_found_in_time(rate: int, share: float, within: int, null_share: float) -> None:
    """In 99 % of the runs, wherever the ticks of five seconds fall."""
    random = np.random.default_rng(rate * 1000 + int(share * 100))
    runs, late = 400, 0
    for run in range(runs):
        total = random.poisson(rate, 60 + within)
        sick = random.binomial(total, share)
        sick[:60] = random.binomial(total[:60], 0.0005)
        phase = run % 5 if within > 10 else 0
        ticks = range(60 + within - phase, 60, -5)
        late += not any(
            looked_at(total[:end][-60:].tolist(), sick[:end][-60:].tolist(), null_share).fired for end in ticks
        )
    assert late / runs <= 0.01
