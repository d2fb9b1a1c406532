from __future__ import annotations

import random
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.tracing.critical_path import critical_path, exclusive_by_span
from control_plane.tracing.spans import Span, SpanKind, Trace
from tests.tracing.trace_builders import a_span, a_trace


def times(*spans: Span) -> dict[str, int]:
    """Exclusive microseconds by operation; what spent nothing is left out."""
    path = critical_path(a_trace(*spans))
    assert sum(each.exclusive_us for each in path.operations) == path.duration_us
    return {each.operation: each.exclusive_us for each in path.operations if each.exclusive_us}


def test_a_lone_span_owns_all_its_time() -> None:
    assert times(a_span("a", 100, 350)) == {"a": 250}


def test_time_of_calls_one_after_the_other_belongs_to_them_and_the_rest_to_the_caller() -> None:
    assert times(a_span("a", 0, 100), a_span("b", 10, 40, "a"), a_span("c", 50, 90, "a")) == {"a": 30, "b": 30, "c": 40}


def test_of_parallel_calls_only_the_last_to_finish_counts() -> None:
    assert times(a_span("a", 0, 100), a_span("fast", 10, 30, "a"), a_span("slow", 10, 95, "a")) == {"a": 15, "slow": 85}


def test_grandchildren_take_from_their_parent_and_not_from_the_root() -> None:
    assert times(a_span("a", 0, 100), a_span("b", 0, 100, "a"), a_span("c", 20, 80, "b")) == {"b": 40, "c": 60}


def test_siblings_overlapping_by_one_percent_of_their_parent_count_as_one_after_the_other() -> None:
    first, second = a_span("first", 0, 510, "a"), a_span("second", 500, 1000, "a")
    assert times(a_span("a", 0, 1000), first, second) == {"first": 500, "second": 500}


def test_siblings_overlapping_by_more_than_that_ran_side_by_side() -> None:
    first, second = a_span("first", 0, 511, "a"), a_span("second", 500, 1000, "a")
    assert times(a_span("a", 0, 1000), first, second) == {"a": 500, "second": 500}


@pytest.mark.parametrize(
    ("start", "end", "inside"),
    [(-20, 40, 40), (70, 130, 30), (-20, 130, 100), (120, 150, 0), (-50, -10, 0), (100, 110, 0)],
    ids=["starts before", "ends after", "encloses", "all after", "all before", "touches the end"],
)
def test_a_child_counts_only_within_its_parent(start: int, end: int, inside: int) -> None:
    spent = times(a_span("a", 0, 100), a_span("b", start, end, "a"))
    assert spent.get("b", 0) == inside


def test_a_grandchild_is_clipped_to_its_clipped_parent() -> None:
    assert times(a_span("a", 0, 100), a_span("b", 50, 200, "a"), a_span("c", 60, 200, "b")) == {
        "a": 50,
        "b": 10,
        "c": 40,
    }


def test_a_server_whose_clock_is_off_is_centred_in_its_client_span_with_all_below_it() -> None:
    spent = times(
        a_span("client", 0, 100, kind=SpanKind.CLIENT),
        a_span("server", 200_000, 200_080, "client", kind=SpanKind.SERVER),
        a_span("query", 200_010, 200_060, "server", service="server"),
    )
    assert spent == {"client": 20, "server": 30, "query": 50}


def test_a_server_that_outlasts_the_client_that_gave_up_is_clipped_and_not_moved() -> None:
    spent = times(
        a_span("client", 0, 100, kind=SpanKind.CLIENT), a_span("server", 10, 300, "client", kind=SpanKind.SERVER)
    )
    assert spent == {"client": 10, "server": 90}


def test_spans_on_the_same_clock_are_never_moved() -> None:
    spent = times(
        a_span("client", 0, 100, kind=SpanKind.CLIENT, process="p"),
        a_span("server", 50, 120, "client", kind=SpanKind.SERVER, process="p"),
    )
    assert spent == {"client": 50, "server": 50}


def test_what_only_follows_a_span_is_not_waited_for() -> None:
    assert times(a_span("a", 0, 100), a_span("b", 10, 90, "a", follows=True)) == {"a": 100}


@pytest.mark.parametrize("kind", [SpanKind.PRODUCER, SpanKind.CONSUMER])
def test_neither_side_of_a_queue_is_waited_for_nor_what_it_does(kind: SpanKind) -> None:
    spent = times(a_span("a", 0, 100), a_span("message", 10, 95, "a", kind=kind), a_span("work", 20, 90, "message"))
    assert spent == {"a": 100}


def test_work_that_a_server_leaves_running_after_its_answer_is_not_waited_for() -> None:
    spent = times(
        a_span("answer", 0, 100, kind=SpanKind.SERVER, process="p"),
        a_span("later", 60, 400, "answer", kind=SpanKind.INTERNAL, process="p"),
    )
    assert spent == {"answer": 100}


def test_a_span_whose_parent_was_lost_counts_below_the_root() -> None:
    assert times(a_span("a", 0, 100), a_span("b", 20, 80, "lost")) == {"a": 40, "b": 60}


