"""Runs the trace store: `python -m control_plane.adapters.trace_store`."""

from __future__ import annotations

import asyncio
import os
import stat
import sys

import uvicorn

from control_plane.adapters.trace_store.store import Limits, TraceStore
from control_plane.adapters.trace_store.web import trace_store_app
from control_plane.clock import monotonic, utc_now
from control_plane.settings import Settings

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
    tether = asyncio.create_task(_end_with_parent(server))
    try:
        await server.serve()
    finally:
        tether.cancel()


async def _end_with_parent(server: uvicorn.Server) -> None:
    """Asks the server to stop at the end of standard input. A terminal or /dev/null there ties us to nobody."""
    if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        return
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass
    server.should_exit = True


if __name__ == "__main__":
    asyncio.run(serve(Settings()))
