"""Stored OTLP spans as Jaeger's query API shows them, after Jaeger's own translation from OpenTelemetry."""

from __future__ import annotations

import base64
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.resource.v1.resource_pb2 import Resource
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan
from opentelemetry.proto.trace.v1.trace_pb2 import Status

from control_plane.adapters.trace_store.store import KINDS, Origin, Search, StoredTrace

MAX_ANSWER_BYTES = 32 * 1024 * 1024  # of stored spans in one answer
MAX_DEPENDENCY_SPANS = 200_000


@dataclass(frozen=True, slots=True)
class Found:
    """Traces as JSON values. `cut` says that there were more than one answer may hold."""

    traces: Sequence[dict[str, Any]]
    cut: bool = False


def find(candidates: Iterable[StoredTrace], search: Search) -> Found:
    """The traces that fit `search`, those that began last first. Reads spans: not for the event loop."""
    found: list[dict[str, Any]] = []
    size = 0
    for trace in candidates:
        if len(found) >= search.limit:
            break
        if not _fits(trace, search):
            continue
        size += trace.size
        if size > MAX_ANSWER_BYTES and found:
            return Found(found, cut=True)
        found.append(written(trace))
    return Found(found)


def written(trace: StoredTrace) -> dict[str, Any]:
    """One trace with its processes."""
    keys: dict[bytes, str] = {}
    processes: dict[str, Any] = {}
    spans = []
    trace_id = trace.trace_id.hex()
    for stored in tuple(trace.spans):
        resource = stored.origin.resource
        key = keys.get(resource)
        if key is None:
            key = keys[resource] = f"p{len(keys) + 1}"
            processes[key] = _process(stored.origin)
        spans.append(_span(stored.decoded(), trace_id, key, _scope_tags(stored.origin)))
    return {"traceID": trace_id, "spans": spans, "processes": processes, "warnings": None}


def dependencies(traces: Iterable[StoredTrace], start_ns: int, end_ns: int) -> list[dict[str, Any]]:
    """Who called whom, and how often, in traces that began in the time range. Reads spans: not for the event loop."""
    calls: Counter[tuple[str, str]] = Counter()
    looked_at = 0
    for trace in traces:
        if not start_ns <= trace.start_ns <= end_ns:
            continue
        spans = [(stored.decoded(), stored.origin.service) for stored in tuple(trace.spans)]
        service_of = {span.span_id: service for span, service in spans}
        for span, service in spans:
            caller = service_of.get(span.parent_span_id)
            if caller is not None and caller != service:
                calls[caller, service] += 1
        looked_at += len(spans)
        if looked_at > MAX_DEPENDENCY_SPANS:
            break
    return [{"parent": parent, "child": child, "callCount": n} for (parent, child), n in sorted(calls.items())]


def _fits(trace: StoredTrace, search: Search) -> bool:
    for stored in tuple(trace.spans):
        if stored.origin.service != search.service:
            continue
        if search.start_ns is not None and stored.start_ns < search.start_ns:
            continue
        if search.end_ns is not None and stored.start_ns > search.end_ns:
            continue
        if not search.reads_spans or _span_fits(stored.decoded(), stored.origin, search):
            return True
    return False


def _span_fits(span: OtlpSpan, origin: Origin, search: Search) -> bool:
    if search.operation is not None and span.name != search.operation:
        return False
    duration = span.end_time_unix_nano - span.start_time_unix_nano
    if search.min_duration_ns is not None and duration < search.min_duration_ns:
        return False
    if search.max_duration_ns is not None and duration > search.max_duration_ns:
        return False
    if not search.tags:
        return True
    said: dict[str, set[str]] = {}
    for tag in (*_process(origin)["tags"], *_tags(span), *_scope_tags(origin), *_logged(span)):
        said.setdefault(tag["key"], set()).add(_as_text(tag["value"]))
    return all(value in said.get(key, ()) for key, value in search.tags.items())


def _logged(span: OtlpSpan) -> Iterator[dict[str, Any]]:
    for event in span.events:
        yield from _event_fields(event)


