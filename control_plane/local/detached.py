"""The stack in the background: start it and wait, stop it and wait. For the command line; nothing here is async."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import httpx
import psutil

from control_plane.clock import monotonic
from control_plane.errors import SourceUnavailable
from control_plane.local.layout import Layout
from control_plane.local.lock import supervisor_pid
from control_plane.local.log_files import last_words
from control_plane.local.progress import STACK, Progress, Stage
from control_plane.local.stack import SPECIFICATION, make_folders, writing_to

POLL_SECONDS = 0.1
STOP_SECONDS = 60.0


def start_detached(
    layout: Layout, left_out: Sequence[str] = (), specification: Path = SPECIFICATION
) -> Iterator[Progress]:
    """Starts a stack that outlives us, and yields its progress until it is up.

    Raises SourceUnavailable, in the failed part's own words, when it does not come up; nothing then runs. Stopping to
    read leaves it starting.
    """
    with writing_to(layout.state_dir):
        make_folders(layout)
        log_file = layout.logs_dir / "stack.log"
        handle, name = tempfile.mkstemp(prefix="progress-", suffix=".jsonl", dir=layout.run_dir)
    os.close(handle)
    progress_file = Path(name)
    options = [option for part in left_out for option in ("--without", part)]
    argv = (
        sys.executable,
        "-m",
        "control_plane.local",
        "--progress",
        name,
        "--specification",
        str(specification),
        *options,
    )
    try:
        with log_file.open("ab") as log:
            said_before = log.tell()
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                env={
                    **os.environ,
                    "BACKSTAY_PORT_BASE": str(layout.port_base),
                    "BACKSTAY_STATE_DIR": str(layout.state_dir),
                },
            )
        for step in _follow(progress_file, child):
            yield step
            if step.ends_start:
                if step.stage is not Stage.READY:
                    raise SourceUnavailable(step.detail or "the stack was stopped while it started")
                return
        words = last_words(log_file, said_before)
        raise SourceUnavailable(f"the stack ended before it was up (code {child.returncode}). Its last words: {words}")
    finally:
        with suppress(OSError):
            progress_file.unlink()


def _follow(path: Path, child: subprocess.Popen[bytes]) -> Iterator[Progress]:
    """Steps as they are written, until the child has ended and all it wrote was read."""
    with path.open() as lines:
        rest = ""
        while True:
            ended = child.poll() is not None
            while chunk := lines.readline():
                rest += chunk
                if rest.endswith("\n"):
                    yield Progress.from_line(rest)
                    rest = ""
            if ended:
                return
            time.sleep(POLL_SECONDS)


def stop_stack(layout: Layout) -> Iterator[Progress]:
    """Stops the running stack, however it was started; ends when nothing of it is left. Yields nothing if none runs.

    Raises SourceUnavailable when it belongs to another user.
    """
    pid = supervisor_pid(layout)
    if pid is None:
        return
    yield Progress(STACK, Stage.STOPPING, f"process {pid}")
    began = monotonic()
    children = _children(pid)
    if not _ask_to_stop(layout):
        _signal(pid, signal.SIGTERM)
    while supervisor_pid(layout) == pid and monotonic() - began < STOP_SECONDS:
        time.sleep(POLL_SECONDS)
    if supervisor_pid(layout) == pid:
        _signal(pid, signal.SIGKILL)  # the kernel ends its children
    _, alive = psutil.wait_procs(children, timeout=10)
    for child in alive:
        with suppress(psutil.Error):
            child.kill()
    yield Progress(STACK, Stage.STOPPED, after_seconds=round(monotonic() - began, 2))


def _children(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []


def _ask_to_stop(layout: Layout) -> bool:
    try:
        token = layout.token_file.read_text().strip()
        url = f"{layout.url(layout.cluster_port)}/v1/down"
        return httpx.post(url, headers={"Authorization": f"Bearer {token}"}, timeout=3.0).is_success
    except (OSError, httpx.HTTPError):
        return False


def _signal(pid: int, number: signal.Signals) -> None:
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return
    except PermissionError as error:
        raise SourceUnavailable(f"the stack (process {pid}) belongs to another user: stop it as that user") from error
