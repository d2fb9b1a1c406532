from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from control_plane.slo.increments import Reading, increments, spread


def counted(previous: Reading | None, times: list[float], values: list[float], born: bool = False) -> float:
    found = increments(previous, born, np.array(times, dtype=float), np.array(values, dtype=float))
    return float(found.amounts.sum())


def test_events_are_the_differences_of_neighbouring_samples() -> None:
    found = increments(Reading(0, 10), False, np.array([1.0, 2.0, 3.0]), np.array([12.0, 12.0, 15.0]))
    assert found.amounts.tolist() == [2, 0, 3]
    assert found.last == Reading(3, 15)


def test_a_reading_below_its_predecessor_is_a_restart_from_zero() -> None:
    assert counted(Reading(0, 100), [1, 2], [3, 5]) == 5


def test_a_series_of_unknown_age_counts_from_its_first_sample() -> None:
    assert counted(None, [1, 2], [1000, 1003]) == 3


def test_a_series_born_under_our_eyes_counts_its_first_value_too() -> None:
    assert counted(None, [1, 2], [4, 6], born=True) == 6


def test_samples_that_were_counted_before_are_ignored() -> None:
    assert counted(Reading(2, 20), [1, 2, 3], [10, 20, 21]) == 1


def test_a_sample_that_is_no_number_is_left_out_and_reported() -> None:
    found = increments(Reading(0, 1), False, np.array([1.0, 2.0]), np.array([np.nan, 4.0]))
    assert (found.amounts.tolist(), found.saw_nan) == ([3], True)


def test_nothing_new_leaves_the_last_reading_as_it_was() -> None:
    previous = Reading(5, 7)
    assert increments(previous, False, np.array([4.0, 5.0]), np.array([6.0, 7.0])).last is previous


def test_events_of_a_gap_are_spread_over_it_and_none_is_lost() -> None:
    found = increments(Reading(0, 0), False, np.array([300.0, 301.0]), np.array([600.0, 602.0]))
    times, amounts = spread(found, spacing=30, slot=60)
    assert sorted(times.tolist()) == [60, 120, 180, 240, 300, 301]
    assert np.isclose(amounts.sum(), 602)
    assert amounts[times == 120] == 120


def test_events_after_a_restart_in_a_gap_are_not_spread_because_the_restart_came_later() -> None:
    found = increments(Reading(0, 50), False, np.array([300.0]), np.array([7.0]))
    times, amounts = spread(found, spacing=30, slot=60)
    assert (times.tolist(), amounts.tolist()) == ([300], [7])


@given(
    st.lists(st.integers(0, 50), min_size=2, max_size=40),
    st.lists(st.integers(1, 39), max_size=5, unique=True),
)
def test_however_a_counter_is_cut_into_readings_the_same_events_are_counted(steps: list[int], cuts: list[int]) -> None:
    values = np.cumsum(steps).astype(float)
    times = np.arange(len(values), dtype=float)
    whole = increments(None, False, times, values)
    last, total = None, 0.0
    edges = sorted({0, len(values), *(cut for cut in cuts if cut < len(values))})
    for first, end in itertools.pairwise(edges):
        first = max(0, first - 3)  # readings overlap
        found = increments(last, False, times[first:end], values[first:end])
        last, total = found.last, total + float(found.amounts.sum())
    assert total == whole.amounts.sum()
    assert last == whole.last
