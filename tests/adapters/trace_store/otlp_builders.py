"""Builders of OTLP spans as the suite's exporter sends them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, KeyValue
from opentelemetry.proto.trace.v1.trace_pb2 import Span

SECOND = 1_000_000_000
NOON_NS = 1_790_000_000 * SECOND


def an_attribute(key: str, value: Any) -> KeyValue:
    match value:
        case bool():
            return KeyValue(key=key, value=AnyValue(bool_value=value))
        case int():
            return KeyValue(key=key, value=AnyValue(int_value=value))
        case float():
            return KeyValue(key=key, value=AnyValue(double_value=value))
        case bytes():
            return KeyValue(key=key, value=AnyValue(bytes_value=value))
        case AnyValue():
            return KeyValue(key=key, value=value)
        case _:
            return KeyValue(key=key, value=AnyValue(string_value=value))


def an_otlp_span(
    trace: int,
    span: int,
    parent: int | None = None,
    *,
    name: str = "GET /x",
    start_ns: int = NOON_NS,
    duration_ns: int = 50_000_000,
    kind: Span.SpanKind.ValueType = Span.SPAN_KIND_SERVER,
    attributes: Mapping[str, Any] | None = None,
) -> Span:
    return Span(
        trace_id=trace.to_bytes(16, "big"),
        span_id=span.to_bytes(8, "big"),
        parent_span_id=b"" if parent is None else parent.to_bytes(8, "big"),
        name=name,
        kind=kind,
        start_time_unix_nano=start_ns,
        end_time_unix_nano=start_ns + duration_ns,
        attributes=[an_attribute(key, value) for key, value in (attributes or {}).items()],
    )


def a_request(service: str, *spans: Span, **resource: Any) -> ExportTraceServiceRequest:
    request = ExportTraceServiceRequest()
    resource_spans = request.resource_spans.add()
    facts = {"service.name": service, **resource}
    resource_spans.resource.attributes.extend(an_attribute(key, value) for key, value in facts.items())
    scope_spans = resource_spans.scope_spans.add()
    scope_spans.scope.name = "suite"
    scope_spans.spans.extend(spans)
    return request


def trace_id(trace: int) -> str:
    return f"{trace:032x}"
