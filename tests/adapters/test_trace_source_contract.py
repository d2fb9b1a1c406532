"""One contract for every trace store, over real HTTP: the embedded one always, a real Jaeger where one is given.

BACKSTAY_TEST_JAEGER_OTLP_URL and BACKSTAY_TEST_JAEGER_QUERY_URL point at the real one (e.g. http://127.0.0.1:4318 and
http://127.0.0.1:16686).
"""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import httpx
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from control_plane.adapters.jaeger import JaegerTraces
from control_plane.ports import TraceQuery, TraceSource
from control_plane.tracing.critical_path import critical_path
from control_plane.tracing.error_origin import error_origins
from control_plane.tracing.spans import SpanKind, Trace
from tests.adapters.trace_store.otlp_builders import SECOND, a_request, an_otlp_span, trace_id
from tests.adapters.trace_store.serving import running_trace_store

pytestmark = pytest.mark.stack


@dataclass(frozen=True)
class Store:
    """A trace store under test: where spans go in, and what reads them."""

    otlp_url: str
    traces: TraceSource


@pytest.fixture(scope="module", params=["embedded", "jaeger"])
def urls(request: pytest.FixtureRequest) -> Iterator[tuple[str, str]]:
    """(OTLP, query) base URLs."""
    if request.param == "embedded":
        with running_trace_store() as (url, _):
            yield url, url
        return
    given = os.environ.get("BACKSTAY_TEST_JAEGER_OTLP_URL"), os.environ.get("BACKSTAY_TEST_JAEGER_QUERY_URL")
    if given[0] is None or given[1] is None:
        pytest.skip("no real Jaeger was given: set BACKSTAY_TEST_JAEGER_OTLP_URL and BACKSTAY_TEST_JAEGER_QUERY_URL")
    yield given[0], given[1]


@pytest.fixture
async def store(urls: tuple[str, str]) -> AsyncIterator[Store]:
    async with httpx.AsyncClient(base_url=urls[1], timeout=5) as client:
        yield Store(urls[0], JaegerTraces(client, timedelta(seconds=5)))


@dataclass(frozen=True)
class Request:
    """Three spans of one failed request: a gateway, its call, and the service that failed. Begun `ago` seconds ago."""

    name: str  # unique, so that runs against a long-lived store do not meet
    number: int  # the trace id
    ago: float

    async def send(self, store: Store) -> None:
        start = time.time_ns() - int(self.ago * SECOND)
        root = an_otlp_span(self.number, 1, name="POST /chat", start_ns=start, duration_ns=100_000_000)
        call = an_otlp_span(
            self.number,
            2,
            1,
            name="ask",
            kind=Span.SPAN_KIND_CLIENT,
            start_ns=start + 10_000_000,
            duration_ns=80_000_000,
        )
        work = an_otlp_span(
            self.number,
            3,
            2,
            name="POST /introspect",
            start_ns=start + 20_000_000,
            duration_ns=60_000_000,
            attributes={"http.response.status_code": 503},
        )
        for span in (root, call, work):
            span.status.code = Status.STATUS_CODE_ERROR
        async with httpx.AsyncClient(base_url=store.otlp_url) as client:
            for request in (a_request(f"{self.name}-caller", root, call), a_request(f"{self.name}-callee", work)):
                reply = await client.post(
                    "/v1/traces",
                    content=request.SerializeToString(),
                    headers={"content-type": "application/x-protobuf"},
                )
                assert reply.status_code == 200, reply.text


def a_name() -> str:
    return f"contract-{secrets.token_hex(4)}"


async def found(store: Store, query: TraceQuery, count: int) -> Sequence[Trace]:
    """Asks until as many traces are there: a store may take a moment to show what it was given."""
    for _ in range(50):
        traces = await store.traces.traces(query)
        if len(traces) >= count and all(len(trace.spans) == 3 for trace in traces):
            return traces
        await asyncio.sleep(0.1)
    raise AssertionError(f"the store shows {len(traces)} traces, not {count}")