def test_a_trace_without_its_root_is_told_from_what_is_left() -> None:
    path = critical_path(a_trace(a_span("b", 20, 80, "lost"), a_span("c", 30, 50, "b")))
    assert path.duration_us == 60
    assert path.remarks


def test_every_root_of_a_trace_has_its_own_path() -> None:
    assert times(a_span("a", 0, 100), a_span("z", 200, 250), a_span("b", 210, 220, "z")) == {"a": 100, "z": 40, "b": 10}


def test_a_cycle_is_cut_and_said() -> None:
    path = critical_path(a_trace(a_span("root", 0, 100), a_span("x", 10, 60, "y"), a_span("y", 20, 50, "x")))
    assert path.duration_us == 100
    assert any("circular" in remark for remark in path.remarks)


def test_a_span_that_is_its_own_parent_survives() -> None:
    assert times(a_span("a", 0, 100, "a")) == {"a": 100}


def test_a_repeated_span_counts_once() -> None:
    path = critical_path(a_trace(a_span("a", 0, 100), a_span("b", 10, 50, "a"), a_span("b", 10, 50, "a")))
    assert {each.operation: each.exclusive_us for each in path.operations} == {"a": 60, "b": 40}
    assert any("repeat" in remark for remark in path.remarks)


def test_the_two_sides_of_a_call_may_share_one_span_id() -> None:
    spent = times(
        a_span("root", 0, 100),
        a_span("x", 10, 90, "root", operation="ask", service="caller", kind=SpanKind.CLIENT),
        a_span("x", 20, 80, "root", operation="serve", service="callee", kind=SpanKind.SERVER),
        a_span("db", 30, 70, "x", service="callee"),
    )
    assert spent == {"root": 20, "ask": 20, "serve": 20, "db": 40}


def test_an_empty_trace_has_an_empty_path() -> None:
    path = critical_path(a_trace())
    assert (path.duration_us, list(path.operations)) == (0, [])


def test_the_same_operation_seen_twice_is_added_up() -> None:
    spans = [
        a_span("a", 0, 100),
        *(a_span(f"b{i}", i * 30, i * 30 + 20, "a", operation="b", service="b") for i in range(3)),
    ]
    assert times(*spans) == {"a": 40, "b": 60}


def test_exclusive_time_is_also_known_by_span() -> None:
    assert exclusive_by_span(a_trace(a_span("a", 0, 100), a_span("b", 10, 40, "a"))) == {"a": 70, "b": 30}


@st.composite
def traces(draw: st.DrawFn) -> Trace:
    """Anything that may arrive: wrong times, parents that are missing, later in the list, circular or oneself."""
    count = draw(st.integers(1, 25))
    spans = []
    for number in range(count):
        start = draw(st.integers(-300, 1000))
        parent = draw(st.none() | st.integers(0, count + 2))
        spans.append(
            a_span(
                str(number),
                start,
                start + draw(st.integers(0, 1000)),
                None if parent is None else str(parent),
                kind=draw(st.sampled_from(SpanKind)),
                follows=parent is not None and draw(st.booleans()),
                process=draw(st.sampled_from(["", "p", "q"])),
                service=draw(st.sampled_from(["s", "t"])),
            )
        )
    return Trace("t", spans)


@given(traces())
def test_exclusive_times_are_never_negative_and_sum_to_the_duration_whatever_arrives(trace: Trace) -> None:
    path = critical_path(trace)
    assert all(each.exclusive_us >= 0 for each in path.operations)
    assert sum(each.exclusive_us for each in path.operations) == path.duration_us


@given(traces(), st.randoms(use_true_random=False))
def test_the_order_in_which_spans_arrive_does_not_matter_when_ids_and_times_are_distinct(
    trace: Trace, chance: random.Random
) -> None:
    distinct = [
        a_span(s.span_id, s.start_us * 50 + i, s.end_us * 50 + 2 * i + 1, str(i // 2) if i else None)
        for i, s in enumerate(trace.spans)
    ]
    shuffled = list(distinct)
    chance.shuffle(shuffled)
    assert critical_path(a_trace(*distinct)).operations == critical_path(a_trace(*shuffled)).operations


def test_a_chain_of_ten_thousand_calls_needs_no_recursion() -> None:
    depth = 10_000
    assert depth > sys.getrecursionlimit()
    spans = [a_span(str(i), i, 3 * depth - i, str(i - 1) if i else None) for i in range(depth)]
    spent = times(*spans)
    assert len(spent) == depth
    assert spent["0"] == 2


def test_a_hundred_thousand_spans_take_about_as_long_each_as_a_few() -> None:
    count = 100_000
    spans = [a_span(str(i), 2 * i, 2 * i + 1, "root", operation="o", service="s") for i in range(count)]
    started = time.process_time()
    path = critical_path(a_trace(a_span("root", 0, 2 * count), *spans))
    assert path.operations[0].exclusive_us == count
    assert time.process_time() - started < 10
