from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from control_plane.adapters.trace_store.store import Limits, Search, TraceStore
from tests.adapters.trace_store.otlp_builders import NOON_NS, SECOND, a_request, an_otlp_span


class Watch:
    """A monotonic clock that moves when told."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def a_store(watch: Watch | None = None, **limits: float) -> TraceStore:
    return TraceStore(Limits(**limits), watch or Watch())  # type: ignore[arg-type]


def ids(store: TraceStore, search: Search) -> list[int]:
    return [int.from_bytes(trace.trace_id, "big") for trace in store.candidates(search)]


def test_spans_of_one_trace_from_two_services_are_kept_together() -> None:
    store = a_store()
    store.add(a_request("a", an_otlp_span(1, 1)))
    store.add(a_request("b", an_otlp_span(1, 2, 1)))
    assert (len(store), store.spans, list(store.services())) == (1, 2, ["a", "b"])


def test_a_search_looks_only_at_the_service_and_its_time_range_newest_first() -> None:
    store = a_store()
    for number in range(1, 6):
        store.add(a_request("a", an_otlp_span(number, 1, start_ns=NOON_NS + number * 60 * SECOND)))
    store.add(a_request("b", an_otlp_span(9, 1)))
    search = Search("a", start_ns=NOON_NS + 110 * SECOND, end_ns=NOON_NS + 250 * SECOND)
    assert ids(store, search) == [4, 3, 2]


def test_a_trace_over_several_buckets_is_found_once() -> None:
    store = a_store()
    store.add(a_request("a", an_otlp_span(1, 1), an_otlp_span(1, 2, 1, start_ns=NOON_NS + 30 * SECOND)))
    assert ids(store, Search("a")) == [1]


def test_a_search_for_an_operation_skips_traces_without_it() -> None:
    store = a_store()
    store.add(a_request("a", an_otlp_span(1, 1, name="GET /x"), an_otlp_span(2, 1, name="GET /y")))
    assert ids(store, Search("a", operation="GET /y")) == [2]


def test_the_oldest_whole_traces_make_room_when_memory_is_full() -> None:
    store = a_store(max_bytes=100_000)
    for number in range(1, 200):
        store.add(a_request("a", an_otlp_span(number, 1), an_otlp_span(number, 2, 1)))
    assert store.bytes <= 100_000
    assert store.evicted["memory"] == 199 - len(store)
    assert sorted(ids(store, Search("a"))) == list(range(200 - len(store), 200))
    assert all(len(trace.spans) == 2 for trace in store.newest_first())


def test_traces_older_than_the_age_limit_go_and_so_do_their_services() -> None:
    watch = Watch()
    store = a_store(watch, max_age_seconds=60)
    store.add(a_request("gone", an_otlp_span(1, 1)))
    watch.now = 61
    store.add(a_request("here", an_otlp_span(2, 1)))
    assert list(store.services()) == ["here"]
    assert store.evicted == {"age": 1}
    assert not store.operations("gone")


def test_a_runaway_trace_is_cut_and_pushes_no_other_out() -> None:
    store = a_store(max_bytes=400_000)
    store.add(a_request("a", an_otlp_span(1, 1)))
    rejected = store.add(a_request("a", *(an_otlp_span(2, number) for number in range(1, 2000))))
    assert rejected["the trace is too large"] > 0
    assert sorted(ids(store, Search("a"))) == [1, 2]


def test_spans_that_make_no_sense_are_rejected_with_the_reason_and_the_others_stay() -> None:
    store = a_store()
    rejected = store.add(
        a_request("a", an_otlp_span(0, 1), an_otlp_span(1, 1, duration_ns=-5), an_otlp_span(2, 1), an_otlp_span(3, 1))
    )
    assert rejected.total() == 2
    assert store.spans == 2


def test_operation_names_made_of_ids_do_not_fill_memory() -> None:
    store = a_store()
    store.add(a_request("a", *(an_otlp_span(number, 1, name=f"GET /{number}") for number in range(1, 4001))))
    assert len(store.operations("a")) == 2000


def test_a_resource_without_a_name_is_shown_under_jaegers_name_for_it() -> None:
    store = a_store()
    store.add(a_request("", an_otlp_span(1, 1)))
    assert list(store.services()) == ["OTLPResourceNoServiceName"]


@settings(max_examples=60)
@given(st.lists(st.tuples(st.integers(1, 12), st.integers(0, 300), st.sampled_from("abc"), st.integers(0, 40))))
def test_counts_match_what_is_held_whatever_was_added_and_evicted(
    arrivals: list[tuple[int, int, str, int]],
) -> None:
    watch = Watch()
    store = a_store(watch, max_bytes=20_000, max_age_seconds=100)
    for number, (trace, start, service, wait) in enumerate(arrivals, start=1):
        watch.now += wait
        store.add(a_request(service, an_otlp_span(trace, number, start_ns=NOON_NS + start * SECOND)))
    held = list(store.newest_first())
    assert store.bytes == sum(trace.size for trace in held) <= 20_000
    assert store.spans == sum(len(trace.spans) for trace in held)
    found = {trace.trace_id for service in store.services() for trace in store.candidates(Search(service))}
    assert found == {trace.trace_id for trace in held}
    assert store.oldest_seconds <= 100
