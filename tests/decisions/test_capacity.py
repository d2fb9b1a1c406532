"""HPA's arithmetic on slots, and the room that a destination must have."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.decisions.capacity import Demand, all_slots, recommend, replicas_for
from tests.decisions.decision_builders import a_deployment


def recommended(demand: float, desired: int, ready: int | None = None, measured: int | None = None) -> int:
    ready = desired if ready is None else ready
    deployment = a_deployment("search-service", desired=desired, ready=ready, stream_slots_per_replica=0)
    return recommend(Demand(demand), deployment, ready if measured is None else measured, 0.7, 0.1).replicas


def test_demand_is_spread_until_each_replica_is_on_target() -> None:
    assert recommended(30, desired=2) == 3  # 30 / 16 / 0.7 is 2.68
    assert recommended(60, desired=2) == 6
    assert recommended(8, desired=4) == 1


def test_within_the_tolerance_nothing_changes() -> None:
    assert recommended(0.7 * 32 * 1.1, desired=2) == 2
    assert recommended(0.7 * 32 * 1.11, desired=2) == 3
    assert recommended(0.7 * 32 * 0.9, desired=2) == 2


def test_limits_hold() -> None:
    deployment = a_deployment("search-service", max_replicas=3, min_replicas=2)
    high = recommend(Demand(500), deployment, 2, 0.7, 0.1)
    assert (high.replicas, high.limited) == (3, True)
    assert recommend(Demand(0), deployment, 2, 0.7, 0.1).replicas == 2


def test_replicas_that_are_still_starting_are_not_ordered_again() -> None:
    assert recommended(30, desired=3, ready=2) == 3
    assert recommended(60, desired=3, ready=2) == 6


def test_replicas_that_do_not_report_are_never_taken_away_for_it() -> None:
    assert recommended(0, desired=4, ready=4, measured=4) == 1
    assert recommended(0, desired=4, ready=4, measured=1) == 3
    assert recommended(0, desired=4, ready=4, measured=0) == 4


def test_streams_count_when_they_are_scarcer() -> None:
    deployment = a_deployment("streaming-service")
    assert recommend(Demand(2, streams=30), deployment, 2, 0.7, 0.1).replicas == 3
    assert replicas_for(Demand(2, streams=30), deployment, 1.2) == 3


def test_a_destination_needs_headroom_and_at_least_one_replica() -> None:
    deployment = a_deployment("librechat-monolith", slots_per_replica=48, stream_slots_per_replica=48)
    assert replicas_for(Demand(40), deployment, 1.2) == 1
    assert replicas_for(Demand(40.1), deployment, 1.2) == 2
    assert replicas_for(Demand(0), deployment, 1.2) == 1
    assert all_slots(deployment) == Demand(96, 96)


@given(st.floats(0, 500), st.integers(1, 6), st.integers(0, 6), st.integers(0, 6))
def test_a_recommendation_is_within_limits_and_moves_towards_the_demand(
    demand: float, desired: int, not_ready: int, silent: int
) -> None:
    ready = max(0, desired - not_ready)
    measured = max(0, ready - silent)
    replicas = recommended(demand, desired, ready, measured)
    assert 1 <= replicas <= 6
    if measured and replicas > desired:
        assert demand / 16 > 0.7 * measured
        assert replicas <= math.ceil(demand / 16 / 0.7 + 1e-9)
    if replicas < desired:
        assert demand / 16 < 0.7 * measured


@given(st.floats(0, 300), st.floats(0, 300), st.integers(1, 6))
def test_more_demand_never_asks_for_fewer_replicas(one: float, other: float, desired: int) -> None:
    low, high = sorted((one, other))
    assert recommended(low, desired) <= recommended(high, desired)


def test_demands_add_up_by_kind() -> None:
    assert Demand(1, 2) + Demand(3, 4) * 2 == Demand(7, 10)
    assert Demand(1, 9).larger_of(Demand(5, 2)) == Demand(5, 9)
    assert Demand(1.0) == pytest.approx(Demand(1.0, 0.0))
