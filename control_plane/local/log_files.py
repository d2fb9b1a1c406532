"""Log files of the stack: kept from filling the disk, and asked why a program failed."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

LOG_BYTES = 16 * 1024 * 1024
ACCESS_LOG_BYTES = 128 * 1024 * 1024
"""About four hours of the demo's requests."""


def rotate_by_copy(path: Path, limit_bytes: int = LOG_BYTES) -> bool:
    """Moves the text of a log that grew too long to `<name>.1`, for writers that append and never reopen.

    A line written between copy and cut is lost: these are logs for people. True when it was rotated.
    """
    if not _longer(path, limit_bytes):
        return False
    shutil.copyfile(path, _previous(path))
    os.truncate(path, 0)
    return True


def rotate_by_name(path: Path, limit_bytes: int = ACCESS_LOG_BYTES) -> bool:
    """Renames a log that grew too long to `<name>.1`; its writer must then reopen it. Loses nothing."""
    if not _longer(path, limit_bytes):
        return False
    os.replace(path, _previous(path))
    return True


def size_of(path: Path) -> int:
    """Bytes in a log; 0 when there is none yet."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


_TROUBLE = re.compile(r"\b(error|err|fatal|critical|panic|cannot|failed|backstay)\b", re.IGNORECASE)


def last_words(path: Path, since: int) -> str:
    """Why a program ended, by its log after byte `since`: the last line that tells of trouble, else the last one."""
    try:
        with path.open("rb") as log:
            log.seek(max(since, size_of(path) - 16_384))
            said = [line.strip() for line in log.read().decode(errors="replace").splitlines() if line.strip()]
    except OSError:
        said = []
    trouble = [line for line in said if _TROUBLE.search(line)]
    words = (trouble or said or ["none"])[-1]
    return f"{words[:500]} (log: {path})"


def _longer(path: Path, limit_bytes: int) -> bool:
    return size_of(path) > limit_bytes


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")
