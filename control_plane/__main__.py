"""Runs the control plane: `python -m control_plane`. The local stack starts it; so does a container."""

from __future__ import annotations

import asyncio
import logging
import sys

import uvicorn

from control_plane.app import running
from control_plane.errors import BackstayError
from control_plane.settings import Settings
from control_plane.tether import end_with_parent


async def serve(settings: Settings) -> None:
    """Serves and ticks until told to stop, or until the process that holds our standard input is gone."""
    async with running(settings) as control_plane:
        server = uvicorn.Server(
            uvicorn.Config(
                control_plane.console,
                host=settings.bind_host,
                port=settings.console_port,
                log_level="warning",
                access_log=False,
                lifespan="off",
                server_header=False,
                timeout_keep_alive=75,
                timeout_graceful_shutdown=2,
            )
        )

        def stop() -> None:
            server.should_exit = True

        tether = asyncio.create_task(end_with_parent(stop), name="end with parent")
        try:
            await server.serve()
        finally:
            tether.cancel()


def main() -> int:
    """Exit code 0 after an orderly stop, 1 with one line on standard error when it cannot start."""
    settings = Settings()
    logging.basicConfig(
        level=settings.log_level, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("httpx").setLevel(logging.WARNING)  # it would log every query at INFO
    try:
        asyncio.run(serve(settings))
    except BackstayError as error:
        print(f"backstay: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
