"""Keeps log files from filling the disk."""

from __future__ import annotations

import os
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


def _longer(path: Path, limit_bytes: int) -> bool:
    try:
        return path.stat().st_size > limit_bytes
    except FileNotFoundError:
        return False


def _previous(path: Path) -> Path:
    return path.with_name(f"{path.name}.1")
