from __future__ import annotations

import pytest

from control_plane.tracing.error_origin import error_origins, is_error
from control_plane.tracing.spans import Span, SpanKind, TagValue
from tests.tracing.trace_builders import a_span, a_trace

FAILED = {"error": True}


def origins(*spans: Span) -> list[str]:
    return [origin.span.span_id for origin in error_origins(a_trace(*spans))]


@pytest.mark.parametrize(
    "tags",
    [
        {"error": True},
        {"error": "true"},
        {"otel.status_code": "ERROR"},
        {"http.status_code": 503},
        {"http.response.status_code": 500},
        {"http.status_code": "502"},
        {"rpc.grpc.status_code": 14},
    ],
)
def test_faults_of_the_serving_side_are_errors(tags: dict[str, TagValue]) -> None:
    assert is_error(a_span("a", 0, 1, tags=tags))


@pytest.mark.parametrize(
    "tags",
    [
        {},
        {"error": False},
        {"error": "false"},
        {"otel.status_code": "OK", "http.status_code": 500},
        {"http.status_code": 404, "error": True},
        {"http.response.status_code": 200},
        {"http.status_code": "unknown"},
        {"http.status_code": float("inf")},
        {"rpc.grpc.status_code": 5},
        {"grpc.status_code": 0},
    ],
)
def test_successes_and_mistakes_of_the_caller_are_no_errors(tags: dict[str, TagValue]) -> None:
    assert not is_error(a_span("a", 0, 1, tags=tags))


def test_the_origin_is_the_deepest_span_that_inherited_its_error_from_nobody() -> None:
    spans = [
        a_span("gateway", 0, 100, tags=FAILED),
        a_span("chat", 10, 90, "gateway", tags=FAILED),
        a_span("identity", 20, 80, "chat", tags=FAILED),
        a_span("database", 30, 40, "identity"),
    ]
    assert origins(*spans) == ["identity"]
    assert [s.span_id for s in error_origins(a_trace(*spans))[0].path] == ["gateway", "chat", "identity"]


def test_a_request_that_succeeded_has_no_origin_although_something_below_failed() -> None:
    assert origins(a_span("a", 0, 100), a_span("b", 10, 20, "a", tags=FAILED)) == []


def test_an_attempt_that_a_retry_made_good_is_not_where_the_error_came_from() -> None:
    spans = [
        a_span("a", 0, 100, tags=FAILED),
        a_span("b1", 10, 20, "a", operation="b", service="b", tags=FAILED),
        a_span("b2", 30, 40, "a", operation="b", service="b"),
    ]
    assert origins(*spans) == ["a"]


def test_a_success_at_another_peer_makes_no_failed_call_good() -> None:
    call = {"kind": SpanKind.CLIENT, "operation": "POST", "service": "a"}
    spans = [
        a_span("a", 0, 100, tags=FAILED),
        a_span("c1", 10, 20, "a", **call, tags={**FAILED, "server.address": "identity"}),
        a_span("c2", 30, 40, "a", **call, tags={"server.address": "search"}),
    ]
    assert origins(*spans) == ["c1"]


def test_of_several_failed_calls_the_one_that_ended_last_is_followed() -> None:
    spans = [
        a_span("a", 0, 100, tags=FAILED),
        a_span("early", 10, 30, "a", tags=FAILED),
        a_span("late", 10, 60, "a", tags=FAILED),
    ]
    assert origins(*spans) == ["late"]


def test_a_client_span_without_a_mark_hands_on_its_servers_failure() -> None:
    spans = [
        a_span("a", 0, 100, tags=FAILED),
        a_span("call", 10, 60, "a", kind=SpanKind.CLIENT),
        a_span("b", 20, 50, "call", kind=SpanKind.SERVER, tags=FAILED),
    ]
    assert origins(*spans) == ["b"]


def test_each_failed_root_has_its_own_origin() -> None:
    assert sorted(origins(a_span("a", 0, 10, tags=FAILED), a_span("b", 20, 30, tags=FAILED), a_span("c", 40, 50))) == [
        "a",
        "b",
    ]
