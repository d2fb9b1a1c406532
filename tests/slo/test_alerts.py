from __future__ import annotations

from datetime import timedelta
from decimal import Decimal

import pytest

from control_plane.slo.alerts import TIERS, alert_state, factor_in_force
from control_plane.slo.events import EventCounts
from control_plane.slo.spec import Objective
from control_plane.slo.state import AlertState
from control_plane.slo.windows import BURN_WINDOWS

MONTH = Objective(Decimal("0.999"), timedelta(days=30))
OLD = timedelta(days=30)


def state(
    bad_share_long: float, bad_share_short: float, events: float = 100_000, age: timedelta | None = OLD
) -> AlertState:
    """The fast page for these shares of bad events."""
    tier = TIERS[0]
    counts = dict.fromkeys(BURN_WINDOWS, EventCounts(events, 0.0))
    counts[tier.long] = EventCounts(events, bad_share_long * events)
    counts[tier.short] = EventCounts(events, bad_share_short * events)
    return alert_state(tier, MONTH, counts, age)


def test_thirty_days_have_the_workbooks_factors() -> None:
    assert [tier.factor(MONTH) for tier in TIERS] == [Decimal("14.4"), 6, 3, 1]


def test_factors_scale_with_the_period_and_never_fall_below_one() -> None:
    week = Objective(Decimal("0.999"), timedelta(days=7))
    assert [float(tier.factor(week)) for tier in TIERS] == pytest.approx([3.36, 1.4, 1, 1])


def test_a_threshold_that_cannot_be_reached_is_lowered_to_one_that_can() -> None:
    loose = Objective(Decimal("0.9"), timedelta(days=30))
    factor = factor_in_force(TIERS[0], loose)
    assert factor == 9
    assert factor * loose.error_budget < 1
    assert factor_in_force(TIERS[1], loose) == 6


def test_both_windows_must_burn() -> None:
    assert state(0.02, 0.02).firing
    assert not state(0.02, 0.001).firing
    assert not state(0.001, 0.02).firing


def test_exactly_the_factor_does_not_fire() -> None:
    assert not state(0.0144, 0.0144).firing


def test_young_data_fires_only_when_it_is_sure() -> None:
    young = timedelta(minutes=10)
    assert not state(0.02, 0.02, events=1000, age=young).firing
    assert state(0.02, 0.02, events=100_000, age=young).firing
    assert state(0.02, 0.02, events=1000).firing


def test_young_data_needs_more_than_a_few_failures() -> None:
    assert not state(1.0, 1.0, events=4, age=timedelta(minutes=1)).firing
    assert state(1.0, 1.0, events=5, age=timedelta(minutes=1)).firing
