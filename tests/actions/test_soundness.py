"""Shares of bad requests: what a sample can and cannot say."""

from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import beta

from control_plane.actions.soundness import requests_needed, ruled_out_by, surely_above, surely_below


def test_no_requests_prove_nothing() -> None:
    assert not surely_below(0, 0, 0.5)
    assert not surely_above(0, 0, 0.5)


def test_the_208_clean_requests_of_the_policy_rule_out_1_44_percent_as_207_just_do() -> None:
    assert surely_below(0, 208, 0.0144)
    assert not surely_below(0, 206, 0.0144)
    assert requests_needed(0, 0.0144) == 207
    assert ruled_out_by(208) < 0.0144


def test_one_bad_request_asks_for_more_requests_instead_of_failing() -> None:
    needed = requests_needed(1, 0.0144)
    assert 208 < needed < 400
    assert surely_below(1, needed, 0.0144)
    assert not surely_below(1, needed - 1, 0.0144)


@given(bad=st.integers(0, 50), more=st.integers(0, 2000), limit=st.floats(0.001, 0.5))
def test_below_agrees_with_the_clopper_pearson_bound(bad: int, more: int, limit: float) -> None:
    total = bad + more + 1
    upper = float(beta.ppf(0.95, bad + 1, total - bad))
    if abs(upper - limit) > 1e-6:
        assert surely_below(bad, total, limit) == (upper < limit)


@given(bad=st.integers(0, 50), more=st.integers(0, 500), limit=st.floats(0.001, 0.5))
def test_a_share_is_never_surely_above_and_surely_below(bad: int, more: int, limit: float) -> None:
    total = bad + more
    assert not (surely_above(bad, total, limit) and surely_below(bad, total, limit))


@given(clean=st.integers(1, 5000))
def test_what_clean_requests_rule_out_is_just_what_opens_the_gate(clean: int) -> None:
    assert surely_below(0, clean, ruled_out_by(clean))


@given(bad=st.integers(0, 20), limit=st.floats(0.0005, 0.5))
def test_the_requests_needed_are_the_fewest_that_suffice(bad: int, limit: float) -> None:
    needed = requests_needed(bad, limit)
    assert surely_below(bad, needed, limit)
    assert not surely_below(bad, needed - 1, limit)