def _as_text(value: object) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)


def _span(span: OtlpSpan, trace_id: str, process: str, scope_tags: Sequence[dict[str, Any]]) -> dict[str, Any]:
    return {
        "traceID": trace_id,
        "spanID": span.span_id.hex(),
        "flags": 1,
        "operationName": span.name,
        "references": _references(span, trace_id),
        "startTime": span.start_time_unix_nano // 1000,
        "duration": (span.end_time_unix_nano - span.start_time_unix_nano) // 1000,
        "tags": [*_tags(span), *scope_tags],
        "logs": [{"timestamp": event.time_unix_nano // 1000, "fields": _event_fields(event)} for event in span.events],
        "processID": process,
        "warnings": None,
    }


def _references(span: OtlpSpan, trace_id: str) -> list[dict[str, str]]:
    references = []
    if any(span.parent_span_id):
        references.append({"refType": "CHILD_OF", "traceID": trace_id, "spanID": span.parent_span_id.hex()})
    references += [
        {"refType": "FOLLOWS_FROM", "traceID": link.trace_id.hex(), "spanID": link.span_id.hex()} for link in span.links
    ]
    return references


def _tags(span: OtlpSpan) -> list[dict[str, Any]]:
    tags = [_tag(attribute) for attribute in span.attributes]
    if 0 < span.kind < len(KINDS):
        tags.append(_text("span.kind", KINDS[span.kind]))
    if span.status.code == Status.STATUS_CODE_ERROR:
        tags += [_text("otel.status_code", "ERROR"), {"key": "error", "type": "bool", "value": True}]
    elif span.status.code == Status.STATUS_CODE_OK:
        tags.append(_text("otel.status_code", "OK"))
    if span.status.message:
        tags.append(_text("otel.status_description", span.status.message))
    if span.trace_state:
        tags.append(_text("w3c.tracestate", span.trace_state))
    return tags


def _scope_tags(origin: Origin) -> list[dict[str, Any]]:
    scope = InstrumentationScope.FromString(origin.scope)
    named = (("otel.scope.name", scope.name), ("otel.scope.version", scope.version))
    return [_text(key, value) for key, value in named if value]


def _process(origin: Origin) -> dict[str, Any]:
    attributes = Resource.FromString(origin.resource).attributes
    return {
        "serviceName": origin.service,
        "tags": [_tag(attribute) for attribute in attributes if attribute.key != "service.name"],
    }


def _event_fields(event: OtlpSpan.Event) -> list[dict[str, Any]]:
    name = [_text("event", event.name)] if event.name else []
    return [*name, *(_tag(attribute) for attribute in event.attributes)]


def _text(key: str, value: str) -> dict[str, Any]:
    return {"key": key, "type": "string", "value": value}


def _tag(attribute: KeyValue) -> dict[str, Any]:
    value = attribute.value
    match value.WhichOneof("value"):
        case "string_value":
            return _text(attribute.key, value.string_value)
        case "bool_value":
            return {"key": attribute.key, "type": "bool", "value": value.bool_value}
        case "int_value":
            return {"key": attribute.key, "type": "int64", "value": value.int_value}
        case "double_value":
            return {"key": attribute.key, "type": "float64", "value": value.double_value}
        case "bytes_value":
            encoded = base64.b64encode(value.bytes_value).decode()
            return {"key": attribute.key, "type": "binary", "value": encoded}
        case None:
            return _text(attribute.key, "")
        case _:  # lists and maps, which Jaeger shows as JSON
            return _text(attribute.key, orjson.dumps(_plain(value)).decode())


def _plain(value: AnyValue) -> Any:
    """Lists and maps as JSON values. Protobuf refuses nesting beyond 100 levels, which bounds this too."""
    match value.WhichOneof("value"):
        case "array_value":
            return [_plain(each) for each in value.array_value.values]
        case "kvlist_value":
            return {each.key: _plain(each.value) for each in value.kvlist_value.values}
        case "bytes_value":
            return base64.b64encode(value.bytes_value).decode()
        case None:
            return None
        case name:
            return getattr(value, name)
