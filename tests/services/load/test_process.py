"""The load generator as a process: it serves, and it never outlives its parent."""

import asyncio
import json
import os
import socket
import sys
import urllib.request
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.stack


def a_free_port() -> int:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        return int(taken.getsockname()[1])


@asynccontextmanager
async def a_process(tmp_path: Path, port: int) -> AsyncIterator[asyncio.subprocess.Process]:
    (tmp_path / "token").write_text("stack-token")
    environment = {
        **os.environ,
        "SUITE_LOAD_PORT": str(port),
        "SUITE_LOAD_GATEWAY_URL": "http://127.0.0.1:9",  # nobody there
        "SUITE_LOAD_TOKEN_FILE": str(tmp_path / "token"),
    }
    child = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "services.load",
        env=environment,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    try:
        yield child
    finally:
        if child.returncode is None:
            child.kill()
        await child.wait()


async def told(port: int) -> Any:
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/outcomes", headers={"authorization": "Bearer stack-token"}
    )
    async with asyncio.timeout(20):
        while True:
            try:
                answer = await asyncio.to_thread(lambda: urllib.request.urlopen(request, timeout=5).read())  # noqa: S310
                return json.loads(answer)
            except OSError:
                await asyncio.sleep(0.1)


async def test_it_waits_for_its_gateway_and_leaves_when_its_parent_does(tmp_path: Path) -> None:
    port = a_free_port()
    async with a_process(tmp_path, port) as child:
        assert (await told(port))["sent"] == 0  # a gateway that is not there yet is nobody's failure
        assert child.stdin is not None
        child.stdin.close()
        assert await asyncio.wait_for(child.wait(), 10) == 0


async def test_a_stop_signal_ends_it_well(tmp_path: Path) -> None:
    port = a_free_port()
    async with a_process(tmp_path, port) as child:
        await told(port)
        child.terminate()
        assert await asyncio.wait_for(child.wait(), 10) == 0


async def test_a_taken_port_is_said_and_has_its_own_exit_code(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        async with a_process(tmp_path, port) as child:
            output, _ = await asyncio.wait_for(child.communicate(), 20)
    assert child.returncode == 98
    assert f"cannot listen on 127.0.0.1:{port}" in output.decode()
