"""Builders of spans and traces; each test states only what it is about."""

from __future__ import annotations

from typing import Any

from control_plane.tracing.spans import Span, Trace


def a_span(span_id: str, start: int, end: int, parent: str | None = None, **changes: Any) -> Span:
    """A span named after its id, of a service of the same name, unless told otherwise."""
    values: dict[str, Any] = {
        "trace_id": "t",
        "span_id": span_id,
        "service": span_id,
        "operation": span_id,
        "start_us": start,
        "duration_us": end - start,
        "parent_id": parent,
        "process": f"process of {changes.get('service', span_id)}",
        **changes,
    }
    return Span(**values)


def a_trace(*spans: Span) -> Trace:
    return Trace("t", spans)
