"""What a trace is once it has been read: spans, their causes, and the few facts that analysis needs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum

TagValue = str | bool | int | float


class SpanKind(StrEnum):
    """Which side of a call a span saw. UNSPECIFIED is "the tracer did not say"."""

    UNSPECIFIED = "unspecified"
    INTERNAL = "internal"
    SERVER = "server"
    CLIENT = "client"
    PRODUCER = "producer"
    CONSUMER = "consumer"


@dataclass(frozen=True, slots=True)
class Span:
    """One operation of one service. Times are whole microseconds; `start_us` counts from the Unix epoch."""

    trace_id: str  # as the store writes it
    span_id: str
    service: str
    operation: str
    start_us: int
    duration_us: int  # never negative
    parent_id: str | None = None  # the span that caused this one; None for a root
    follows: bool = False  # the parent caused this span but does not wait for it (FOLLOWS_FROM)
    kind: SpanKind = SpanKind.UNSPECIFIED
    process: str = ""  # which running copy of the service, and so which clock; "" when not known
    tags: Mapping[str, TagValue] = field(default_factory=dict)

    @property
    def end_us(self) -> int:
        return self.start_us + self.duration_us


@dataclass(frozen=True, slots=True)
class Trace:
    """All spans that were kept of one request, in no particular order. It may lack some: they get lost or come late."""

    trace_id: str
    spans: Sequence[Span]
