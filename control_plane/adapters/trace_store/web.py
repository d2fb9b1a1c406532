"""The HTTP face of the trace store: OTLP in, and the calls of Jaeger's query API that Grafana and Jaeger's UI make."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Mapping
from typing import Any

import orjson
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.registry import Collector
from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from control_plane.adapters.trace_store import jaeger_answers, otlp
from control_plane.adapters.trace_store.store import Search, TraceStore
from control_plane.clock import Clock

MAX_REQUEST_BYTES = 8 * 1024 * 1024
"""Largest export request, before and after compression."""

MAX_LIMIT = 1500  # traces in one answer; also the most that Jaeger's UI asks for
DEFAULT_LIMIT = 100
DAY_MS = 24 * 3600 * 1000


class _BadQuery(Exception):
    """A parameter is missing or cannot be read."""


def trace_store_app(store: TraceStore, clock: Clock, max_request_bytes: int = MAX_REQUEST_BYTES) -> Starlette:
    """An ASGI application around `store`."""
    registry = CollectorRegistry()
    registry.register(_StoreMetrics(store))

    async def take(request: Request) -> Response:
        media_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        try:
            body = await _body(request, max_request_bytes)
            plain = otlp.unpacked(body, request.headers.get("content-encoding", "").lower(), max_request_bytes)
            export = otlp.decoded(plain, media_type)
        except otlp.Refused as reason:
            return Response(str(reason) + "\n", reason.status, media_type="text/plain")
        rejected = store.add(export)
        return Response(otlp.answer(media_type, rejected.total(), "; ".join(rejected)), media_type=media_type)

    async def services(_: Request) -> Response:
        store.evict()
        names = store.services()
        return _answer(names, total=len(names))

    async def operation_names(request: Request) -> Response:
        names = sorted({name for name, _ in store.operations(request.path_params["service"])})
        return _answer(names, total=len(names))

    async def operations(request: Request) -> Response:
        service, wanted = request.query_params.get("service"), request.query_params.get("spanKind")
        if not service:
            return _error(400, "parameter 'service' is required")
        seen = store.operations(service)
        listed = [{"name": name, "spanKind": kind} for name, kind in seen if not wanted or kind == wanted]
        return _answer(listed, total=len(listed))

    async def traces(request: Request) -> Response:
        store.evict()
        if wanted := request.query_params.getlist("traceID"):
            return await by_id(wanted[:MAX_LIMIT])
        try:
            search = search_of(request.query_params.multi_items())
        except _BadQuery as reason:
            return _error(400, str(reason))
        candidates = list(store.candidates(search))
        return await asyncio.to_thread(_found, lambda: jaeger_answers.find(candidates, search))

    async def one_trace(request: Request) -> Response:
        return await by_id([request.path_params["trace_id"]])

    async def by_id(wanted: list[str]) -> Response:
        ids = [_trace_id(text) for text in wanted]
        if None in ids:
            return _error(400, "a trace id is up to 32 hexadecimal digits")
        held = [trace for each in ids if each is not None and (trace := store.trace(each)) is not None]
        if not held:
            return _error(404, "trace not found")
        return await asyncio.to_thread(
            _found, lambda: jaeger_answers.Found([jaeger_answers.written(trace) for trace in held])
        )

    async def dependencies(request: Request) -> Response:
        store.evict()
        try:
            end_ms = _whole(request.query_params, "endTs") or int(clock().timestamp() * 1000)
            lookback_ms = _whole(request.query_params, "lookback") or DAY_MS
        except _BadQuery as reason:
            return _error(400, str(reason))
        held = list(store.newest_first())
        start_ns, end_ns = (end_ms - lookback_ms) * 1_000_000, end_ms * 1_000_000
        edges = await asyncio.to_thread(jaeger_answers.dependencies, held, start_ns, end_ns)
        return _answer(edges, total=len(edges))

    async def health(_: Request) -> Response:
        return Response(orjson.dumps({"status": "ok", "traces": len(store)}), media_type="application/json")

    async def metrics(_: Request) -> Response:
        store.evict()
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4; charset=utf-8")

    return Starlette(
        routes=[
            Route("/v1/traces", take, methods=["POST"]),
            Route("/api/services", services),
            Route("/api/services/{service}/operations", operation_names),
            Route("/api/operations", operations),
            Route("/api/traces", traces),
            Route("/api/traces/{trace_id}", one_trace),
            Route("/api/dependencies", dependencies),
            Route("/health", health),
            Route("/metrics", metrics),
        ]
    )


def search_of(parameters: list[tuple[str, str]]) -> Search:
    """A search from the parameters of /api/traces: times in microseconds, durations as "1.2s", "100ms", "5us"."""
    last = dict(parameters)
    service = last.get("service")
    if not service:
        raise _BadQuery("parameter 'service' is required")
    start, end, limit = _whole(last, "start"), _whole(last, "end"), _whole(last, "limit")
    if limit is not None and limit < 1:
        raise _BadQuery("parameter 'limit' is less than 1")
    return Search(
        service=service,
        operation=last.get("operation") or None,
        start_ns=None if start is None else start * 1000,
        end_ns=None if end is None else end * 1000 + 999,
        min_duration_ns=_duration(last, "minDuration"),
        max_duration_ns=_duration(last, "maxDuration"),
        tags=_tags(parameters),
        limit=min(limit or DEFAULT_LIMIT, MAX_LIMIT),
    )


def _tags(parameters: list[tuple[str, str]]) -> Mapping[str, str]:
    """From `tags={"a":"b"}` and from any number of `tag=a:b`."""
    wanted: dict[str, str] = {}
    for name, text in parameters:
        if name == "tag":
            key, colon, value = text.partition(":")
            if not colon:
                raise _BadQuery(f"parameter 'tag' is {text!r}, not key:value")
            wanted[key] = value
        elif name == "tags" and text:
            try:
                tags = orjson.loads(text)
            except orjson.JSONDecodeError as error:
                raise _BadQuery(f"parameter 'tags' is no JSON object: {error}") from error
            if not isinstance(tags, dict):
                raise _BadQuery("parameter 'tags' is no JSON object")
            wanted |= {
                key: str(value).lower() if isinstance(value, bool) else str(value) for key, value in tags.items()
            }
    return wanted


_NANOSECONDS = {"ns": 1, "us": 1_000, "µs": 1_000, "ms": 1_000_000, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ns|us|µs|ms|s|m|h)")


def _duration(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name)
    if not text:
        return None
    if not re.fullmatch(f"(?:{_DURATION.pattern})+", text):
        raise _BadQuery(f"parameter {name!r} is {text!r}, not a duration such as 1.2s, 100ms or 500us")
    return int(sum(float(amount) * _NANOSECONDS[unit] for amount, unit in _DURATION.findall(text)))


def _whole(parameters: Mapping[str, str], name: str) -> int | None:
    text = parameters.get(name)
    if not text:
        return None
    if not re.fullmatch(r"\d{1,19}", text):
        raise _BadQuery(f"parameter {name!r} is {text!r}, not a whole number")
    return int(text)


def _trace_id(text: str) -> bytes | None:
    """16 bytes; Jaeger's older clients leave out leading zeros."""
    return bytes.fromhex(text.zfill(32)) if re.fullmatch(r"[0-9a-fA-F]{1,32}", text) else None


