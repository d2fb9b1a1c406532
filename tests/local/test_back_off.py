from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from control_plane.local.back_off import BackOff


def test_waits_double_from_half_a_second_to_half_a_minute() -> None:
    back_off = BackOff()
    assert [back_off.next_delay(0) for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_a_run_that_was_ready_for_long_starts_from_the_shortest_wait_again() -> None:
    back_off = BackOff()
    for _ in range(5):
        back_off.next_delay(0)
    assert back_off.next_delay(29.9) == 16
    assert back_off.next_delay(30) == 0.5
    assert back_off.next_delay(0) == 1


def test_taking_the_cause_away_starts_anew() -> None:
    back_off = BackOff(failures=9)
    back_off.reset()
    assert back_off.next_delay(0) == 0.5


@given(st.lists(st.floats(0, 1e6), max_size=200))
def test_no_wait_is_ever_outside_its_limits(runs: list[float]) -> None:
    back_off = BackOff()
    assert all(0.5 <= back_off.next_delay(ready) <= 30 for ready in runs)
