"""Traces in bounded memory, found by service, operation and time.

Spans stay as the bytes they came in and are decoded when somebody asks: almost all are dropped without ever being read,
and bytes can be counted exactly.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1.trace_pb2 import Span as OtlpSpan

from control_plane.clock import Monotonic

NO_SERVICE_NAME = "OTLPResourceNoServiceName"  # the name that Jaeger gives such spans

BUCKET_NS = 10_000_000_000
"""Traces are indexed by the 10 s in which a service's span began: a search looks at those of its time range only."""

SPAN_OVERHEAD_BYTES = 150  # of the objects around one span's bytes
TRACE_OVERHEAD_BYTES = 900  # of the objects around one trace
INDEX_OVERHEAD_BYTES = 250  # of one place of a trace in the index
MAX_OPERATIONS = 2_000  # a service; names made of ids must not fill memory

KINDS = ("unspecified", "internal", "server", "client", "producer", "consumer")  # by OTLP's number


@dataclass(frozen=True, slots=True)
class Limits:
    """How much is kept. Whichever is reached first makes the oldest whole traces go."""

    max_bytes: int = 128 * 1024 * 1024
    max_age_seconds: float = 3600.0

    @property
    def max_trace_bytes(self) -> int:
        """One runaway trace must not push out all the others."""
        return self.max_bytes // 8


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """Who sent a span: its resource and instrumentation scope, shared by all spans of the same."""

    service: str
    resource: bytes  # serialised
    scope: bytes  # serialised


@dataclass(frozen=True, slots=True, eq=False)
class StoredSpan:
    origin: Origin
    start_ns: int
    raw: bytes  # serialised OTLP span

    def decoded(self) -> OtlpSpan:
        span: OtlpSpan = OtlpSpan.FromString(self.raw)
        return span


@dataclass(slots=True, eq=False)
class StoredTrace:
    """The spans that came for one trace id, in order of arrival."""

    trace_id: bytes
    received_at: float  # monotonic seconds of its first span
    start_ns: int
    spans: list[StoredSpan] = field(default_factory=list)
    operations: set[tuple[str, str]] = field(default_factory=set)  # (service, operation)
    places: set[tuple[str, int]] = field(default_factory=set)  # (service, bucket) in the index
    size: int = TRACE_OVERHEAD_BYTES


@dataclass(frozen=True, slots=True)
class Search:
    """What to look for. A trace is found when one of its spans fits everything; times are nanoseconds."""

    service: str
    operation: str | None = None
    start_ns: int | None = None  # a span begins no earlier
    end_ns: int | None = None  # and no later
    min_duration_ns: int | None = None
    max_duration_ns: int | None = None
    tags: Mapping[str, str] = field(default_factory=dict)
    limit: int = 100

    @property
    def reads_spans(self) -> bool:
        """Whether the index is not enough."""
        durations = (self.min_duration_ns, self.max_duration_ns)
        return bool(self.operation or self.tags or any(each is not None for each in durations))


