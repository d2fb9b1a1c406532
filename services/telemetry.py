"""What a replica tells of itself: the metrics of the migration document and one trace span for each request.

One thin ASGI layer does both. FastAPI's own telemetry is off: together they make two spans at a third of the speed.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from opentelemetry import context as otel_context
from opentelemetry import trace
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanContext, SpanKind, Status, StatusCode, TraceFlags, TraceState
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from starlette.types import ASGIApp, Message, Receive, Scope, Send

log = logging.getLogger(__name__)

DURATION_BUCKETS: Final = (0.1, 0.2, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""The document's, and 0.2: without a bucket that ends at the objective (200 ms) nobody could tell who met it."""

FIRST_TOKEN_BUCKETS: Final = (0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
METHODS: Final = frozenset({"GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"})
UNMATCHED: Final = "unmatched"
"""`endpoint` of every path that no route knows: a scanner must not make a series for each guess."""

StreamOutcome = Literal["complete", "client_gone", "error", "reconnect"]
CallOutcome = Literal["ok", "error", "timeout", "unreachable"]


class Metrics:
    """The metric families of one process."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # a series for each series, which nobody reads
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        by_route = ("service", "endpoint", "method")
        self.requests = Counter(
            "http_requests_total", "Total number of HTTP requests", (*by_route, "status_code"), registry=registry
        )
        self.duration = Histogram(
            "http_request_duration_seconds",
            "HTTP request duration in seconds; streams to their first byte",
            by_route,
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.own_duration = Histogram(
            "http_request_own_duration_seconds",
            "HTTP request duration without the wait for a model provider, in seconds; streams to their first byte",
            by_route,
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.in_flight = Gauge("http_requests_in_flight", "Requests being served", ("service",), registry=registry)
        self.stream_ends = Counter(
            "http_stream_ends_total",
            "Event streams that ended, by how",
            ("service", "endpoint", "outcome"),
            registry=registry,
        )
        self.stream_duration = Histogram(
            "http_stream_duration_seconds",
            "Whole length of event streams in seconds",
            ("service", "endpoint"),
            buckets=(0.5, 1, 2.5, 5, 10, 30, 60, 300),
            registry=registry,
        )
        self.client_requests = Counter(
            "http_client_requests_total",
            "Calls to other services, by outcome",
            ("service", "peer", "outcome"),
            registry=registry,
        )
        self.client_duration = Histogram(
            "http_client_request_duration_seconds",
            "Duration of calls to other services in seconds; streams to their first byte",
            ("service", "peer"),
            buckets=DURATION_BUCKETS,
            registry=registry,
        )
        self.provider_wait = Histogram(
            "provider_wait_seconds",
            "Time that requests waited for a model provider, in seconds",
            ("service", "provider"),
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30),
            registry=registry,
        )
        self.first_token = Histogram(
            "chat_first_token_seconds",
            "From a chat's arrival to the first token of its reply, in seconds",
            ("service",),
            buckets=FIRST_TOKEN_BUCKETS,
            registry=registry,
        )
        by_kind = ("service", "kind")
        self.slots = Gauge("http_slots", "Requests or streams served at a time, at most", by_kind, registry=registry)
        self.slots_in_use = Gauge("http_slots_in_use", "Slots that are taken", by_kind, registry=registry)
        self.queue_length = Gauge("http_queue_length", "Requests that wait for a slot", by_kind, registry=registry)
        self.shed = Counter(
            "http_requests_shed_total",
            "Requests refused because every slot stayed taken",
            ("service",),
            registry=registry,
        )
        self.spans_lost = Counter(
            "telemetry_spans_lost_total", "Spans that could not be handed to the trace store", registry=registry
        )
        self._business: dict[str, Counter] = {}

    def business_counter(self, name: str, documentation: str, labels: Sequence[str]) -> Counter:
        """A counter of a service's own; asking again gives the same one."""
        if name not in self._business:
            self._business[name] = Counter(name, documentation, ("service", *labels), registry=self.registry)
        return self._business[name]


@dataclass(slots=True)
class RequestRecord:
    """What a request gathers on its way, for whoever serves it."""

    started: float  # monotonic seconds
    span: Span
    provider_wait: float = 0.0  # seconds
    fault: str | None = None  # the injected fault behind the answer, if any
    stream_outcome: StreamOutcome | None = None
    slot: Any = None  # the lease it holds, if slots are in front


_current: ContextVar[RequestRecord | None] = ContextVar("request_record", default=None)


def current_request() -> RequestRecord | None:
    """The request that is being served here; None outside of one."""
    return _current.get()


def current_trace_id() -> str | None:
    """Trace id of the request being served, 32 hex digits; None outside of one."""
    span_context = trace.get_current_span().get_span_context()
    return f"{span_context.trace_id:032x}" if span_context.is_valid else None


class Tracing:
    """Spans of one process, on their way to a trace store. With no store nothing is recorded, but ids are passed on."""

    def __init__(self, sampling_rate: float, processor: SpanProcessor | None, resource: Mapping[str, str]) -> None:
        self._sampler = ParentBased(TraceIdRatioBased(sampling_rate if processor else 0.0))
        self._processor = processor
        self._resource = resource

    def tracer(self, service: str) -> trace.Tracer:
        """A service's own tracer: in the monolith each domain keeps its name, so traces read alike on both backends."""
        provider = TracerProvider(
            sampler=self._sampler,
            resource=Resource({"service.name": service, **self._resource}),
            shutdown_on_exit=False,
        )
        if self._processor:
            provider.add_span_processor(self._processor)
        return provider.get_tracer("librechat")

    def close(self) -> None:
        """Send what is left; a dead store delays the end by a second or two, no more."""
        if self._processor:
            self._processor.shutdown()


class QuietExporter(SpanExporter):
    """Hands spans to a store that may be down: losses are counted, and told once a spell instead of once a batch."""

    def __init__(self, inner: SpanExporter, metrics: Metrics) -> None:
        self._inner = inner
        self._lost = metrics.spans_lost
        self._failing = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        try:
            result = self._inner.export(spans)
        except Exception:  # noqa: BLE001  the outer turn of the export thread
            result = SpanExportResult.FAILURE
        failed = result is not SpanExportResult.SUCCESS
        if failed:
            self._lost.inc(len(spans))
        if failed and not self._failing:
            log.warning("the trace store does not take spans; they are dropped until it does")
        if self._failing and not failed:
            log.info("the trace store takes spans again")
        self._failing = failed
        return SpanExportResult.SUCCESS

    def shutdown(self) -> None:
        self._inner.shutdown()


def otlp_tracing(otlp_url: str | None, sampling_rate: float, metrics: Metrics, resource: Mapping[str, str]) -> Tracing:
    """Tracing that exports in batches over OTLP/HTTP; with `otlp_url` None nothing is recorded."""
    if otlp_url is None:
        return Tracing(sampling_rate, None, resource)
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # slow to import

    for noisy in ("opentelemetry.exporter", "opentelemetry.sdk", "urllib3"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    exporter = OTLPSpanExporter(endpoint=f"{otlp_url.rstrip('/')}/v1/traces", timeout=2)
    processor = BatchSpanProcessor(
        QuietExporter(exporter, metrics), max_queue_size=4096, schedule_delay_millis=1000, max_export_batch_size=512
    )
    return Tracing(sampling_rate, processor, resource)


class ServiceTelemetry:
    """Metrics and spans of one service, its name filled in."""

    def __init__(self, service: str, metrics: Metrics, tracing: Tracing) -> None:
        self.service = service
        self.metrics = metrics
        self.tracer = tracing.tracer(service)
        self.in_flight = metrics.in_flight.labels(service)
        metrics.shed.labels(service)  # a count that starts at 0 shows its first increment
        for kind in ("request", "stream"):
            metrics.slots_in_use.labels(service, kind)
            metrics.queue_length.labels(service, kind)
        self._children: dict[tuple[str, str, int], tuple[Any, Any, Any]] = {}

    def counter(self, name: str, documentation: str, labels: Sequence[str] = ()) -> Any:
        """A business counter with `service` bound: `counter("logins_total", "...", ["outcome"])("ok")` adds one."""
        family = self.metrics.business_counter(name, documentation, labels)

        def add(*values: str, by: float = 1) -> None:
            family.labels(self.service, *values).inc(by)

        return add

    @contextmanager
    def provider_call(self, provider: str) -> Iterator[ProviderCall]:
        """Around one reply of a model provider. It gets a span, so traces blame the right one.

        Time inside `call.waiting()` is the provider's and not this service's own; one sample of it is taken at the end.
        """
        span = self.tracer.start_span(
            f"provider {provider}", kind=SpanKind.CLIENT, attributes={"peer.service": f"provider-{provider}"}
        )
        call = ProviderCall(_current.get())
        try:
            yield call
        except Exception as error:
            span.set_status(Status(StatusCode.ERROR, type(error).__name__))
            raise
        finally:
            span.end()
            self.metrics.provider_wait.labels(self.service, provider).observe(call.waited)

    def first_token(self) -> None:
        """Say that the reply's first token is here."""
        if record := _current.get():
            self.metrics.first_token.labels(self.service).observe(time.perf_counter() - record.started)

    @contextmanager
    def calling(self, peer: str, name: str) -> Iterator[PeerCall]:
        """Around one call to another service: counts it, times it, and gives it a span whose headers travel along."""
        span = self.tracer.start_span(name, kind=SpanKind.CLIENT, attributes={"peer.service": peer})
        call = PeerCall(span)
        started = time.perf_counter()
        abandoned = False
        try:
            yield call
        except (asyncio.CancelledError, GeneratorExit):  # we left, so the peer is not to blame
            abandoned = True
            raise
        finally:
            ended = call.answered_at or time.perf_counter()
            if not abandoned:
                self.metrics.client_requests.labels(self.service, peer, call.outcome).inc()
                self.metrics.client_duration.labels(self.service, peer).observe(ended - started)
            if call.status is not None:
                span.set_attribute("http.response.status_code", call.status)
            if call.outcome != "ok" and not abandoned:
                span.set_status(Status(StatusCode.ERROR, call.outcome))
            span.end()

    def observe(self, endpoint: str, method: str, status: int, seconds: float, own_seconds: float) -> None:
        """Count one answered request."""
        key = (endpoint, method, status)
        children = self._children.get(key)
        if children is None:  # finding a labelled child costs more than using it
            labels = (self.service, endpoint, method)
            children = (
                self.metrics.requests.labels(*labels, str(status)),
                self.metrics.duration.labels(*labels),
                self.metrics.own_duration.labels(*labels),
            )
            self._children[key] = children
        children[0].inc()
        children[1].observe(seconds)
        children[2].observe(own_seconds)


class ProviderCall:
    """Adds up the time that a request waits for its provider."""

    def __init__(self, record: RequestRecord | None) -> None:
        self._record = record
        self.waited = 0.0  # seconds

    @contextmanager
    def waiting(self) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            seconds = time.perf_counter() - started
            self.waited += seconds
            if self._record:
                self._record.provider_wait += seconds


@dataclass(slots=True)
class PeerCall:
    """One call on its way; the caller says how it went."""

    span: Span
    outcome: CallOutcome = "error"
    status: int | None = None
    answered_at: float | None = None  # perf_counter seconds
    headers: dict[str, str] = field(init=False)

    def __post_init__(self) -> None:
        self.headers = {"traceparent": traceparent(self.span.get_span_context())}

    def answered(self, status: int) -> None:
        """The answer's head is here. 4xx is an answer the peer meant to give; only 5xx is a failure of the peer."""
        self.status = status
        self.answered_at = time.perf_counter()
        self.outcome = "error" if status >= 500 else "ok"


def traceparent(span: SpanContext) -> str:
    """W3C Trace Context header for a call under this span."""
    return f"00-{span.trace_id:032x}-{span.span_id:016x}-{span.trace_flags:02x}"


def parent_from(header: bytes | None) -> otel_context.Context:
    """The caller's span from a `traceparent` header; an empty context when there is none or it is malformed."""
    if header is None or len(header) < 55 or header[2:3] != b"-" or header[:2] == b"ff":
        return otel_context.Context()
    try:
        span_context = SpanContext(
            trace_id=int(header[3:35], 16),
            span_id=int(header[36:52], 16),
            is_remote=True,
            trace_flags=TraceFlags(int(header[53:55], 16)),
            trace_state=TraceState(),
        )
    except ValueError:
        return otel_context.Context()
    if not span_context.is_valid:
        return otel_context.Context()
    return trace.set_span_in_context(trace.NonRecordingSpan(span_context), otel_context.Context())


class TelemetryLayer:
    """ASGI layer around everything that answers users: one span, one count and one duration for each request."""

    def __init__(self, app: ASGIApp, routes: RouteTable) -> None:
        self._app = app
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        telemetry = self._routes.service_of(scope["path"])
        method = scope["method"] if scope["method"] in METHODS else "OTHER"
        header = next((value for name, value in scope["headers"] if name == b"traceparent"), None)
        span = telemetry.tracer.start_span(method, context=parent_from(header), kind=SpanKind.SERVER)
        record = RequestRecord(time.perf_counter(), span)
        watch = _AnswerWatch(telemetry, self._routes, method, record, scope, send)
        context_token = otel_context.attach(trace.set_span_in_context(span))
        record_token = _current.set(record)
        telemetry.in_flight.inc()
        try:
            await self._app(scope, receive, watch.send)
        except Exception:  # the outer loop of one request
            watch.failed = True
            log.exception("%s %s failed", method, self._routes.endpoint_of(scope))
            if watch.status is None:
                await watch.send({"type": "http.response.start", "status": 500, "headers": []})
                await watch.send({"type": "http.response.body", "body": b""})
        except BaseException:  # cancelled: the server is going down
            watch.failed = True
            raise
        finally:
            telemetry.in_flight.dec()
            watch.finish()
            _current.reset(record_token)
            otel_context.detach(context_token)


class _AnswerWatch:
    """Sees an answer leave, and knows from it when to count what."""

    def __init__(
        self,
        telemetry: ServiceTelemetry,
        routes: RouteTable,
        method: str,
        record: RequestRecord,
        scope: Scope,
        send: Send,
    ) -> None:
        self._telemetry = telemetry
        self._routes = routes
        self._method = method
        self._record = record
        self._scope = scope
        self._send = send
        self._streams = False
        self._counted = False
        self._complete = False
        self.status: int | None = None
        self.failed = False

    async def send(self, message: Message) -> None:
        kind = message["type"]
        if kind == "http.response.start":
            self.status = message["status"]
            for name, value in message["headers"]:
                if name == b"content-type":
                    self._streams = value.startswith(b"text/event-stream")
                    break
            await self._send(message)
            return
        await self._send(message)
        if kind == "http.response.body":
            if not message.get("more_body", False):
                self._complete = True
            if self._streams and not self._counted:
                self._count()

    def finish(self) -> None:
        endpoint = self._routes.endpoint_of(self._scope)
        if not self._counted:
            self._count()
        if self._streams:
            outcome = self._record.stream_outcome or ("complete" if self._complete else "client_gone")
            if self.failed:
                outcome = "error"
            metrics, service = self._telemetry.metrics, self._telemetry.service
            metrics.stream_ends.labels(service, endpoint, outcome).inc()
            metrics.stream_duration.labels(service, endpoint).observe(time.perf_counter() - self._record.started)
            self._record.span.set_attribute("stream.outcome", outcome)
        span = self._record.span
        if span.is_recording():
            self._describe(span, endpoint)
        span.end()

    def _count(self) -> None:
        self._counted = True
        seconds = time.perf_counter() - self._record.started
        own = max(0.0, seconds - self._record.provider_wait)
        # 499: the client left before there was an answer, which is nobody's error
        self._telemetry.observe(self._routes.endpoint_of(self._scope), self._method, self.status or 499, seconds, own)

    def _describe(self, span: Span, endpoint: str) -> None:
        span.update_name(f"{self._method} {endpoint}")
        status = self.status or 499
        span.set_attributes(
            {
                "http.request.method": self._method,
                "http.route": endpoint,
                "url.path": self._scope["path"],
                "http.response.status_code": status,
            }
        )
        if self._record.fault:
            span.set_attribute("backstay.fault", self._record.fault)
        if status >= 500 or self.failed or self._record.stream_outcome == "error":
            span.set_status(Status(StatusCode.ERROR))


class RouteTable:
    """What a path belongs to, known without routing: shed and broken requests have a service and a template as well."""

    def __init__(
        self,
        telemetries: Mapping[str, ServiceTelemetry],
        default: ServiceTelemetry,
        templates: Sequence[tuple[re.Pattern[str], str]] = (),
    ) -> None:
        self._by_prefix = [
            (prefix, telemetries[service]) for prefix, service in ROUTE_PREFIXES.items() if service in telemetries
        ]
        self._default = default
        self._templates = templates

    def service_of(self, path: str) -> ServiceTelemetry:
        """By the gateway's own prefixes; the process's first service for all else."""
        for prefix, telemetry in self._by_prefix:
            if path.startswith(prefix):
                return telemetry
        return self._default

    def endpoint_of(self, scope: MutableMapping[str, Any]) -> str:
        """Template of the route that served the request, or that would have."""
        route = scope.get("route")
        if route is not None:
            return str(route.path)
        return next((template for pattern, template in self._templates if pattern.match(scope["path"])), UNMATCHED)


ROUTE_PREFIXES: Final[Mapping[str, str]] = {
    "/api/auth": "identity-service",
    "/api/users": "identity-service",
    "/api/conversations": "conversation-service",
    "/v1/chat": "ai-gateway-service",
    "/v1/models": "ai-gateway-service",
    "/api/files": "file-service",
    "/api/search": "search-service",
    "/api/notifications": "notification-service",
    "/api/streams": "streaming-service",
}
"""The gateway's routes: the first part of a path names its service."""
