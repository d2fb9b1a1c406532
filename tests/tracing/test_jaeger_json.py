from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.errors import InvalidDefinition
from control_plane.tracing.critical_path_report import critical_path_report
from control_plane.tracing.jaeger_json import jaeger_document, parse_traces, read_traces
from control_plane.tracing.spans import SpanKind
from tests.tracing.trace_builders import a_span, a_trace


def a_raw_span(**changes: Any) -> dict[str, Any]:
    return {
        "traceID": "abc",
        "spanID": "1",
        "operationName": "GET /x",
        "references": [],
        "startTime": 1000,
        "duration": 50,
        "tags": [],
        "logs": [],
        "processID": "p1",
        **changes,
    }


def a_document(*spans: Any, **changes: Any) -> dict[str, Any]:
    trace = {"traceID": "abc", "spans": list(spans), "processes": {"p1": {"serviceName": "x", "tags": []}}, **changes}
    return {"data": [trace], "total": 0, "limit": 0, "offset": 0, "errors": None}


def test_a_span_is_read_with_all_that_analysis_needs() -> None:
    reference = {"refType": "CHILD_OF", "traceID": "abc", "spanID": "0"}
    tags = [{"key": "span.kind", "type": "string", "value": "server"}, {"key": "error", "type": "bool", "value": True}]
    document = parse_traces(a_document(a_raw_span(references=[reference], tags=tags)))
    (span,) = document.traces[0].spans
    assert (span.service, span.operation, span.start_us, span.duration_us) == ("x", "GET /x", 1000, 50)
    assert (span.parent_id, span.follows, span.kind, span.tags["error"]) == ("0", False, SpanKind.SERVER, True)
    assert not document.problems


def test_spans_written_and_read_again_are_the_same() -> None:
    first = a_span("1", 0, 100, kind=SpanKind.CLIENT, process="p1", tags={"span.kind": "client", "n": 1, "f": 1.5})
    second = a_span("2", 10, 30, "1", follows=True, process="p2")
    content = json.dumps(jaeger_document([a_trace(first, second)])).encode()
    assert list(read_traces(content).traces[0].spans) == [first, second]


def test_child_of_outranks_follows_from_whatever_their_order() -> None:
    references = [
        {"refType": "FOLLOWS_FROM", "traceID": "abc", "spanID": "8"},
        {"refType": "CHILD_OF", "traceID": "abc", "spanID": "9"},
    ]
    (span,) = parse_traces(a_document(a_raw_span(references=references))).traces[0].spans
    assert (span.parent_id, span.follows) == ("9", False)


def test_a_reference_into_another_trace_makes_no_parent() -> None:
    reference = {"refType": "CHILD_OF", "traceID": "def", "spanID": "9"}
    (span,) = parse_traces(a_document(a_raw_span(references=[reference]))).traces[0].spans
    assert span.parent_id is None


def test_a_reference_may_write_its_trace_without_leading_zeros() -> None:
    reference = {"refType": "CHILD_OF", "traceID": "000ABC", "spanID": "9"}
    (span,) = parse_traces(a_document(a_raw_span(references=[reference]))).traces[0].spans
    assert span.parent_id == "9"


@pytest.mark.parametrize(
    ("span", "words"),
    [
        (a_raw_span(duration=-5), "negative duration -5"),
        (a_raw_span(startTime="soon"), "startTime"),
        (a_raw_span(duration=True), "duration"),
        (a_raw_span(spanID=None), "spanID"),
        (a_raw_span(operationName=7), "operationName"),
        ("garbage", "is no object"),
    ],
)
def test_a_bad_span_is_left_out_and_named_and_the_others_stay(span: Any, words: str) -> None:
    document = parse_traces(a_document(span, a_raw_span(spanID="2")))
    assert [each.span_id for each in document.traces[0].spans] == ["2"]
    assert len(document.problems) == 1
    assert words in document.problems[0]


def test_a_span_of_no_known_process_is_kept_and_said() -> None:
    document = parse_traces(a_document(a_raw_span(processID="p9")))
    assert document.traces[0].spans[0].service == "unknown"
    assert "which service" in document.problems[0]


def test_ten_thousand_problems_fill_no_memory() -> None:
    problems = parse_traces(a_document(*["garbage"] * 10_000)).problems
    assert len(problems) == 51
    assert "9950 more" in problems[-1]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b'{"data": [{"traceID": "a", "spa', "not complete JSON"),
        (b"<!doctype html><title>Jaeger UI</title>", "markup"),
        (b"", "not complete JSON"),
        (b"[]", "not Jaeger JSON"),
        (b'{"data": null, "errors": [{"code": 404, "msg": "trace not found"}]}', "trace not found"),
        (b"[" * 100_000, "not complete JSON"),
    ],
)
def test_what_is_no_jaeger_json_is_refused_with_the_reason(content: bytes, words: str) -> None:
    with pytest.raises(InvalidDefinition, match=words):
        read_traces(content)


def test_the_report_has_the_shape_that_programs_rely_on() -> None:
    child = a_raw_span(spanID="2", startTime=1010, duration=20, references=[{"refType": "CHILD_OF", "spanID": "1"}])
    document = a_document(a_raw_span(), {**child, "operationName": "db"})
    report = critical_path_report(document)
    assert critical_path_report(json.dumps(document).encode()) == report
    assert report == {
        "traces": [
            {
                "trace_id": "abc",
                "duration_us": 50,
                "operations": [
                    {"service": "x", "operation": "GET /x", "exclusive_us": 30},
                    {"service": "x", "operation": "db", "exclusive_us": 20},
                ],
                "remarks": [],
            }
        ],
        "problems": [],
    }


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["data", "spans", "traceID", "spanID", "references", "tags", "key", "value", "processes"]),
            inner,
            max_size=5,
        )
    ),
    max_leaves=30,
)


@given(anything)
def test_whatever_arrives_is_read_or_refused_and_never_crashes(document: object) -> None:
    with contextlib.suppress(InvalidDefinition):
        critical_path_report(document)


@given(st.lists(st.dictionaries(st.sampled_from(list(a_raw_span())), anything), max_size=5))
def test_whatever_a_span_holds_it_is_read_or_named(spans: list[dict[str, Any]]) -> None:
    critical_path_report(a_document(*({**a_raw_span(), **span} for span in spans)))
