"""Joins the parts of a replica: routes inside faults inside slots inside telemetry, probes beside them."""

from __future__ import annotations

import os
import random
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from importlib import import_module
from typing import Protocol, cast

from fastapi import APIRouter, FastAPI
from fastapi.routing import APIRoute
from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from services.context import ServiceContext
from services.drain import Drain
from services.faults import FaultLayer, Faults
from services.problems import install_problem_handlers
from services.settings import SuiteSettings
from services.slots import SlotLayer, Slots
from services.telemetry import Metrics, RouteTable, TelemetryLayer

PACKAGES: Mapping[str, str] = {
    "identity-service": "identity",
    "conversation-service": "conversation",
    "ai-gateway-service": "ai_gateway",
    "file-service": "file",
    "search-service": "search",
    "notification-service": "notification",
    "streaming-service": "streaming",
}
"""Package below `services` of each service; only the ones a process serves are imported."""

MAX_BODY_BYTES = 1 << 20
"""Largest request body in bytes, unless a route says otherwise (uploads do)."""


class ServiceApi(Protocol):
    """The module `api` of a service's package."""

    def router(self, context: ServiceContext) -> APIRouter:
        """The service's routes, with their whole paths."""
        ...


def service_api(service: str) -> ServiceApi:
    return cast(ServiceApi, import_module(f"services.{PACKAGES[service]}.api"))


def exit_at_once() -> None:
    """What a crash is: no drain, no goodbye."""
    os._exit(1)


class Replica:
    """A whole replica as one ASGI application, with the handles its launcher needs."""

    def __init__(
        self, business: ASGIApp, *, lifespan: ASGIApp, metrics: Metrics, slots: Slots, faults: Faults, drain: Drain
    ) -> None:
        self._business = business
        self._lifespan = lifespan
        self.metrics = metrics
        self.slots = slots
        self.faults = faults
        self.drain = drain

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._lifespan(scope, receive, send)
        elif scope["path"] in _PROBES:
            await self._probe(scope["path"])(scope, receive, send)
        else:
            await self._business(scope, receive, send)

    def _probe(self, path: str) -> Response:
        if path == "/metrics":
            return Response(generate_latest(self.metrics.registry), media_type=CONTENT_TYPE_LATEST)
        if path == "/ready" and self.drain.started:
            return Response(b'{"status":"draining"}', 503, media_type="application/json")
        return Response(b'{"status":"ok"}', media_type="application/json")


_PROBES = frozenset({"/health", "/ready", "/metrics"})


def build_app(deployment: str, contexts: Sequence[ServiceContext], crash: Callable[[], None] = exit_at_once) -> Replica:
    """A replica of `deployment` that serves these contexts: one for a microservice, seven for the monolith."""
    return assemble(deployment, contexts, [service_api(c.service).router(c) for c in contexts], crash)


def assemble(
    deployment: str,
    contexts: Sequence[ServiceContext],
    routers: Sequence[APIRouter],
    crash: Callable[[], None] = exit_at_once,
) -> Replica:
    """The layers around given routes. `crash` is what a crash fault does."""
    first = contexts[0]
    settings: SuiteSettings = first.settings
    metrics = first.telemetry.metrics

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        for context in contexts:
            await context.close()

    app = FastAPI(
        title=deployment,
        openapi_url="/openapi.json" if len(contexts) == 1 else None,
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
        telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False},
        max_body_size=MAX_BODY_BYTES,
    )
    app.state.tokens = first.tokens
    install_problem_handlers(app)
    for router in routers:
        app.include_router(router)

    slots = Slots(settings.slots, settings.stream_slots, settings.queue_seconds, metrics, deployment)
    faults = Faults(lambda: first.clock().timestamp(), crash, random.Random())  # noqa: S311
    templates = [(r.path_regex, r.path) for router in routers for r in router.routes if isinstance(r, APIRoute)]
    table = RouteTable({c.service: c.telemetry for c in contexts}, default=first.telemetry, templates=templates)
    business = TelemetryLayer(SlotLayer(FaultLayer(app, faults), slots, table), table)
    return Replica(business, lifespan=app, metrics=metrics, slots=slots, faults=faults, drain=first.drain)