class TraceStore:
    """Not thread-safe for writing; what `candidates` returned may be read from another thread."""

    def __init__(self, limits: Limits, monotonic: Monotonic) -> None:
        self._limits = limits
        self._now = monotonic
        self._traces: OrderedDict[bytes, StoredTrace] = OrderedDict()  # by arrival: the first is the oldest
        self._index: dict[str, dict[int, dict[bytes, StoredTrace]]] = {}
        self._operations: dict[str, dict[tuple[str, int], float]] = {}  # service: (operation, kind): last seen
        self._origins: dict[tuple[bytes, bytes], Origin] = {}
        self.bytes = 0
        self.spans = 0
        self.received = 0
        self.rejected: Counter[str] = Counter()  # spans by reason
        self.evicted: Counter[str] = Counter()  # traces by reason

    def __len__(self) -> int:
        return len(self._traces)

    @property
    def oldest_seconds(self) -> float:
        """Age of the oldest trace; 0 when there is none."""
        return self._now() - next(iter(self._traces.values())).received_at if self._traces else 0.0

    def add(self, request: ExportTraceServiceRequest) -> Counter[str]:
        """Keeps the spans of one request; returns how many were rejected, by reason."""
        now = self._now()
        rejected: Counter[str] = Counter()
        for resource_spans in request.resource_spans:
            resource = resource_spans.resource.SerializeToString()
            for scope_spans in resource_spans.scope_spans:
                origin = self._origin(resource_spans, resource, scope_spans.scope.SerializeToString())
                for span in scope_spans.spans:
                    reason = self._add_span(span, origin, now)
                    if reason is not None:
                        rejected[reason] += 1
                self.received += len(scope_spans.spans)
        self.rejected.update(rejected)
        self.evict()
        return rejected

    def evict(self) -> None:
        """Drops the oldest traces until both limits hold."""
        earliest = self._now() - self._limits.max_age_seconds
        while self._traces:
            oldest = next(iter(self._traces.values()))
            if self.bytes > self._limits.max_bytes:
                self.evicted["memory"] += 1
            elif oldest.received_at < earliest:
                self.evicted["age"] += 1
            else:
                return
            self._drop(oldest)

    def trace(self, trace_id: bytes) -> StoredTrace | None:
        return self._traces.get(trace_id)

    def services(self) -> Sequence[str]:
        """Names of services with spans in memory, sorted."""
        return sorted(self._index)

    def operations(self, service: str) -> Sequence[tuple[str, str]]:
        """(operation, kind) of one service that were seen within the age limit, sorted."""
        earliest = self._now() - self._limits.max_age_seconds
        seen = self._operations.get(service, {})
        return sorted((name, KINDS[kind]) for (name, kind), last in seen.items() if last >= earliest)

    def candidates(self, search: Search) -> Iterator[StoredTrace]:
        """Traces that the index allows, those that began last first; each may still have to be looked into."""
        buckets = self._index.get(search.service, {})
        first = None if search.start_ns is None else search.start_ns // BUCKET_NS
        last = None if search.end_ns is None else search.end_ns // BUCKET_NS
        seen: set[bytes] = set()
        for bucket in sorted(buckets, reverse=True):
            if (last is not None and bucket > last) or (first is not None and bucket < first):
                continue
            for trace in sorted(buckets[bucket].values(), key=lambda each: each.start_ns, reverse=True):
                if trace.trace_id in seen:
                    continue
                seen.add(trace.trace_id)
                if search.operation is None or (search.service, search.operation) in trace.operations:
                    yield trace

    def newest_first(self) -> Iterable[StoredTrace]:
        return reversed(self._traces.values())

    def _add_span(self, span: OtlpSpan, origin: Origin, now: float) -> str | None:
        """Keeps one span; returns why not if it is not kept."""
        trace_id = span.trace_id
        start_ns = span.start_time_unix_nano
        if len(trace_id) != 16 or len(span.span_id) != 8 or not any(trace_id):
            return "a trace id needs 16 bytes and a span id 8"
        if span.end_time_unix_nano < start_ns:
            return "a span ended before it began"
        raw = span.SerializeToString()
        size = len(raw) + SPAN_OVERHEAD_BYTES
        trace = self._traces.get(trace_id)
        if trace is None:
            trace = self._traces[trace_id] = StoredTrace(trace_id, now, start_ns)
            self.bytes += trace.size
        if trace.size + size > self._limits.max_trace_bytes:
            return "the trace is too large"
        trace.spans.append(StoredSpan(origin, start_ns, raw))
        trace.start_ns = min(trace.start_ns, start_ns)
        size += self._index_span(trace, span, origin.service, start_ns, now)
        trace.size += size
        self.bytes += size
        self.spans += 1
        return None

    def _index_span(self, trace: StoredTrace, span: OtlpSpan, service: str, start_ns: int, now: float) -> int:
        """Makes one span findable; returns the bytes that this takes."""
        taken = 0
        name = span.name
        if (service, name) not in trace.operations:
            trace.operations.add((service, name))
            taken += INDEX_OVERHEAD_BYTES
        known = self._operations.setdefault(service, {})
        operation = (name, span.kind if 0 <= span.kind < len(KINDS) else 0)
        if operation in known or len(known) < MAX_OPERATIONS:
            known[operation] = now
        place = (service, start_ns // BUCKET_NS)
        if place not in trace.places:
            trace.places.add(place)
            self._index.setdefault(service, {}).setdefault(place[1], {})[trace.trace_id] = trace
            taken += INDEX_OVERHEAD_BYTES
        return taken

    def _drop(self, trace: StoredTrace) -> None:
        del self._traces[trace.trace_id]
        self.bytes -= trace.size
        self.spans -= len(trace.spans)
        for service, bucket in trace.places:
            buckets = self._index[service]
            del buckets[bucket][trace.trace_id]
            if not buckets[bucket]:
                del buckets[bucket]
            if not buckets:
                del self._index[service]
                self._operations.pop(service, None)

    def _origin(self, resource_spans: object, resource: bytes, scope: bytes) -> Origin:
        key = (resource, scope)
        origin = self._origins.get(key)
        if origin is None:
            if len(self._origins) >= 4096:  # spans hold their own; only the sharing starts anew
                self._origins.clear()
            origin = self._origins[key] = Origin(_service_name(resource_spans), resource, scope)
        return origin


def _service_name(resource_spans: object) -> str:
    attributes = resource_spans.resource.attributes  # type: ignore[attr-defined]
    return next((each.value.string_value for each in attributes if each.key == "service.name"), "") or NO_SERVICE_NAME
