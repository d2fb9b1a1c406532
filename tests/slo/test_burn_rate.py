from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import InvalidDefinition
from control_plane.slo.burn_rate import (
    Tally,
    budget_remaining,
    burn_rate,
    burns_faster,
    lower_bound,
    time_to_exhaustion,
)
from control_plane.slo.events import EventCounts
from control_plane.slo.spec import Objective

NINES = Objective(Decimal("0.999"), timedelta(days=30))


def test_a_burn_rate_of_one_spends_the_budget_in_the_window() -> None:
    assert burn_rate(EventCounts(100_000, 100), NINES) == 1.0


def test_no_events_are_no_evidence_of_health() -> None:
    assert burn_rate(EventCounts(0, 0), NINES) is None
    assert budget_remaining(EventCounts(0, 0), NINES) is None


def test_exactly_the_threshold_is_not_above_it() -> None:
    assert not burns_faster(EventCounts(10_000, 144), NINES, Decimal("14.4"))
    assert burns_faster(EventCounts(10_000, 144.0001), NINES, Decimal("14.4"))


@given(st.integers(1, 10**9), st.integers(1, 999), st.integers(1, 20))
def test_a_share_equal_to_the_threshold_never_fires_whatever_its_last_bit(total: int, budget: int, factor: int) -> None:
    objective = Objective(1 - Decimal(budget) / 1000, timedelta(days=30))
    bad = Decimal(budget * factor) / 1000 * total
    if bad == int(bad):
        assert not burns_faster(EventCounts(total, int(bad)), objective, Decimal(factor))


def test_a_target_outside_zero_and_one_is_refused() -> None:
    for target in ("0", "1", "99.9"):
        with pytest.raises(InvalidDefinition):
            Objective(Decimal(target), timedelta(days=30))


def test_the_error_budget_is_exact() -> None:
    assert NINES.error_budget == Decimal("0.001")


def test_the_budget_is_of_the_events_that_were_and_may_be_overspent() -> None:
    assert budget_remaining(EventCounts(10_000, 5), NINES) == 0.5
    assert budget_remaining(EventCounts(10_000, 30), NINES) == pytest.approx(-2)


def test_half_the_budget_lasts_half_the_window_at_burn_rate_one_and_less_above() -> None:
    assert time_to_exhaustion(0.5, 5.0, NINES) == timedelta(days=3)
    assert time_to_exhaustion(0.5, 1.0, NINES) is None
    assert time_to_exhaustion(-0.2, 5.0, NINES) == timedelta(0)
    assert time_to_exhaustion(None, 5.0, NINES) is None


def test_events_between_buckets_make_the_sli_an_interval() -> None:
    sli = Tally(total=100, bad=10, unsure=20, unsure_bad_share=0.25).sli
    assert sli is not None
    assert (sli.lower, sli.estimate, sli.upper) == (0.7, 0.85, 0.9)


@given(st.integers(1, 10**6), st.data())
def test_the_lower_bound_is_below_the_share_and_nears_it_with_more_events(total: int, data: st.DataObject) -> None:
    bad = data.draw(st.integers(0, total))
    small, large = lower_bound(EventCounts(total, bad)), lower_bound(EventCounts(100 * total, 100 * bad))
    rounding = 1e-12
    assert 0 <= small <= large + rounding <= bad / total + 2 * rounding
