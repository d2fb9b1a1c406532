"""Runs the trace store: `python -m control_plane.adapters.trace_store`."""

from __future__ import annotations

import asyncio

import uvicorn

from control_plane.adapters.trace_store.store import Limits, TraceStore
from control_plane.adapters.trace_store.web import trace_store_app
from control_plane.clock import monotonic, utc_now
from control_plane.settings import Settings
from control_plane.tether import end_with_parent

MAX_CONNECTIONS = 256


async def serve(settings: Settings) -> None:
    """Serves until told to stop, or until the process that holds our standard input is gone."""
    limits = Limits(settings.trace_store_megabytes * 1024 * 1024, settings.trace_store_minutes * 60)
    server = uvicorn.Server(
        uvicorn.Config(
            trace_store_app(TraceStore(limits, monotonic), utc_now),
            host="127.0.0.1",
            port=settings.trace_store_at_port,
            log_level="warning",
            access_log=False,
            lifespan="off",
            server_header=False,
            limit_concurrency=MAX_CONNECTIONS,
            timeout_keep_alive=75,
            timeout_graceful_shutdown=3,
        )
    )

    def stop() -> None:
        server.should_exit = True

    tether = asyncio.create_task(end_with_parent(stop), name="end with parent")
    try:
        await server.serve()
    finally:
        tether.cancel()


if __name__ == "__main__":
    asyncio.run(serve(Settings()))