async def _body(request: Request, max_bytes: int) -> bytes:
    """The request's body, read no further than allowed."""
    body = bytearray()
    try:
        async for chunk in request.stream():
            body += chunk
            if len(body) > max_bytes:
                raise otlp.Refused(413, f"the body is larger than {max_bytes} bytes: send smaller batches")
    except ClientDisconnect as error:
        raise otlp.Refused(400, "the sender went away") from error
    return bytes(body)


def _found(look: Callable[[], jaeger_answers.Found]) -> Response:
    """Finds and writes on the same thread: both take as long as the answer is large."""
    found = look()
    cut = "there are more traces than fit in one answer: narrow the time range or lower 'limit'"
    return _answer(found.traces, errors=[{"code": 413, "msg": cut}] if found.cut else None)


def _answer(data: Any, *, total: int = 0, errors: list[dict[str, Any]] | None = None, status: int = 200) -> Response:
    envelope = {"data": data, "total": total, "limit": 0, "offset": 0, "errors": errors}
    return Response(orjson.dumps(envelope), status, media_type="application/json")


def _error(status: int, message: str) -> Response:
    return _answer(None, errors=[{"code": status, "msg": message}], status=status)


class _StoreMetrics(Collector):
    """Reads the store's counts when Prometheus asks."""

    def __init__(self, store: TraceStore) -> None:
        self._store = store

    def collect(self) -> list[GaugeMetricFamily | CounterMetricFamily]:
        store = self._store
        rejected = CounterMetricFamily(
            "backstay_trace_store_spans_rejected", "Spans that were not kept, by reason", labels=["reason"]
        )
        for reason, count in store.rejected.items():
            rejected.add_metric([reason], count)
        evicted = CounterMetricFamily(
            "backstay_trace_store_traces_evicted", "Traces that made room for newer ones, by limit", labels=["limit"]
        )
        for limit, count in store.evicted.items():
            evicted.add_metric([limit], count)
        return [
            CounterMetricFamily("backstay_trace_store_spans_received", "Spans that came in", value=store.received),
            rejected,
            evicted,
            GaugeMetricFamily("backstay_trace_store_traces", "Traces in memory", value=len(store)),
            GaugeMetricFamily("backstay_trace_store_spans", "Spans in memory", value=store.spans),
            GaugeMetricFamily("backstay_trace_store_bytes", "Memory that traces take, in bytes", value=store.bytes),
            GaugeMetricFamily(
                "backstay_trace_store_oldest_seconds", "Age of the oldest trace", value=store.oldest_seconds
            ),
        ]
