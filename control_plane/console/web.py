"""Joins pages, API and static files into one ASGI application."""

from __future__ import annotations

from pathlib import Path

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.staticfiles import StaticFiles
from prometheus_client import CONTENT_TYPE_LATEST

from control_plane import clock
from control_plane.console import api, pages
from control_plane.console.host import ConsoleHost
from control_plane.console.security import SecurityHeaders
from control_plane.errors import ActuationRefused, InvalidDefinition, SourceUnavailable


def build_console(host: ConsoleHost, monotonic: clock.Monotonic = clock.monotonic) -> FastAPI:
    """The console over a running control plane. Opens nothing by itself."""
    app = FastAPI(
        title="Backstay",
        docs_url=None,
        redoc_url=None,
        openapi_url="/api/v1/openapi.json",
        telemetry={"tracing": False, "metrics": False, "logs": False},
    )
    app.include_router(pages.router(host, monotonic))
    app.include_router(api.router(host))
    app.mount("/static", StaticFiles(directory=Path(__file__).parent / "static"))
    app.add_middleware(SecurityHeaders)
    app.add_exception_handler(pages.SignInFirst, pages.sign_in_first)

    def explain(status: int) -> None:
        def answer(_: Request, error: Exception) -> Response:
            return JSONResponse({"error": str(error), "detail": str(error)}, status)

        app.add_exception_handler(_STATUS_ERRORS[status], answer)

    for status in _STATUS_ERRORS:
        explain(status)

    @app.get("/health", include_in_schema=False)
    async def health() -> Response:
        return PlainTextResponse("ok\n")

    @app.get("/ready", include_in_schema=False)
    async def ready() -> Response:
        if host.situation() is None:
            return PlainTextResponse("waiting for the first tick\n", 503)
        return PlainTextResponse("ready\n")

    @app.get("/metrics", include_in_schema=False)
    async def metrics() -> Response:
        return Response(host.metrics(), media_type=CONTENT_TYPE_LATEST)

    return app


_STATUS_ERRORS: dict[int, type[Exception]] = {409: ActuationRefused, 422: InvalidDefinition, 503: SourceUnavailable}
