"""The whole stack as a newcomer runs it: by the command line, with every real part."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil

from control_plane.local.layout import Layout

T = TypeVar("T")
REPOSITORY = Path(__file__).resolve().parent.parent.parent
BACKSTAY = Path(sys.executable).with_name("backstay")
OFFSETS = (*range(6), 10, 18, 90, 93, 200)


def free_port_base() -> int:
    """A base whose fixed ports are all free, below the range from which the kernel gives ports away."""
    for base in range(23000, 31000, 1000):
        if all(_is_free(base + offset) for offset in OFFSETS):
            return base
    raise RuntimeError("no free range of ports between 23000 and 31000")


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) != 0


def until(look: Callable[[], T | None], seconds: float, what: str) -> T:
    """What `look` gives once it gives something; fails after `seconds`, naming what was waited for."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not seen within {seconds:.0f} s")
        time.sleep(0.2)


@dataclass(frozen=True)
class WholeStack:
    """A running stack, asked only as users and their programs would ask it."""

    layout: Layout

    @property
    def environment(self) -> dict[str, str]:
        own = {
            "BACKSTAY_PORT_BASE": str(self.layout.port_base),
            "BACKSTAY_STATE_DIR": str(self.layout.state_dir),
        }
        return {**os.environ, **own}

    def run(self, *words: str, timeout: float = 120, **settings: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [str(BACKSTAY), *words],
            env={**self.environment, **settings},
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    def start(self, *words: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [str(BACKSTAY), *words],
            env=self.environment,
            cwd=REPOSITORY,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def json(self, *words: str, timeout: float = 120) -> Any:
        done = self.run(*words, "--format", "json", timeout=timeout)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)

    @property
    def token(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.layout.token_file.read_text().strip()}"}

    def cluster(self) -> dict[str, Any]:
        url = f"{self.layout.url(self.layout.cluster_port)}/v1/state"
        body: dict[str, Any] = httpx.get(url, headers=self.token, timeout=5).json()
        return body

    def pid(self, part: str) -> int:
        return int(self.cluster()["processes"][part]["pid"])

    def status(self) -> dict[str, Any]:
        url = f"{self.layout.url(self.layout.console_port)}/api/v1/status"
        body: dict[str, Any] = httpx.get(url, headers=self.token, timeout=5).json()
        return body

    def slos(self) -> dict[str, dict[str, Any]]:
        url = f"{self.layout.url(self.layout.console_port)}/api/v1/slos"
        return {slo["name"]: slo for slo in httpx.get(url, headers=self.token, timeout=5).json()["slos"]}

    def failures(self, since: datetime) -> list[dict[str, Any]]:
        """Requests of demo users that failed since then."""
        url = f"{self.layout.url(self.layout.load_port)}/v1/outcomes"
        body = httpx.get(url, params={"since": since.timestamp()}, headers=self.token, timeout=10).json()
        assert not body["truncated"]
        return [failure for failure in body["failures"] if failure["at"] >= since.timestamp()]

    def alerts(self) -> list[dict[str, Any]]:
        url = f"{self.layout.url(self.layout.alertmanager_port)}/api/v2/alerts"
        found: list[dict[str, Any]] = httpx.get(url, timeout=5).json()
        return found

    def await_calm(self) -> None:
        """Until a drill would be allowed: every part answers, every event SLO is judged, nothing is going on."""

        def calm() -> bool:
            try:
                status, slos = self.status(), self.slos()
            except httpx.HTTPError:
                return False
            return (
                status.get("ready") is True
                and all(source["ok"] for source in status["sources"])
                and not status["plans"]
                and status["drill"] is None
                and all(s["verdict"] != "unknown" for s in slos.values() if s["kind"] != "throughput")
                and all((s["requests_per_second"] or 99) >= 5 for s in status["services"].values())
            )

        until(calm, 90, "a calm stack")


def processes_of(supervisor: int) -> list[psutil.Process]:
    return [psutil.Process(supervisor), *psutil.Process(supervisor).children(recursive=True)]


def now() -> datetime:
    return datetime.now(UTC)
