"""Child processes that never outlive us, however we end.

On Linux the kernel kills a child when its parent dies. Elsewhere only our own programs notice, by the end of their
standard input; Envoy, Prometheus and Alertmanager then have to be stopped by hand after a kill -9 of the supervisor.
"""

from __future__ import annotations

import asyncio
import ctypes
import json
import os
import signal
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control_plane.errors import SourceUnavailable

_PR_SET_PDEATHSIG = 1
_libc = ctypes.CDLL(None, use_errno=True) if sys.platform == "linux" else None


@dataclass(frozen=True, slots=True)
class Command:
    """What to run and how."""

    name: str
    argv: tuple[str, ...]
    log_file: Path  # standard output and error are appended to it
    environment: Mapping[str, str] = field(default_factory=dict)  # added to our own
    tethered: bool = False  # our own program: it takes orders on standard input, and exits when that ends
    folder: Path | None = None  # working directory; None is ours


class Process:
    """One run of a command."""

    def __init__(self, command: Command, child: asyncio.subprocess.Process) -> None:
        self.command = command
        self._child = child
        self._exit = asyncio.create_task(child.wait(), name=f"exit of {command.name}")

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def running(self) -> bool:
        return not self._exit.done()

    async def exited(self) -> int:
        """Waits for the end; the exit code, negative for a signal. Known at once, without polling."""
        return await asyncio.shield(self._exit)

    async def tell(self, order: Mapping[str, Any]) -> None:
        """Sends one JSON line to a tethered child. A child that is gone, or that does not read, hears nothing."""
        if self._child.stdin is None or self._child.stdin.is_closing():
            return
        with suppress(ConnectionError, TimeoutError):
            self._child.stdin.write(json.dumps(order).encode() + b"\n")
            await asyncio.wait_for(self._child.stdin.drain(), 1.0)

    def signal(self, number: signal.Signals) -> None:
        with suppress(ProcessLookupError):
            self._child.send_signal(number)

    async def stop(self, grace_seconds: float) -> None:
        """SIGTERM, then after the grace SIGKILL for it and whatever it started. Returns when it is gone."""
        self.signal(signal.SIGTERM)
        with suppress(TimeoutError):
            await asyncio.wait_for(self.exited(), grace_seconds)
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        await self.exited()


async def spawn(command: Command) -> Process:
    """Starts a process in a session of its own, so that a Ctrl-C at our terminal reaches us alone.

    Must be called on the main thread: the kernel ties the child to the thread that started it. Raises
    SourceUnavailable when the program cannot be run.
    """
    try:
        log = os.open(command.log_file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    except OSError as error:
        raise SourceUnavailable(f"{command.name} has nowhere to log: {error}") from error
    try:
        child = await asyncio.create_subprocess_exec(
            *command.argv,
            stdin=PIPE if command.tethered else DEVNULL,
            stdout=log,
            stderr=STDOUT,
            env={**os.environ, **command.environment},
            cwd=command.folder,
            start_new_session=True,
            preexec_fn=_die_with(os.getpid()),
        )
    except OSError as error:
        raise SourceUnavailable(f"{command.name} could not be started ({command.argv[0]}): {error}") from error
    finally:
        os.close(log)
    return Process(command, child)


def _die_with(parent: int) -> Callable[[], None] | None:
    libc = _libc
    if libc is None:
        return None

    def tie() -> None:
        libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:  # it died before we were tied to it
            os._exit(1)

    return tie
