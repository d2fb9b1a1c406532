"""Rounding for people must never turn bad into good."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.console import words


@pytest.mark.parametrize(
    ("length", "text"),
    [
        (timedelta(seconds=12), "12 s"),
        (timedelta(seconds=59.6), "1 min"),
        (timedelta(minutes=3, seconds=38), "3 min 38 s"),
        (timedelta(hours=3, minutes=38), "3 h 38 min"),
        (timedelta(days=2, hours=4, minutes=59), "2 d 4 h"),
        (timedelta(hours=-1), "1 h"),
    ],
)
def test_durations_read_in_their_two_largest_units(length: timedelta, text: str) -> None:
    assert words.duration(length) == text


def test_almost_all_is_never_shown_as_all() -> None:
    assert words.percent(0.99999) == "> 99\u00a0%"
    assert words.percent(0.999999, 3) == "> 99.999\u00a0%"
    assert words.percent(1.0) == "100\u00a0%"


def test_almost_nothing_is_never_shown_as_nothing() -> None:
    assert words.percent(0.0004) == "< 1\u00a0%"
    assert words.percent(0.0) == "0\u00a0%"


def test_an_overspent_budget_is_negative() -> None:
    assert words.percent(-0.25) == "-25\u00a0%"


def test_missing_numbers_are_said_to_be_missing() -> None:
    assert words.percent(None) == "unknown"
    assert words.rate(None) == "no data"
    assert words.burn(None) == "–"
    assert words.burn(float("inf")) == "–"


@given(st.floats(min_value=0, max_value=1, exclude_max=True))
def test_no_ratio_below_one_reads_as_a_hundred_percent(ratio: float) -> None:
    assert not words.percent(ratio).startswith("100")


def test_large_counts_have_thin_spaces() -> None:
    assert words.count(2304) == "2\u202f304"
    assert words.rate(1234.4) == "1\u202f234 req/s"
    assert words.rate(9.54) == "9.5 req/s"
