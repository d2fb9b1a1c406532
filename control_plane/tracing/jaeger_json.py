"""Traces as Jaeger's query API and its "download JSON" write them, read into spans and written back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from control_plane.errors import InvalidDefinition
from control_plane.tracing.spans import Span, SpanKind, TagValue, Trace

UNKNOWN_SERVICE = "unknown"
MAX_PROBLEMS = 50  # after so many, the reader knows; the rest is counted


@dataclass(frozen=True, slots=True)
class TraceDocument:
    """What a document held. `problems` names in plain words each thing that was left out or not understood."""

    traces: Sequence[Trace]
    problems: Sequence[str]


def read_traces(content: bytes) -> TraceDocument:
    """Reads Jaeger JSON. Raises InvalidDefinition when it is no such document; bad spans are left out and named."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError as error:
        start = content[:80].lstrip()
        if start.startswith(b"<"):
            raise InvalidDefinition("this is markup, not JSON: save the trace with Jaeger's 'Download JSON'") from error
        raise InvalidDefinition(
            f"this is not complete JSON (line {error.lineno}, column {error.colno}: {error.msg})"
        ) from error
    return parse_traces(document)


def parse_traces(document: object) -> TraceDocument:
    """Like `read_traces`, from JSON that was decoded already: an answer with `data`, or one bare trace."""
    problems = _Problems()
    traces: list[Trace] = []
    for number, raw in enumerate(_traces_of(document), start=1):
        trace = _trace(raw, f"trace {number}", problems)
        if trace is not None:
            traces.append(trace)
    return TraceDocument(traces, problems.listed())


def jaeger_document(traces: Iterable[Trace]) -> dict[str, Any]:
    """The envelope of Jaeger's query API around `traces`; `parse_traces` gives them back."""
    return {"data": [_written(trace) for trace in traces], "total": 0, "limit": 0, "offset": 0, "errors": None}


class _Problems:
    """Keeps the first few problems as sentences and counts the others: bad input must not fill memory."""

    def __init__(self) -> None:
        self._sentences: list[str] = []
        self._beyond = 0

    def add(self, sentence: str) -> None:
        if len(self._sentences) < MAX_PROBLEMS:
            self._sentences.append(sentence)
        else:
            self._beyond += 1

    def listed(self) -> list[str]:
        return [*self._sentences, *([f"and {self._beyond} more like these"] if self._beyond else [])]


def _traces_of(document: object) -> list[Any]:
    if isinstance(document, dict):
        if isinstance(document.get("data"), list):
            return list(document["data"])
        if isinstance(document.get("spans"), list):
            return [document]
        if errors := document.get("errors"):
            raise InvalidDefinition(f"Jaeger answered with errors instead of traces: {str(errors)[:200]}")
    raise InvalidDefinition(
        "this is not Jaeger JSON: expected an object with a list named 'data' (or one with 'spans')"
    )


def _trace(raw: object, where: str, problems: _Problems) -> Trace | None:
    if not isinstance(raw, dict) or not isinstance(raw.get("spans"), list):
        problems.add(f"{where}: is no object with a list of 'spans'; left out")
        return None
    raw_spans = raw["spans"]
    trace_id = raw.get("traceID")
    if not isinstance(trace_id, str) or not trace_id:
        first = raw_spans[0] if raw_spans else None
        trace_id = first.get("traceID") if isinstance(first, dict) else None
        if not isinstance(trace_id, str) or not trace_id:
            problems.add(f"{where}: has no 'traceID'; left out")
            return None
    services = _services(raw.get("processes"))
    spans = []
    for number, raw_span in enumerate(raw_spans, start=1):
        try:
            spans.append(_span(raw_span, trace_id, services))
        except _Unreadable as reason:
            problems.add(f"trace {trace_id}, span {number}: {reason}; left out")
    unknown = sum(span.service == UNKNOWN_SERVICE for span in spans)
    if unknown:
        problems.add(f"trace {trace_id}: {unknown} span(s) do not say which service they belong to")
    if not raw_spans:
        problems.add(f"trace {trace_id}: has no spans")
    return Trace(trace_id, spans)


class _Unreadable(Exception):
    """Why one span cannot be used."""


def _services(processes: object) -> Mapping[str, str]:
    """Service name by process id."""
    if not isinstance(processes, dict):
        return {}
    return {
        key: process["serviceName"]
        for key, process in processes.items()
        if isinstance(process, dict) and isinstance(process.get("serviceName"), str)
    }


