"""A replica as a process: its parent's orders, its ends, its log."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import httpx
import pytest

from control_plane.topology import MONOLITH
from services.app import Replica
from services.drain import Drain
from services.faults import Faults
from services.launch import EXIT_BAD_CONFIGURATION, EXIT_PORT_TAKEN, JsonLines, PortTaken, listen, obey


def a_replica_to_order() -> Replica:
    faults = Faults(lambda: 0.0, crash=lambda: None)
    return cast(Replica, SimpleNamespace(faults=faults, drain=Drain()))


async def test_a_fault_is_set_and_taken_back_by_lines() -> None:
    app = a_replica_to_order()
    obey(b'{"fault": {"kind": "errors", "share": 0.2, "until": 4000000000}}\n', app)
    assert app.faults.active is not None
    obey(b'{"fault": null}\n', app)
    assert app.faults.active is None


async def test_a_drain_is_ordered_by_a_line() -> None:
    app = a_replica_to_order()
    obey(b'{"drain": true}\n', app)
    assert app.drain.started


@pytest.mark.parametrize(
    "line", [b"", b"noise\n", b"[]\n", b'{"fault": {"kind": "meteor"}}\n', b'{"unknown": 1}\n', b"\xff\n"]
)
async def test_a_line_that_makes_no_sense_changes_nothing(line: bytes) -> None:
    app = a_replica_to_order()
    obey(line, app)
    assert app.faults.active is None
    assert not app.drain.started


def test_a_taken_port_is_named() -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        with pytest.raises(PortTaken, match=rf"127\.0\.0\.1:{port}: Address already in use"):
            listen("127.0.0.1", port)


def test_a_log_line_is_one_json_object_that_names_its_replica() -> None:
    try:
        raise ValueError("two\nlines")
    except ValueError:
        record = logging.LogRecord("services", logging.ERROR, "f", 1, "it %s", ("broke",), sys.exc_info())
    text = JsonLines("identity-service", "identity-1").format(record)
    assert "\n" not in text
    line = json.loads(text)
    assert (line["message"], line["level"], line["service"], line["replica"]) == (
        "it broke",
        "ERROR",
        "identity-service",
        "identity-1",
    )
    assert "ValueError" in line["exception"]


@dataclass
class Process:
    process: subprocess.Popen[bytes]
    http: httpx.AsyncClient
    log: Path

    def order(self, **order: Any) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(order).encode() + b"\n")
        self.process.stdin.flush()

    async def ended(self, within_seconds: float) -> int:
        return await asyncio.to_thread(self.process.wait, within_seconds)

    async def ready(self) -> int:
        return (await self.http.get("/ready")).status_code


def launch(folder: Path, port: int, service: str = "identity-service", **environment: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "services.launch", "--service", service, "--port", str(port), "--replica", "r-1"],
        stdin=subprocess.PIPE,
        stdout=(folder / "log").open("wb"),
        env={**os.environ, "SUITE_DATA_DIR": str(folder / "data"), "SUITE_DRAIN_SECONDS": "5", **environment},
    )


@asynccontextmanager
async def a_process(folder: Path, service: str = "identity-service", **environment: str) -> AsyncIterator[Process]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = launch(folder, port, service, **environment)
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=10) as http:
            async with asyncio.timeout(30):
                while True:
                    try:
                        if (await http.get("/ready")).status_code == 200:
                            break
                    except httpx.TransportError:
                        await asyncio.sleep(0.05)
            yield Process(process, http, folder / "log")
    finally:
        process.kill()
        process.wait()
        if process.stdin:
            process.stdin.close()


@pytest.mark.stack
async def test_a_drain_makes_it_unready_and_it_still_answers(tmp_path: Path) -> None:
    async with a_process(tmp_path) as replica:
        replica.order(drain=True)
        async with asyncio.timeout(3):
            while await replica.ready() == 200:  # noqa: ASYNC110
                await asyncio.sleep(0.02)
        assert (await replica.http.get("/health")).status_code == 200
        assert (await replica.http.get("/api/users/me")).status_code == 401
        assert replica.process.poll() is None


@pytest.mark.stack
async def test_a_stop_signal_lets_requests_in_flight_finish(tmp_path: Path) -> None:
    async with a_process(tmp_path) as replica:
        replica.order(fault={"kind": "latency", "share": 1.0, "delay_ms": 1000, "until": 4e9})
        await asyncio.sleep(0.2)
        asked = asyncio.create_task(replica.http.get("/api/users/me"))
        await asyncio.sleep(0.3)
        replica.process.send_signal(signal.SIGTERM)
        assert (await asked).status_code == 401
        assert await replica.ended(5) == 0


@pytest.mark.stack
async def test_without_a_parent_it_ends(tmp_path: Path) -> None:
    async with a_process(tmp_path) as replica:
        assert replica.process.stdin is not None
        replica.process.stdin.close()
        assert await replica.ended(4) == 0


@pytest.mark.stack
async def test_a_crash_comes_two_seconds_after_it_is_told_with_exit_code_1(tmp_path: Path) -> None:
    async with a_process(tmp_path) as replica:
        told = time.monotonic()
        replica.order(fault={"kind": "crash", "until": 4e9})
        assert await replica.ended(5) == 1
        assert 1.8 < time.monotonic() - told < 3.5


@pytest.mark.stack
async def test_its_log_is_json_and_holds_no_secret(tmp_path: Path) -> None:
    async with a_process(tmp_path, MONOLITH) as replica:
        body = {"email": "ana@example.org", "password": "correct horse"}
        await replica.http.post("/api/auth/register", json=body)
        token = (await replica.http.post("/api/auth/login", json=body)).json()["access_token"]
        await replica.http.get("/api/users/me", headers={"authorization": f"Bearer {token}"})
        replica.order(nonsense=True)
        replica.process.send_signal(signal.SIGTERM)
        assert await replica.ended(8) == 0
        text = replica.log.read_text()
        assert [json.loads(line)["service"] for line in text.splitlines()]
        key = (tmp_path / "data" / "jwt.secret").read_text()
        for secret in ("correct horse", token, key):
            assert secret not in text


@pytest.mark.stack
@pytest.mark.parametrize(
    ("environment", "code", "said"),
    [
        ({"SUITE_SLOTS": "none"}, EXIT_BAD_CONFIGURATION, "SUITE_SLOTS"),
        ({"SUITE_IDENTITY_CONFIG": "/nowhere.json"}, EXIT_BAD_CONFIGURATION, "/nowhere.json cannot be read"),
    ],
)
def test_a_wrong_setting_is_named_and_ends_it(
    tmp_path: Path, environment: dict[str, str], code: int, said: str
) -> None:
    process = launch(tmp_path, 0, **environment)
    assert process.wait(20) == code
    assert said in (tmp_path / "log").read_text()


@pytest.mark.stack
def test_a_taken_port_ends_it_with_a_line_that_says_so(tmp_path: Path) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        process = launch(tmp_path, other.getsockname()[1])
        assert process.wait(20) == EXIT_PORT_TAKEN
    assert "Address already in use" in (tmp_path / "log").read_text()
