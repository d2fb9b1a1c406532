"""Lets a distribution's program find its data files when its package was only unpacked, not installed.

Debian compiles the folder of templates and pages into Alertmanager and Prometheus, and Alertmanager does not start
without it. A copy of the program gets a path of the same length instead, relative to the working directory, in which it
is then run. The file that the distribution signed stays as it was.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path

ALERTMANAGER_DATA = "/usr/share/prometheus/alertmanager"
PROMETHEUS_DATA = "/usr/share/prometheus/web"


@dataclass(frozen=True, slots=True)
class Runnable:
    """A program that finds its data files."""

    program: Path
    folder: Path | None  # working directory that it must be run in; None: any


def runnable(program: Path, data: str, installed_root: Path = Path("/")) -> Runnable:
    """How to run `program`, whose compiled-in data folder is `data`. Raises OSError when a copy cannot be written.

    The program itself where it was installed, or where it has no such folder; else a relocated copy beside it.
    """
    unpacked = program.parent.parent.parent / data.lstrip("/")  # <package>/usr/bin/program -> <package>/usr/share/...
    if (installed_root / data.lstrip("/")).is_dir() or not unpacked.is_dir():
        return Runnable(program, None)
    copy = program.with_name(f"{program.name}.relocated")
    if not copy.exists() or copy.stat().st_mtime < program.stat().st_mtime:
        _write_program(copy, program.read_bytes().replace(data.encode(), here(len(data))))
    return Runnable(copy, unpacked)


def here(length: int) -> bytes:
    """The working directory, spelt with exactly `length` (2 or more) characters."""
    return b"./" * (length // 2 - 1) + (b".//" if length % 2 else b"./")


def _write_program(path: Path, content: bytes) -> None:
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as draft:
            draft.write(content)
        os.chmod(name, 0o755)  # noqa: S103  a program, as its original is
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
