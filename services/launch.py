"""One replica as a process: `python -m services.launch --service identity-service --port 7200 --replica identity-1`.

Its parent talks to it in JSON lines on stdin: `{"fault": {...}}`, `{"fault": null}`, `{"drain": true}`. End of file
means that the parent is gone, and so are we.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import signal
import socket
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime

import orjson
import uvicorn
from pydantic import ValidationError

from control_plane.errors import BackstayError
from control_plane.topology import MONOLITH, SERVICES
from services.app import Replica, build_app
from services.faults import Fault
from services.settings import SuiteSettings
from services.telemetry import current_trace_id
from services.wiring import Wired, wire

log = logging.getLogger("services.launch")

ORPHAN_SECONDS = 2.0
"""How long a replica without a parent may still finish its requests."""

PR_SET_PDEATHSIG = 1
EXIT_BAD_CONFIGURATION = 78  # EX_CONFIG of sysexits.h
EXIT_PORT_TAKEN = 98  # EADDRINUSE


class JsonLines(logging.Formatter):
    """One JSON object a record, with the trace it belongs to."""

    def __init__(self, service: str, replica: str) -> None:
        super().__init__()
        self._origin = {"service": service, "replica": replica}

    def format(self, record: logging.LogRecord) -> str:
        line: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "logger": record.name,
            "message": record.getMessage(),
            **self._origin,
        }
        if trace_id := current_trace_id():
            line["trace_id"] = trace_id
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(line, default=str).decode()


class GracefulServer(uvicorn.Server):
    """Tells the application to drain the moment a stop signal arrives, and ends with code 0 once it has."""

    def __init__(self, config: uvicorn.Config, replica: Replica) -> None:
        super().__init__(config)
        self._replica = replica

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Uvicorn's own way raises the signal again at the end: the process would die of it with its spans unsent."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self.stop)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.remove_signal_handler(number)

    def stop(self) -> None:
        """Finish what is in flight and end; asked twice, end at once."""
        self.force_exit = self.should_exit
        self.should_exit = True
        self._replica.drain.start()


def main(arguments: list[str] | None = None) -> int:
    """Serve until told to stop; the exit code is 0 after a graceful end."""
    parser = argparse.ArgumentParser(prog="python -m services.launch", description="One replica of the suite.")
    parser.add_argument("--service", required=True, choices=[*SERVICES, MONOLITH])
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--replica", required=True, help="id that logs and traces carry")
    chosen = parser.parse_args(arguments)

    die_with_parent()
    configure_logging(chosen.service, chosen.replica, "INFO")
    try:
        settings = SuiteSettings()
        configure_logging(chosen.service, chosen.replica, settings.log_level)
        listener = listen(settings.bind_host, chosen.port)
        wired = wire(chosen.service, settings, chosen.replica)
        app = build_app(chosen.service, wired.contexts)
    except ValidationError as error:
        findings = "; ".join(
            f"SUITE_{'.'.join(str(part) for part in e['loc']).upper()}: {e['msg']}" for e in error.errors()
        )
        log.critical("a setting is wrong: %s", findings)
        return EXIT_BAD_CONFIGURATION
    except BackstayError as error:
        log.critical("%s", error)
        return EXIT_BAD_CONFIGURATION
    except PortTaken as error:
        log.critical("%s", error)
        return EXIT_PORT_TAKEN

    config = uvicorn.Config(
        app,
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=settings.keep_alive_seconds,
        timeout_graceful_shutdown=max(1, round(settings.drain_seconds)),
    )
    server = GracefulServer(config, app)
    with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
        runner.run(_serve(server, app, wired, listener))
    return 0


async def _serve(server: GracefulServer, app: Replica, wired: Wired, listener: socket.socket) -> None:
    watch_parent(server, app)
    gc.collect()
    gc.freeze()  # what was imported stays: the collector need not look at it again
    log.info("serving on port %d", listener.getsockname()[1])
    try:
        await server.serve(sockets=[listener])
    finally:
        await wired.closing.aclose()
    log.info("stopped")


def watch_parent(server: GracefulServer, app: Replica) -> None:
    """Obey the lines on stdin. A thread reads them, because stdin may be anything: a pipe, a terminal, a file."""
    loop = asyncio.get_running_loop()

    def read() -> None:
        with suppress(OSError, RuntimeError):  # no stdin at all; the loop has ended before us
            read_lines()

    def read_lines() -> None:
        rest = b""
        while chunk := os.read(0, 65536):  # sys.stdin would hold a lock that the end of the interpreter trips over
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                loop.call_soon_threadsafe(obey, line, app)
        loop.call_soon_threadsafe(leave)

    def leave() -> None:
        log.warning("the parent process is gone; stopping")
        server.stop()
        loop.call_later(ORPHAN_SECONDS, os._exit, 0)

    threading.Thread(target=read, name="parent", daemon=True).start()


def obey(line: bytes, app: Replica) -> None:
    """Carry out one line of the parent. A line that makes no sense is logged and changes nothing."""
    try:
        order = orjson.loads(line)
        if not isinstance(order, dict):
            raise ValueError("not an object")
        if "fault" in order:
            fault = None if order["fault"] is None else Fault.model_validate(order["fault"])
            app.faults.set(fault)
            log.info("fault: %s", fault.kind if fault else "none")
        if order.get("drain"):
            app.drain.start()
            log.info("draining")
    except ValueError as error:
        log.warning("an order of the parent makes no sense: %s", error)


class PortTaken(Exception):
    """Someone else listens there."""


def listen(host: str, port: int) -> socket.socket:
    """A listening socket, bound before anything slow is done. Raises PortTaken."""
    listener = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((host, port))
    except OSError as error:
        listener.close()
        raise PortTaken(f"cannot listen on {host}:{port}: {error.strerror}") from error
    listener.set_inheritable(False)
    return listener


def die_with_parent() -> None:
    """On Linux the kernel sends SIGTERM when the parent dies, however it died; elsewhere stdin's end says so."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)


def configure_logging(service: str, replica: str, level: str) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(JsonLines(service, replica))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level)
    for chatty in ("uvicorn.error", "uvicorn.access", "asyncio", "aiohttp"):
        logging.getLogger(chatty).setLevel(max(logging.WARNING, logging.getLevelName(level)))


if __name__ == "__main__":
    sys.exit(main())
