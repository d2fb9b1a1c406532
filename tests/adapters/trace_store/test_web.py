from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest
from google.protobuf import json_format
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, ArrayValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from control_plane.adapters.trace_store.store import Limits, TraceStore
from control_plane.adapters.trace_store.web import trace_store_app
from control_plane.tracing.critical_path import critical_path
from control_plane.tracing.jaeger_json import parse_traces
from tests.adapters.trace_store.otlp_builders import NOON_NS, SECOND, a_request, an_otlp_span, trace_id

PROTOBUF = {"content-type": "application/x-protobuf"}
JSON = {"content-type": "application/json"}


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    app = trace_store_app(
        TraceStore(Limits(), lambda: 0.0),
        clock=lambda: datetime.fromtimestamp(NOON_NS / SECOND + 60, UTC),
        max_request_bytes=100_000,
    )
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://traces") as client:
        yield client


async def post(http: httpx.AsyncClient, request: ExportTraceServiceRequest) -> None:
    assert (await http.post("/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)).status_code == 200


async def found(http: httpx.AsyncClient, **parameters: Any) -> set[int]:
    reply = await http.get("/api/traces", params=parameters)
    assert reply.status_code == 200, reply.text
    return {int(trace["traceID"], 16) for trace in reply.json()["data"]}


async def test_protobuf_gzip_and_json_are_taken_alike(http: httpx.AsyncClient) -> None:
    plain, gzipped, as_json = (a_request("a", an_otlp_span(number, 1)) for number in (1, 2, 3))
    await post(http, plain)
    body = gzip.compress(gzipped.SerializeToString())
    assert (
        await http.post("/v1/traces", content=body, headers={**PROTOBUF, "content-encoding": "gzip"})
    ).status_code == 200
    document = json_format.MessageToDict(as_json)
    span = document["resourceSpans"][0]["scopeSpans"][0]["spans"][0]
    span["traceId"], span["spanId"] = trace_id(3), f"{1:016x}"  # OTLP's JSON has ids in hex
    reply = await http.post("/v1/traces", json=document)
    assert (reply.status_code, reply.json()) == (200, {})
    assert await found(http, service="a") == {1, 2, 3}


async def test_a_small_body_that_inflates_beyond_the_limit_is_refused(http: httpx.AsyncClient) -> None:
    bomb = gzip.compress(bytes(10_000_000))
    assert len(bomb) < 100_000
    reply = await http.post("/v1/traces", content=bomb, headers={**PROTOBUF, "content-encoding": "gzip"})
    assert reply.status_code == 413


@pytest.mark.parametrize(
    ("body", "headers", "status"),
    [
        (b"x" * 100_001, PROTOBUF, 413),
        (b"\xff\xff\xff", PROTOBUF, 400),
        (b"{", JSON, 400),
        (b"[]", JSON, 400),
        (b'{"resourceSpans": 5}', JSON, 400),
        (b'{"resourceSpans": [{"scopeSpans": [{"spans": [{"traceId": "zz"}]}]}]}', JSON, 400),
        (b"", {"content-type": "text/plain"}, 415),
        (b"", {**PROTOBUF, "content-encoding": "br"}, 415),
        (b"no gzip", {**PROTOBUF, "content-encoding": "gzip"}, 400),
        (gzip.compress(b"x" * 100, mtime=0)[:-9], {**PROTOBUF, "content-encoding": "gzip"}, 400),
    ],
)
async def test_what_cannot_be_taken_is_refused_with_the_status_for_it(
    http: httpx.AsyncClient, body: bytes, headers: dict[str, str], status: int
) -> None:
    reply = await http.post("/v1/traces", content=body, headers=headers)
    assert reply.status_code == status
    assert reply.text.strip()


async def test_rejected_spans_are_counted_in_the_answer(http: httpx.AsyncClient) -> None:
    request = a_request("a", an_otlp_span(1, 1), an_otlp_span(0, 1))
    reply = await http.post("/v1/traces", content=request.SerializeToString(), headers=PROTOBUF)
    answer = ExportTraceServiceResponse.FromString(reply.content)
    assert answer.partial_success.rejected_spans == 1
    assert "16 bytes" in answer.partial_success.error_message


async def test_a_trace_is_shown_as_jaeger_shows_it(http: httpx.AsyncClient) -> None:
    root = an_otlp_span(1, 1, name="POST /v1/chat", attributes={"http.response.status_code": 500, "n": 0.5, "ok": True})
    root.status.code = Status.STATUS_CODE_ERROR
    root.status.message = "provider failed"
    child = an_otlp_span(1, 2, 1, kind=Span.SPAN_KIND_CLIENT, start_ns=NOON_NS + 5_000_000, duration_ns=2_500_000)
    child.attributes.add(key="list").value.array_value.values.extend(
        [AnyValue(int_value=1), AnyValue(string_value="x")]
    )
    child.events.add(name="retry", time_unix_nano=NOON_NS + 6_000_000).attributes.add(key="n").value.int_value = 2
    child.links.add(trace_id=(7).to_bytes(16, "big"), span_id=(8).to_bytes(8, "big"))
    await post(http, a_request("ai-gateway-service", root, child, **{"service.instance.id": "r1"}))

    body = (await http.get(f"/api/traces/{trace_id(1)}")).json()
    assert {key: body[key] for key in ("total", "limit", "offset", "errors")} == {
        "total": 0,
        "limit": 0,
        "offset": 0,
        "errors": None,
    }
    (trace,) = body["data"]
    first, second = trace["spans"]
    assert trace["processes"] == {
        "p1": {
            "serviceName": "ai-gateway-service",
            "tags": [{"key": "service.instance.id", "type": "string", "value": "r1"}],
        }
    }
    assert (first["traceID"], first["spanID"], first["references"]) == (trace_id(1), f"{1:016x}", [])
    assert (first["startTime"], first["duration"], first["processID"]) == (NOON_NS // 1000, 50_000, "p1")
    tags = {tag["key"]: (tag["type"], tag["value"]) for tag in first["tags"]}
    assert tags == {
        "http.response.status_code": ("int64", 500),
        "n": ("float64", 0.5),
        "ok": ("bool", True),
        "span.kind": ("string", "server"),
        "otel.status_code": ("string", "ERROR"),
        "error": ("bool", True),
        "otel.status_description": ("string", "provider failed"),
        "otel.scope.name": ("string", "suite"),
    }
    assert second["references"] == [
        {"refType": "CHILD_OF", "traceID": trace_id(1), "spanID": f"{1:016x}"},
        {"refType": "FOLLOWS_FROM", "traceID": trace_id(7), "spanID": f"{8:016x}"},
    ]
    assert {"key": "list", "type": "string", "value": '[1,"x"]'} in second["tags"]
    assert second["logs"] == [
        {
            "timestamp": NOON_NS // 1000 + 6000,
            "fields": [
                {"key": "event", "type": "string", "value": "retry"},
                {"key": "n", "type": "int64", "value": 2},
            ],
        }
    ]
    (read,) = parse_traces(body).traces
    assert [(o.operation, o.exclusive_us) for o in critical_path(read).operations] == [
        ("POST /v1/chat", 47_500),
        ("GET /x", 2_500),
    ]


async def test_a_search_asks_for_everything_of_one_span(http: httpx.AsyncClient) -> None:
    await post(http, a_request("a", an_otlp_span(1, 1, name="GET /x", attributes={"error": True, "code": 500})))
    await post(http, a_request("a", an_otlp_span(2, 1, name="GET /y", duration_ns=2 * SECOND), zone="eu"))
    await post(http, a_request("a", an_otlp_span(3, 1, start_ns=NOON_NS + 30 * SECOND)))
    assert await found(http, service="a") == {1, 2, 3}
    assert await found(http, service="b") == set()
    assert await found(http, service="a", operation="GET /y") == {2}
    assert await found(http, service="a", operation="GET /y", tags='{"code":"500"}') == set()
    assert await found(http, service="a", tags='{"error":"true","code":"500"}') == {1}
    assert await found(http, service="a", tag="zone:eu") == {2}
    assert await found(http, service="a", minDuration="1.5s") == {2}
    assert await found(http, service="a", maxDuration="1m0s", minDuration="100ms") == {2}
    assert await found(http, service="a", start=NOON_NS // 1000 + 1, end=NOON_NS // 1000 + 60_000_000) == {3}
    assert await found(http, service="a", end=NOON_NS // 1000) == {1, 2}
    assert await found(http, service="a", limit=1) == {3}


@pytest.mark.parametrize(
    "parameters",
    [
        {},
        {"service": "a", "start": "yesterday"},
        {"service": "a", "limit": "0"},
        {"service": "a", "minDuration": "long"},
        {"service": "a", "tags": "{"},
        {"service": "a", "tags": "[]"},
        {"service": "a", "tag": "no-colon"},
        {"traceID": "xyz"},
    ],
)
async def test_a_question_that_makes_no_sense_is_refused_in_jaegers_envelope(
    http: httpx.AsyncClient, parameters: dict[str, str]
) -> None:
    reply = await http.get("/api/traces", params=parameters)
    assert reply.status_code == 400
    body = reply.json()
    assert body["data"] is None
    assert body["errors"][0]["code"] == 400


async def test_a_trace_that_is_not_held_is_not_found(http: httpx.AsyncClient) -> None:
    reply = await http.get("/api/traces/abc")
    assert (reply.status_code, reply.json()["errors"][0]["msg"]) == (404, "trace not found")


async def test_ids_may_leave_out_leading_zeros_and_several_may_be_asked_for(http: httpx.AsyncClient) -> None:
    await post(http, a_request("a", an_otlp_span(0xABC, 1), an_otlp_span(0xDEF, 1)))
    assert (await http.get("/api/traces/ABC")).json()["data"][0]["traceID"] == trace_id(0xABC)
    assert (await http.get("/api/traces?traceID=abc&traceID=def&traceID=1")).json()["data"][1]["traceID"] == trace_id(
        0xDEF
    )


async def test_services_and_operations_are_listed(http: httpx.AsyncClient) -> None:
    client = an_otlp_span(1, 2, 1, name="ask", kind=Span.SPAN_KIND_CLIENT)
    await post(http, a_request("b/c", an_otlp_span(1, 1), client))
    await post(http, a_request("a", an_otlp_span(2, 1)))
    assert (await http.get("/api/services")).json()["data"] == ["a", "b/c"]
    assert (await http.get("/api/services")).json()["total"] == 2
    assert (await http.get("/api/operations?service=b/c&spanKind=client")).json()["data"] == [
        {"name": "ask", "spanKind": "client"}
    ]
    assert (await http.get("/api/services/a/operations")).json()["data"] == ["GET /x"]
    assert (await http.get("/api/operations")).status_code == 400


async def test_dependencies_count_calls_between_services(http: httpx.AsyncClient) -> None:
    for number in (1, 2):
        await post(http, a_request("a", an_otlp_span(number, 1), an_otlp_span(number, 2, 1)))
        await post(http, a_request("b", an_otlp_span(number, 3, 2)))
    assert (await http.get("/api/dependencies")).json()["data"] == [{"parent": "a", "child": "b", "callCount": 2}]
    end = NOON_NS // 1_000_000 - 1
    assert (await http.get(f"/api/dependencies?endTs={end}&lookback=1000")).json()["data"] == []


async def test_health_and_metrics_tell_how_it_is(http: httpx.AsyncClient) -> None:
    await post(http, a_request("a", an_otlp_span(1, 1), an_otlp_span(0, 1)))
    assert (await http.get("/health")).json() == {"status": "ok", "traces": 1}
    metrics = (await http.get("/metrics")).text
    assert "backstay_trace_store_spans_received_total 2.0" in metrics
    assert (
        'backstay_trace_store_spans_rejected_total{reason="a trace id needs 16 bytes and a span id 8"} 1.0' in metrics
    )
    assert "backstay_trace_store_traces 1.0" in metrics


async def test_values_that_json_cannot_hold_do_not_break_an_answer(http: httpx.AsyncClient) -> None:
    nested = AnyValue(array_value=ArrayValue(values=[AnyValue(double_value=float("nan")), AnyValue()]))
    span = an_otlp_span(1, 1, attributes={"nan": float("nan"), "raw": b"\xff", "nested": nested})
    await post(http, a_request("a", span))
    trace = orjson.loads((await http.get("/api/traces/1")).content)["data"][0]
    tags = {tag["key"]: tag["value"] for tag in trace["spans"][0]["tags"]}
    assert tags["raw"] == "/w=="
    assert json.loads(tags["nested"]) == [None, None]