def _span(raw: Any, trace_id: str, services: Mapping[str, str]) -> Span:
    if not isinstance(raw, dict):
        raise _Unreadable("is no object")
    span_id, operation = raw.get("spanID"), raw.get("operationName")
    if not isinstance(span_id, str) or not span_id:
        raise _Unreadable("has no 'spanID'")
    if not isinstance(operation, str):
        raise _Unreadable(f"{span_id} has no 'operationName'")
    start, duration = _microseconds(raw, "startTime", span_id), _microseconds(raw, "duration", span_id)
    if duration < 0:
        raise _Unreadable(f"{span_id} has the negative duration {duration}")
    parent_id, follows = _parent(raw, trace_id)
    tags = _tags(raw.get("tags"))
    process = raw.get("processID")
    process = process if isinstance(process, str) else ""
    service = services.get(process) or _services({"own": raw.get("process")}).get("own", UNKNOWN_SERVICE)
    return Span(
        trace_id=trace_id,
        span_id=span_id,
        service=service,
        operation=operation,
        start_us=start,
        duration_us=duration,
        parent_id=parent_id,
        follows=follows,
        kind=_KINDS.get(str(tags.get("span.kind", "")).lower(), SpanKind.UNSPECIFIED),
        process=process,
        tags=tags,
    )


_KINDS = {kind.value: kind for kind in SpanKind}


def _microseconds(raw: Mapping[str, Any], name: str, span_id: str) -> int:
    value = raw.get(name)
    if type(value) is int:
        return value
    if isinstance(value, float) and value.is_integer():
        return int(value)
    raise _Unreadable(f"{span_id} has no whole number of microseconds in {name!r}")


def _parent(raw: Mapping[str, Any], trace_id: str) -> tuple[str | None, bool]:
    """Parent id and whether this span only follows it. CHILD_OF outranks FOLLOWS_FROM; other traces are no parents."""
    followed: str | None = None
    references = raw.get("references")
    for reference in references if isinstance(references, list) else ():
        if not isinstance(reference, dict) or not isinstance(parent := reference.get("spanID"), str) or not parent:
            continue
        if not _same_trace(reference.get("traceID"), trace_id):
            continue
        if reference.get("refType") == "FOLLOWS_FROM":
            followed = followed or parent
        else:
            return parent, False
    if followed is not None:
        return followed, True
    older = raw.get("parentSpanID")  # written by old versions instead of references
    return (older, False) if isinstance(older, str) and older.strip("0") else (None, False)


def _same_trace(other: object, trace_id: str) -> bool:
    """Stores differ in case and in leading zeros; a reference without a trace means its own."""
    if other is None or other == trace_id:
        return True
    return isinstance(other, str) and other.lower().lstrip("0") == trace_id.lower().lstrip("0")


def _tags(raw: object) -> Mapping[str, TagValue]:
    if not isinstance(raw, list):
        return {}
    return {
        key: value
        for tag in raw
        if isinstance(tag, dict)
        and isinstance(key := tag.get("key"), str)
        and isinstance(value := tag.get("value"), _TAG_VALUES)
    }


_TAG_VALUES = (str, int, float)  # bool is an int; a tuple is checked faster than a union


def _written(trace: Trace) -> dict[str, Any]:
    processes: dict[tuple[str, str], str] = {}
    for span in trace.spans:
        processes.setdefault((span.service, span.process), f"p{len(processes) + 1}")
    return {
        "traceID": trace.trace_id,
        "spans": [_written_span(span, processes[span.service, span.process]) for span in trace.spans],
        "processes": {key: {"serviceName": service, "tags": []} for (service, _), key in processes.items()},
        "warnings": None,
    }


def _written_span(span: Span, process: str) -> dict[str, Any]:
    tags = dict(span.tags)
    if span.kind is not SpanKind.UNSPECIFIED:
        tags["span.kind"] = span.kind.value
    kind_of_reference = "FOLLOWS_FROM" if span.follows else "CHILD_OF"
    reference = {"refType": kind_of_reference, "traceID": span.trace_id, "spanID": span.parent_id}
    return {
        "traceID": span.trace_id,
        "spanID": span.span_id,
        "operationName": span.operation,
        "references": [reference] if span.parent_id is not None else [],
        "startTime": span.start_us,
        "duration": span.duration_us,
        "tags": [{"key": key, "type": _type_name(value), "value": value} for key, value in tags.items()],
        "logs": [],
        "processID": process,
        "warnings": None,
    }


def _type_name(value: TagValue) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int):
        return "int64"
    return "float64" if isinstance(value, float) else "string"
