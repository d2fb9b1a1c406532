"""What a request leaves in metrics and traces."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Sequence
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode
from starlette.responses import Response

from services.problems import Problem
from services.sse import event_stream
from services.telemetry import (
    DURATION_BUCKETS,
    Metrics,
    QuietExporter,
    RouteTable,
    ServiceTelemetry,
    Tracing,
    current_trace_id,
    otlp_tracing,
    parent_from,
    traceparent,
)
from tests.services.a_replica import a_replica
from tests.services.live_suite import serving

TRACE = "0af7651916cd43dd8448eb211c80319c"


def some_routes() -> APIRouter:
    routes = APIRouter()

    @routes.get("/api/users/{user_id}")
    async def user(user_id: str) -> dict[str, str | None]:
        return {"id": user_id, "trace": current_trace_id()}

    @routes.get("/api/users/{user_id}/broken")
    async def broken(user_id: str) -> None:
        raise RuntimeError("secret inside")

    @routes.get("/api/users/{user_id}/refused")
    async def refused(user_id: str) -> None:
        raise Problem(409, "This is taken.")

    return routes


async def test_a_request_is_counted_under_its_template_method_and_code(tmp_path: Path) -> None:
    async with a_replica(tmp_path, some_routes()) as one:
        for user in ("ana", "bob"):
            await one.http.get(f"/api/users/{user}")
        labels = {"endpoint": "/api/users/{user_id}", "method": "GET"}
        assert one.sample("http_requests_total", **labels, status_code="200") == 2
        assert one.sample("http_request_duration_seconds_count", **labels) == 2
        assert one.sample("http_request_own_duration_seconds_count", **labels) == 2
        assert one.sample("http_requests_in_flight") == 0


async def test_paths_that_nobody_knows_share_one_label(tmp_path: Path) -> None:
    async with a_replica(tmp_path, some_routes()) as one:
        for path in ("/admin.php", "/.env", "/api/users"):
            assert (await one.http.get(path)).status_code == 404
        assert one.sample("http_requests_total", endpoint="unmatched", method="GET", status_code="404") == 3


async def test_methods_that_nobody_knows_share_one_label(tmp_path: Path) -> None:
    async with a_replica(tmp_path, some_routes()) as one:
        await one.http.request("BREW", "/api/users/ana")
        labels = {"endpoint": "/api/users/{user_id}", "method": "OTHER", "status_code": "405"}
        assert one.sample("http_requests_total", **labels) == 1


async def test_the_buckets_are_the_documents_and_one_that_ends_at_the_objective() -> None:
    assert DURATION_BUCKETS == (0.1, 0.2, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


async def test_probes_are_in_no_count_and_in_no_trace(tmp_path: Path) -> None:
    async with a_replica(tmp_path, some_routes()) as one:
        for path in ("/health", "/ready", "/metrics"):
            assert (await one.http.get(path)).status_code == 200
        assert "http_requests_total{" not in (await one.http.get("/metrics")).text
        assert one.spans.get_finished_spans() == ()


async def test_what_breaks_is_a_500_whose_body_tells_nothing_of_the_inside(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with a_replica(tmp_path, some_routes()) as one:
        answer = await one.http.get("/api/users/ana/broken")
        assert answer.status_code == 500
        assert "secret" not in answer.text
        assert "secret inside" in caplog.text
        labels = {"endpoint": "/api/users/{user_id}/broken", "method": "GET", "status_code": "500"}
        assert one.sample("http_requests_total", **labels) == 1
        (span,) = one.spans.get_finished_spans()
        assert span.status.status_code is StatusCode.ERROR


async def test_one_request_is_one_span_named_by_its_template_under_its_callers_span(tmp_path: Path) -> None:
    async with a_replica(tmp_path, some_routes()) as one:
        sent = {"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"}
        answer = await one.http.get("/api/users/ana", headers=sent)
        (span,) = one.spans.get_finished_spans()
        assert span.name == "GET /api/users/{user_id}"
        assert answer.json()["trace"] == TRACE == f"{span.context.trace_id:032x}"
        assert span.parent is not None
        assert f"{span.parent.span_id:016x}" == "b7ad6b7169203331"
        assert span.attributes is not None
        assert span.attributes["http.response.status_code"] == 200
        assert span.resource.attributes["service.name"] == "identity-service"


async def test_a_refusal_is_no_error_of_the_service(tmp_path: Path) -> None:
    async with a_replica(tmp_path, some_routes()) as one:
        answer = await one.http.get("/api/users/ana/refused")
        body = answer.json()
        (span,) = one.spans.get_finished_spans()
        assert span.status.status_code is StatusCode.UNSET
        assert body == {
            "type": "about:blank",
            "title": "Conflict",
            "status": 409,
            "detail": "This is taken.",
            "trace_id": f"{span.context.trace_id:032x}",
        }


async def test_a_caller_who_does_not_sample_is_followed(tmp_path: Path) -> None:
    async with a_replica(tmp_path, some_routes(), sampling=1.0) as one:
        await one.http.get("/api/users/ana", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-00"})
        assert one.spans.get_finished_spans() == ()


async def test_a_caller_who_samples_is_followed(tmp_path: Path) -> None:
    async with a_replica(tmp_path, some_routes(), sampling=0.0) as one:
        await one.http.get("/api/users/ana", headers={"traceparent": f"00-{TRACE}-b7ad6b7169203331-01"})
        assert len(one.spans.get_finished_spans()) == 1


@given(st.binary(max_size=80))
def test_no_traceparent_header_breaks_a_request(header: bytes) -> None:
    parent_from(header)


@given(st.integers(1, 2**128 - 1), st.integers(1, 2**64 - 1), st.booleans())
def test_a_traceparent_that_was_written_is_read_back(trace_id: int, span_id: int, sampled: bool) -> None:
    span = trace.SpanContext(trace_id, span_id, is_remote=True, trace_flags=trace.TraceFlags(int(sampled)))
    read = trace.get_current_span(parent_from(traceparent(span).encode())).get_span_context()
    assert (read.trace_id, read.span_id, read.trace_flags) == (trace_id, span_id, int(sampled))


@pytest.mark.parametrize(
    "header",
    [b"", b"00-zz-zz-01", f"00-{'0' * 32}-b7ad6b7169203331-01".encode(), f"ff-{TRACE}-b7ad6b7169203331-01".encode()],
)
def test_a_malformed_traceparent_begins_a_trace_of_its_own(header: bytes) -> None:
    assert not trace.get_current_span(parent_from(header)).get_span_context().is_valid


async def test_own_time_leaves_out_the_wait_for_the_provider(tmp_path: Path) -> None:
    routes = APIRouter()
    async with a_replica(tmp_path, routes) as one:

        @routes.get("/api/users/slow")
        async def slow() -> None:
            with one.context.telemetry.provider_call("builtin") as call:
                with call.waiting():
                    await asyncio.sleep(0.12)
                await asyncio.sleep(0.01)
                with call.waiting():
                    await asyncio.sleep(0.12)

        await one.http.get("/api/users/slow")
        labels = {"endpoint": "/api/users/slow", "method": "GET"}
        assert (one.sample("http_request_duration_seconds_sum", **labels) or 0) > 0.24
        assert (one.sample("http_request_own_duration_seconds_sum", **labels) or 9) < 0.1
        assert one.sample("provider_wait_seconds_count", provider="builtin") == 1
        assert (one.sample("provider_wait_seconds_sum", provider="builtin") or 0) > 0.23


def streaming_routes(steps: Sequence[float | Exception]) -> APIRouter:
    """One stream that sends an event after each pause, or breaks."""
    routes = APIRouter()

    async def events() -> AsyncGenerator[bytes, None]:
        yield b"data: first\n\n"
        for step in steps:
            if isinstance(step, Exception):
                raise step
            await asyncio.sleep(step)
            yield b"data: more\n\n"

    @routes.get("/api/users/stream")
    async def stream() -> Response:
        return await event_stream(events())

    return routes


STREAM = {"endpoint": "/api/users/stream"}


async def test_a_stream_is_timed_to_its_first_byte_and_its_whole_length_apart(tmp_path: Path) -> None:
    async with a_replica(tmp_path, streaming_routes([0.15])) as one:
        await one.http.get("/api/users/stream")
        assert (one.sample("http_request_duration_seconds_sum", **STREAM, method="GET") or 9) < 0.1
        assert (one.sample("http_stream_duration_seconds_sum", **STREAM) or 0) > 0.14
        assert one.sample("http_requests_total", **STREAM, method="GET", status_code="200") == 1
        assert one.sample("http_stream_ends_total", **STREAM, outcome="complete") == 1


@pytest.mark.parametrize("failure", [RuntimeError("secret inside"), Problem(502, "The model broke off.")])
async def test_a_stream_that_breaks_says_so_in_its_last_event_and_is_counted(
    tmp_path: Path, failure: Exception
) -> None:
    async with a_replica(tmp_path, streaming_routes([failure])) as one:
        answer = await one.http.get("/api/users/stream")
        assert "event: error" in answer.text
        assert "secret" not in answer.text
        assert one.sample("http_stream_ends_total", **STREAM, outcome="error") == 1
        (span,) = one.spans.get_finished_spans()
        assert span.status.status_code is StatusCode.ERROR


async def test_a_reader_who_leaves_is_nobodys_error(tmp_path: Path) -> None:
    async with (
        a_replica(tmp_path, streaming_routes([30])) as one,
        serving(one.replica) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        async with http.stream("GET", "/api/users/stream") as answer:
            await anext(answer.aiter_bytes())
        async with asyncio.timeout(5):
            while one.sample("http_stream_ends_total", **STREAM, outcome="client_gone") != 1:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert one.sample("http_slots_in_use", kind="stream") == 0


def test_in_the_monolith_a_path_names_its_service() -> None:
    metrics, tracing = Metrics(), Tracing(0, None, {})
    telemetries = {s: ServiceTelemetry(s, metrics, tracing) for s in ("identity-service", "ai-gateway-service")}
    table = RouteTable(telemetries, default=telemetries["identity-service"])
    assert table.service_of("/v1/chat/completions").service == "ai-gateway-service"
    assert table.service_of("/nowhere").service == "identity-service"


class _Store(SpanExporter):
    up = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        if not self.up:
            raise OSError("connection refused")
        return SpanExportResult.SUCCESS


def test_a_trace_store_that_is_down_is_told_once_and_its_losses_are_counted(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    metrics, store = Metrics(), _Store()
    exporter = QuietExporter(store, metrics)
    spans: list[ReadableSpan] = [ReadableSpan("a"), ReadableSpan("b")]
    for _ in range(5):
        exporter.export(spans)
    assert metrics.registry.get_sample_value("telemetry_spans_lost_total") == 10
    assert len(caplog.records) == 1
    store.up = True
    exporter.export(spans)
    assert [r.levelname for r in caplog.records] == ["WARNING", "INFO"]


def test_closing_does_not_wait_long_for_a_dead_trace_store() -> None:
    metrics = Metrics()
    tracing = otlp_tracing("http://127.0.0.1:9", 1.0, metrics, {})
    tracing.tracer("identity-service").start_span("lost").end()
    tracing.close()
    assert metrics.registry.get_sample_value("telemetry_spans_lost_total") == 1