def the_last(minutes: float, service: str, **changes: object) -> TraceQuery:
    now = datetime.now(UTC)
    return TraceQuery(service, now - timedelta(minutes=minutes), now, **changes)  # type: ignore[arg-type]


async def test_a_request_that_was_sent_is_read_back_with_its_causes_times_and_errors(store: Store) -> None:
    request = Request(a_name(), secrets.randbits(100), ago=5)
    await request.send(store)
    (trace,) = await found(store, the_last(1, f"{request.name}-callee"), 1)
    spans = {span.operation: span for span in trace.spans}
    assert int(trace.trace_id, 16) == request.number
    assert (spans["ask"].kind, spans["ask"].parent_id) == (SpanKind.CLIENT, spans["POST /chat"].span_id)
    path = critical_path(trace)
    assert {(o.service, o.exclusive_us) for o in path.operations} == {
        (f"{request.name}-caller", 20_000),
        (f"{request.name}-callee", 60_000),
    }
    assert path.duration_us == 100_000
    (origin,) = error_origins(trace)
    assert origin.span.operation == "POST /introspect"


async def test_one_trace_is_found_by_its_id_and_a_wrong_id_finds_none(store: Store) -> None:
    request = Request(a_name(), secrets.randbits(100), ago=5)
    await request.send(store)
    await found(store, the_last(1, f"{request.name}-caller"), 1)
    trace = await store.traces.trace(trace_id(request.number))
    assert trace is not None
    assert len(trace.spans) == 3
    assert await store.traces.trace(trace_id(secrets.randbits(100))) is None


async def test_services_and_operations_are_listed(store: Store) -> None:
    request = Request(a_name(), secrets.randbits(100), ago=5)
    await request.send(store)
    await found(store, the_last(1, f"{request.name}-caller"), 1)
    assert {f"{request.name}-caller", f"{request.name}-callee"} <= set(await store.traces.services())
    assert set(await store.traces.operations(f"{request.name}-caller")) == {"POST /chat", "ask"}


async def test_a_search_keeps_to_its_time_range_operation_tags_and_duration(store: Store) -> None:
    name = a_name()
    recent, older = Request(name, secrets.randbits(100), ago=5), Request(name, secrets.randbits(100), ago=200)
    await recent.send(store)
    await older.send(store)
    service = f"{name}-callee"
    assert len(await found(store, the_last(10, service), 2)) == 2
    assert [int(t.trace_id, 16) for t in await found(store, the_last(1, service), 1)] == [recent.number]
    assert len(await store.traces.traces(the_last(10, service, operation="POST /introspect"))) == 2
    assert len(await store.traces.traces(the_last(10, service, operation="GET /nothing"))) == 0
    assert len(await store.traces.traces(the_last(10, service, tags={"http.response.status_code": "503"}))) == 2
    assert len(await store.traces.traces(the_last(10, service, tags={"http.response.status_code": "200"}))) == 0
    assert len(await store.traces.traces(the_last(10, service, min_duration=timedelta(milliseconds=50)))) == 2
    assert len(await store.traces.traces(the_last(10, service, min_duration=timedelta(milliseconds=70)))) == 0


async def test_a_sample_is_spread_over_the_time_range(store: Store) -> None:
    name = a_name()
    requests = [Request(name, secrets.randbits(100), ago=10 + 10 * number) for number in range(20)]
    for request in requests:
        await request.send(store)
    service = f"{name}-caller"
    await found(store, the_last(5, service), 20)
    now = datetime.now(UTC)
    sample = await store.traces.traces(TraceQuery(service, now - timedelta(seconds=210), now, limit=5))
    starts = sorted(min(span.start_us for span in trace.spans) for trace in sample)
    assert len(sample) == 5
    assert starts[-1] - starts[0] > 120_000_000
