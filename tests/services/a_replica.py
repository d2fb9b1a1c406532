"""A replica with routes of a test's own, asked without a socket."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import httpx
from fastapi import APIRouter
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from control_plane.clock import utc_now
from services.app import Replica, assemble
from services.context import ServiceContext
from services.drain import Drain
from services.peers import Peers
from services.settings import SuiteSettings
from services.storage import SqliteStorage
from services.telemetry import Metrics, ServiceTelemetry, Tracing
from services.tokens import Tokens

SERVICE = "identity-service"
NO_PEERS = cast(Peers, None)


@dataclass
class OneReplica:
    replica: Replica
    context: ServiceContext
    http: httpx.AsyncClient
    spans: InMemorySpanExporter
    crashes: list[None]

    def sample(self, name: str, **labels: str) -> float | None:
        return self.replica.metrics.registry.get_sample_value(name, {"service": SERVICE, **labels})


@asynccontextmanager
async def a_replica(
    folder: Path, routes: APIRouter, sampling: float = 1.0, **settings: Any
) -> AsyncIterator[OneReplica]:
    spans = InMemorySpanExporter()
    tracing = Tracing(sampling, SimpleSpanProcessor(spans), {"deployment.name": SERVICE})
    context = ServiceContext(
        service=SERVICE,
        settings=SuiteSettings(data_dir=folder, **settings),
        storage=SqliteStorage(folder),
        peers=NO_PEERS,
        telemetry=ServiceTelemetry(SERVICE, Metrics(), tracing),
        tokens=Tokens(b"k" * 32, utc_now, "librechat-identity", "librechat", timedelta(minutes=60)),
        drain=Drain(),
    )
    crashes: list[None] = []
    replica = assemble(SERVICE, [context], [routes], crash=lambda: crashes.append(None))
    transport = httpx.ASGITransport(app=replica, raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://replica") as http:
        yield OneReplica(replica, context, http, spans, crashes)
    await context.close()
    await context.storage.close()
