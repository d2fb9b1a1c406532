"""The rate limit."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.ai_gateway.token_bucket import TokenBucket
from tests.services.ai_gateway.test_circuit import Seconds


def test_a_burst_passes_and_then_the_wait_is_told() -> None:
    bucket = TokenBucket(rate=10, burst=2, monotonic=Seconds())
    assert [bucket.take(), bucket.take(), bucket.take()] == [None, None, 0.1]


def test_it_fills_with_time_but_never_beyond_the_burst() -> None:
    clock = Seconds()
    bucket = TokenBucket(rate=10, burst=2, monotonic=clock)
    bucket.take()
    bucket.take()
    clock.now = 0.1
    assert bucket.take() is None
    assert bucket.take() is not None
    clock.now = 1000
    assert [bucket.take() is None for _ in range(3)] == [True, True, False]


@given(st.lists(st.floats(0, 2), min_size=1, max_size=200))
def test_never_more_than_burst_and_what_came_back_meanwhile(pauses: list[float]) -> None:
    clock = Seconds()
    bucket = TokenBucket(rate=5, burst=3, monotonic=clock)
    taken = 0
    for pause in pauses:
        clock.now += pause
        taken += bucket.take() is None
        assert taken <= 3 + 5 * clock.now + 1e-6
