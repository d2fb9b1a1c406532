"""A stack for measurements: other ports than the user's, a folder that goes away, nothing of it left at the end."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx

from control_plane.clock import Monotonic
from control_plane.errors import SourceUnavailable
from control_plane.local.bench.machine import REPOSITORY
from control_plane.local.layout import Layout
from control_plane.local.lock import supervisor_pid

Tell = Callable[[str], None]

UP_SECONDS = 240.0
DOWN_SECONDS = 90.0
COMMAND_SECONDS = 900.0


class StackUnderTest:
    """Speaks to one stack by the command line, as its users do, and by its cluster API."""

    def __init__(self, layout: Layout, monotonic: Monotonic, tell: Tell) -> None:
        self.layout = layout
        self._monotonic = monotonic
        self._tell = tell

    def up(self) -> float:
        """Seconds until `backstay up --detach` returned, all being ready. Raises SourceUnavailable."""
        self._tell(f"backstay up (ports from {self.layout.port_base}, state in {self.layout.state_dir})")
        began = self._monotonic()
        self.run("up", "--detach", seconds=UP_SECONDS)
        return self._monotonic() - began

    def down(self) -> float:
        """Seconds until nothing of it was left."""
        self._tell("backstay down")
        began = self._monotonic()
        self.run("down", seconds=DOWN_SECONDS)
        return self._monotonic() - began

    @property
    def running(self) -> bool:
        return supervisor_pid(self.layout) is not None

    def ensure_up(self) -> None:
        """Starts it where no earlier part did."""
        if not self.running:
            self.up()

    def supervisor(self) -> int:
        """Process id of the supervisor. Raises SourceUnavailable when none runs."""
        pid = supervisor_pid(self.layout)
        if pid is None:
            raise SourceUnavailable(f"the stack in {self.layout.state_dir} does not run any more")
        return pid

    def run(
        self, *words: str, seconds: float = COMMAND_SECONDS, allowed: Sequence[int] = (0,)
    ) -> subprocess.CompletedProcess[str]:
        """One command of `backstay`. Raises SourceUnavailable with its last words for an exit code not `allowed`."""
        try:
            done = subprocess.run(
                [*command(), *words],
                cwd=REPOSITORY,
                env=self._environment(),
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise SourceUnavailable(f"`backstay {' '.join(words)}` took more than {seconds:.0f} s") from error
        if done.returncode not in allowed:
            said = (done.stderr.strip() or done.stdout.strip() or "no word")[-400:]
            raise SourceUnavailable(f"`backstay {' '.join(words)}` ended with {done.returncode}: {said}")
        return done

    def cluster_state(self) -> dict[str, Any]:
        """The cluster API's `/v1/state`. Raises SourceUnavailable."""
        token = self.layout.token_file.read_text().strip()
        return self._get(self.layout.cluster_port, "/v1/state", token).json()  # type: ignore[no-any-return]

    def status(self) -> dict[str, Any]:
        """`backstay status`, as a program reads it."""
        return json.loads(self.run("status", "--format", "json").stdout)  # type: ignore[no-any-return]

    def own_metrics(self) -> str:
        """The control plane's metrics, in Prometheus' text format. Raises SourceUnavailable."""
        return self._get(self.layout.console_port, "/metrics").text

    def _get(self, port: int, path: str, token: str | None = None) -> httpx.Response:
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        try:
            answer = httpx.get(self.layout.url(port) + path, headers=headers, timeout=10.0)
            answer.raise_for_status()
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"{path} on port {port} did not answer: {error}") from error
        return answer

    def _environment(self) -> dict[str, str]:
        """Ours without the user's settings: what is measured are the defaults."""
        others = {name: value for name, value in os.environ.items() if not name.startswith(("BACKSTAY_", "SUITE_"))}
        own = {"BACKSTAY_PORT_BASE": str(self.layout.port_base), "BACKSTAY_STATE_DIR": str(self.layout.state_dir)}
        return {**others, **own}


def command() -> list[str]:
    """How `backstay` is run by this Python."""
    script = Path(sys.executable).with_name("backstay")
    return [str(script)] if script.exists() else [sys.executable, "-c", "from control_plane.cli import main; main()"]


@contextmanager
def a_stack(port_base: int, monotonic: Monotonic, tell: Tell) -> Iterator[StackUnderTest]:
    """A stack that is not started yet; whatever was started is stopped at the end, and its folder removed."""
    folder = Path(tempfile.mkdtemp(prefix="backstay-bench-"))
    stack = StackUnderTest(Layout(port_base, folder), monotonic, tell)
    try:
        yield stack
    finally:
        if stack.running:
            stack.down()
        shutil.rmtree(folder, ignore_errors=True)


def rest(seconds: float, monotonic: Monotonic) -> None:
    """Waits by a clock that never jumps."""
    until = monotonic() + seconds
    while (left := until - monotonic()) > 0:
        time.sleep(min(left, 1.0))
