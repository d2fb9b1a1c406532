"""The command line as a person uses it, against the real API over a control plane held in memory."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import uvicorn

from control_plane.cli.main import main
from control_plane.console.web import build_console
from tests.console.console_builders import TOKEN, HostInMemory, a_situation


class Current:
    """The host whose turn it is: building a console for each test would take longer than the tests."""

    host: HostInMemory

    def __getattr__(self, name: str) -> Any:
        return getattr(self.host, name)


class Switchboard:
    """One server for all tests: `show` puts another host behind the console, `app` something else in its place."""

    def __init__(self) -> None:
        self._current = Current()
        current: Any = self._current
        self.console: Any = build_console(current)
        self.app: Any = self.console

    def show(self, host: HostInMemory) -> None:
        self._current.host = host
        self.app = self.console

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        await self.app(scope, receive, send)


@pytest.fixture(scope="session")
def served() -> Iterator[tuple[Switchboard, int]]:
    """A server on a free port of loopback, in a thread."""
    board = Switchboard()
    config = uvicorn.Config(board, host="127.0.0.1", port=0, log_level="error", lifespan="off")
    server = uvicorn.Server(config)
    server.install_signal_handlers = lambda: None  # type: ignore[attr-defined]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve()), daemon=True)
    thread.start()
    waiting = threading.Event()
    for _ in range(500):
        if server.started:
            break
        waiting.wait(0.01)
    (socket,) = server.servers[0].sockets
    yield board, socket.getsockname()[1]
    server.should_exit = True
    thread.join(5.0)


@dataclass(frozen=True)
class Ran:
    """What a command left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Backstay = Callable[..., Ran]


@pytest.fixture
def host() -> HostInMemory:
    return HostInMemory(a_situation())


@pytest.fixture
def board(served: tuple[Switchboard, int], host: HostInMemory) -> Switchboard:
    served[0].show(host)
    return served[0]


@pytest.fixture
def state_dir(tmp_path: Path) -> Path:
    """A state folder with the token that the control plane knows."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "token").write_text(f"{TOKEN}\n")
    return tmp_path


@pytest.fixture
def backstay(
    served: tuple[Switchboard, int],
    board: Switchboard,
    state_dir: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Backstay:
    """Runs `backstay ...` in this process."""
    del board
    monkeypatch.setenv("BACKSTAY_PORT_BASE", str(served[1] - 10))
    monkeypatch.setenv("BACKSTAY_STATE_DIR", str(state_dir))

    def run(*arguments: str) -> Ran:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main(arguments)
        said = capsys.readouterr()
        code = ended.value.code
        return Ran(code if isinstance(code, int) else 0 if code is None else 1, said.out, said.err)

    return run
