"""How many requests a second one core serves on a trivial route, with slots, metrics and spans on, and without them.

The server runs on one core and exports its traces to a receiver that throws them away; wrk loads it from another core.
The variants take turns, so that whatever else the machine does meanwhile falls on all of them. The objective is 2000
requests/s with every trace recorded.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import uvicorn
from fastapi import APIRouter, FastAPI
from starlette.types import ASGIApp

from services.app import assemble
from services.launch import listen
from services.settings import SuiteSettings
from services.wiring import wire

SERVICE = "identity-service"

BARE = "bare"
"""The route alone in FastAPI: no slots, no faults, no metrics, no spans."""

VARIANTS = (BARE, "0.1", "1.0")
"""BARE, or the share of traces that are recorded; with everything else on."""


class _Swallow(BaseHTTPRequestHandler):
    """An OTLP receiver that throws everything away."""

    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("content-length", 0)))
        self.send_response(200)
        self.send_header("content-length", "0")
        self.end_headers()

    def log_message(self, format: str, *args: object) -> None:
        return None


def serve(variant: str, otlp_port: int) -> None:
    """Serve the trivial route on a free port, which is printed, until stdin ends."""
    routes = APIRouter()

    @routes.get("/api/users/{user_id}/trivial")
    async def trivial(user_id: str) -> dict[str, str]:
        return {"id": user_id}

    with tempfile.TemporaryDirectory() as folder:
        app = bare(routes) if variant == BARE else whole(routes, float(variant), otlp_port, Path(folder))
        listener = listen("127.0.0.1", 0)
        print(listener.getsockname()[1], flush=True)
        config = uvicorn.Config(
            app, loop="uvloop", http="httptools", access_log=False, log_level="warning", lifespan="off"
        )
        server = uvicorn.Server(config)

        def stop_with_parent() -> None:
            sys.stdin.read()
            server.should_exit = True

        threading.Thread(target=stop_with_parent, daemon=True).start()
        with asyncio.Runner(loop_factory=config.get_loop_factory()) as runner:
            runner.run(server.serve(sockets=[listener]))


def whole(routes: APIRouter, sampling_rate: float, otlp_port: int, folder: Path) -> ASGIApp:
    """The route as a replica serves it."""
    settings = SuiteSettings(
        data_dir=folder, otlp_url=f"http://127.0.0.1:{otlp_port}", sampling_rate=sampling_rate, slots=64
    )
    return assemble(SERVICE, wire(SERVICE, settings).contexts, [routes])


def bare(routes: APIRouter) -> ASGIApp:
    """The route and the framework, nothing else."""
    app = FastAPI(
        openapi_url=None, telemetry={"tracing": False, "metrics": False, "logs": False, "operation_spans": False}
    )
    app.include_router(routes)
    return app


def measure(variant: str, seconds: int) -> float:
    """Requests per second, with the server on its own core where there are two."""
    receiver = ThreadingHTTPServer(("127.0.0.1", 0), _Swallow)
    threading.Thread(target=receiver.serve_forever, daemon=True).start()
    pinned = shutil.which("taskset") and (os.cpu_count() or 1) > 1
    command = [sys.executable, "-m", "services.bench_trivial_route", "--serve", str(receiver.server_port)]
    command += ["--variant", variant]
    server = subprocess.Popen(
        (["taskset", "-c", "0"] if pinned else []) + command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert server.stdin is not None  # noqa: S101  a pipe
    assert server.stdout is not None  # noqa: S101  a pipe
    try:
        url = f"http://127.0.0.1:{int(server.stdout.readline())}/api/users/1/trivial"
        wait_for(url)
        load = ["wrk", "-t1", "-c32", f"-d{seconds}s", url]
        out = subprocess.run(
            (["taskset", "-c", "1"] if pinned else []) + load, check=True, capture_output=True, text=True
        )
        found = re.search(r"Requests/sec:\s+([\d.]+)", out.stdout)
        if found is None or "Non-2xx" in out.stdout:
            raise RuntimeError(out.stdout)
        return float(found[1])
    finally:
        server.stdin.close()
        server.wait(10)
        receiver.shutdown()


def wait_for(url: str) -> None:
    """Return when `url` answers; a connection that is refused means that the server still starts."""
    for _ in range(100):
        try:
            with urllib.request.urlopen(url, timeout=2):  # noqa: S310  our own server
                return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"{url} does not answer")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m services.bench_trivial_route", description=__doc__)
    parser.add_argument("--serve", type=int, metavar="OTLP_PORT", help=argparse.SUPPRESS)
    parser.add_argument("--variant", choices=VARIANTS, help="only this one; default: each in turn")
    parser.add_argument("--seconds", type=int, default=3, help="length of each measurement")
    parser.add_argument("--rounds", type=int, default=3, help="measurements of each variant")
    chosen = parser.parse_args()
    if chosen.serve:
        serve(chosen.variant, chosen.serve)
        return 0
    if shutil.which("wrk") is None:
        print("wrk is not installed: apt-get install wrk", file=sys.stderr)
        return 2
    variants = [chosen.variant] if chosen.variant else list(VARIANTS)
    found: dict[str, list[int]] = {variant: [] for variant in variants}
    for _ in range(chosen.rounds):
        for variant in variants:
            found[variant].append(round(measure(variant, chosen.seconds)))
    print(json.dumps({"trivial_route_requests_per_second": found, "objective": 2000}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
