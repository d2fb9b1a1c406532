from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.slo.ledger import DAY, HOUR, MINUTE, Ledger

NOON = 1_700_006_400  # a multiple of a quarter of an hour


def count(ledger: Ledger, *events: tuple[float, float], column: int = 0) -> None:
    """Counts (time, amount) pairs."""
    times, amounts = zip(*events, strict=True)
    ledger.add(np.full(len(times), column), np.array(times, dtype=float), np.array(amounts, dtype=float))


def between(ledger: Ledger, start: float, end: float, column: int = 0) -> float:
    return float(ledger.at(end)[column] - ledger.at(start)[column])


def test_an_event_counts_in_every_window_that_holds_it_and_in_no_other() -> None:
    ledger = Ledger(1)
    count(ledger, (NOON, 5), (NOON + 10, 2))
    assert between(ledger, NOON - 1, NOON + 10) == 7
    assert between(ledger, NOON, NOON + 10) == 2  # a window is open at its start
    assert between(ledger, NOON + 10, NOON + 20) == 0


def test_a_late_event_finds_its_place() -> None:
    ledger = Ledger(1)
    count(ledger, (NOON + 100, 1))
    count(ledger, (NOON + 40, 9))
    assert between(ledger, NOON + 39, NOON + 40) == 9
    assert between(ledger, NOON + 40, NOON + 100) == 1


def test_an_event_older_than_everything_held_changes_no_window() -> None:
    ledger = Ledger(1)
    count(ledger, (NOON, 3))
    count(ledger, (NOON - 40 * DAY, 1000))
    assert between(ledger, NOON - 35 * DAY, NOON) == 3


def test_old_seconds_are_forgotten_and_their_events_are_not() -> None:
    ledger = Ledger(1)
    count(ledger, (NOON, 7))
    for minute in range(1, 600):
        count(ledger, (NOON + minute * MINUTE, 1))
    assert between(ledger, NOON - HOUR, NOON + 600 * MINUTE) == 606
    assert between(ledger, NOON, NOON + 600 * MINUTE) == 599


def test_a_jump_of_a_month_leaves_a_ledger_that_adds_up() -> None:
    ledger = Ledger(1)
    count(ledger, (NOON, 7))
    count(ledger, (NOON + 30 * DAY, 1))
    assert between(ledger, NOON - HOUR, NOON + 30 * DAY) == 8
    assert between(ledger, NOON + 29 * DAY, NOON + 30 * DAY) == 1


def test_a_pinned_instant_stays_exact_when_its_second_is_long_forgotten() -> None:
    ledger = Ledger(1)
    count(ledger, (NOON + 7, 10), (NOON + 8, 100))
    ledger.pin([NOON + 7])
    count(ledger, (NOON + 10 * DAY, 1))
    assert between(ledger, NOON + 7, NOON + 10 * DAY) == 101


def test_a_late_event_reaches_the_pins_after_it_only() -> None:
    ledger = Ledger(1)
    count(ledger, (NOON, 1), (NOON + 100, 1))
    ledger.pin([NOON + 20, NOON + 60])
    count(ledger, (NOON + 40, 5))
    assert between(ledger, NOON + 20, NOON + 60) == 5


def test_columns_do_not_mix() -> None:
    ledger = Ledger(2)
    count(ledger, (NOON, 1), column=0)
    count(ledger, (NOON, 2), column=1)
    assert ledger.at(NOON).tolist() == [1, 2]


def test_an_empty_ledger_has_counted_nothing() -> None:
    assert Ledger(2).at(NOON).tolist() == [0, 0]
    assert Ledger(2).newest is None


def test_the_newest_rows_end_with_the_slot_that_is_filling() -> None:
    ledger = Ledger(1)
    count(ledger, *((NOON + s, 1) for s in range(1, 13)))
    times, rows = ledger.newest_rows(5, 4, [0])
    assert times.tolist() == [NOON - 5, NOON, NOON + 5, NOON + 10, NOON + 15]
    assert np.diff(rows[:, 0]).tolist() == [0, 5, 5, 2]


def test_arrays_make_the_same_ledger_again_in_other_columns() -> None:
    ledger = Ledger(2)
    count(ledger, (NOON, 3), (NOON + 9, 4), column=1)
    ledger.pin([NOON])
    again = Ledger.of_arrays(ledger.arrays(), np.array([1, -1, 0]))
    assert again.at(NOON + 9).tolist() == [7, 0, 0]
    assert between(again, NOON, NOON + 9) == 4


def test_arrays_of_other_resolutions_are_refused() -> None:
    held = Ledger(1).arrays()
    held["sums_0"] = np.zeros((5, 1))
    with pytest.raises(ValueError, match="resolutions"):
        Ledger.of_arrays(held, np.array([0]))


EVENTS = st.lists(
    st.tuples(st.integers(-5 * HOUR, 0), st.integers(1, 9)), min_size=1, max_size=60
)  # (seconds before the end, amount)


@given(EVENTS, st.randoms(use_true_random=False), st.integers(1, 7))
@settings(max_examples=60)
def test_the_order_and_the_batches_in_which_events_arrive_change_nothing(
    events: list[tuple[int, int]], chance: object, batch: int
) -> None:
    end = NOON + 6 * HOUR
    straight, shuffled = Ledger(1), Ledger(1)
    anchor = (float(end), 1.0)  # rings turn with the newest event: both see the same one first
    count(straight, anchor, *((end + s, a) for s, a in events))
    mixed = list(events)
    chance.shuffle(mixed)  # type: ignore[attr-defined]
    count(shuffled, anchor)
    for first in range(0, len(mixed), batch):
        count(shuffled, *((end + s, a) for s, a in mixed[first : first + batch]))
    for window in (1, 5, 60, 300, 1800, HOUR, 2 * HOUR, 6 * HOUR, DAY):
        assert between(straight, end - window, end) == between(shuffled, end - window, end)


@given(EVENTS)
@settings(max_examples=60)
def test_every_window_holds_the_events_of_its_span_up_to_one_slot_more(events: list[tuple[int, int]]) -> None:
    end = NOON + 6 * HOUR
    ledger = Ledger(1)
    count(ledger, (end, 0.0), *((end + s, a) for s, a in events))
    for window, slot in ((60, 1), (300, 5), (1800, 60), (HOUR, 60), (5 * HOUR, 60)):
        least = sum(a for s, a in events if s > -window)
        most = sum(a for s, a in events if s > -window - slot)
        assert least <= between(ledger, end - window, end) <= most
