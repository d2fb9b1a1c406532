"""A trace store over real HTTP: its own process on a free port."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running_trace_store(**environment: str) -> Iterator[tuple[str, subprocess.Popen[bytes]]]:
    """Base URL and process of a store that ends with the block."""
    port = free_port()
    process = subprocess.Popen(
        [sys.executable, "-m", "control_plane.adapters.trace_store"],
        stdin=subprocess.PIPE,
        env={**os.environ, "BACKSTAY_TRACE_STORE_PORT": str(port), **environment},
    )
    url = f"http://127.0.0.1:{port}"
    try:
        _wait_until_ready(url, process)
        yield url, process
    finally:
        process.kill()
        process.wait()
        assert process.stdin is not None
        process.stdin.close()


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError(f"the trace store ended with {process.returncode}")
        try:
            if httpx.get(f"{url}/health", timeout=1).is_success:
                return
        except httpx.HTTPError:
            time.sleep(0.05)
    raise AssertionError("the trace store did not get ready")
