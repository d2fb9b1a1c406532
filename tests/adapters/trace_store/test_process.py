from __future__ import annotations

import signal

import httpx
import pytest
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.trace import SpanKind

from control_plane.tracing.jaeger_json import read_traces
from tests.adapters.trace_store.serving import running_trace_store

pytestmark = pytest.mark.stack


def test_the_store_ends_when_whoever_started_it_lets_go_of_its_input() -> None:
    with running_trace_store() as (_, process):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=5) == 0


def test_the_store_stops_when_asked() -> None:
    with running_trace_store() as (url, process):
        assert httpx.get(f"{url}/api/services").json()["data"] == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) in (0, -signal.SIGTERM)


def test_what_the_suites_exporter_sends_is_kept_and_read() -> None:
    with running_trace_store() as (url, _):
        exporter = OTLPSpanExporter(f"{url}/v1/traces", compression=Compression.Gzip)
        provider = TracerProvider(resource=Resource({"service.name": "identity-service"}))
        provider.add_span_processor(BatchSpanProcessor(exporter))
        tracer = provider.get_tracer("suite")
        with (
            tracer.start_as_current_span("POST /api/auth/login", kind=SpanKind.SERVER),
            tracer.start_as_current_span("hash"),
        ):
            pass
        provider.shutdown()
        (trace,) = read_traces(httpx.get(f"{url}/api/traces?service=identity-service").content).traces
        assert {span.operation: span.kind.value for span in trace.spans} == {
            "POST /api/auth/login": "server",
            "hash": "internal",
        }
