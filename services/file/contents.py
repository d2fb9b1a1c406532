"""Contents of files on disk, each under its id: whole or not there, never in part."""

from __future__ import annotations

import hashlib
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from services.problems import Problem

CHUNK_BYTES = 1 << 18
ABANDONED_AFTER_SECONDS = 3600.0
"""Age at which content that no row knows is taken for what a crash left behind."""


@dataclass(frozen=True, slots=True)
class Stored:
    """What was written."""

    size: int  # bytes
    sha256: str  # hex


class Contents:
    """Content by id below one folder, which several processes share. Blocking: call it off the event loop."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def path(self, file_id: str) -> Path:
        # Ids of one moment begin alike, so folders go by their end, which is random.
        return self._folder / file_id[-2:] / file_id

    def write(self, file_id: str, source: BinaryIO) -> Stored:
        """Keep `source` under the id: synced to disk, then put in place by a rename.

        Problem 413 above the limit, 507 when the disk refuses; nothing is left behind then.
        """
        final = self.path(file_id)
        draft = final.with_name(f"{file_id}.draft")
        digest, size = hashlib.sha256(), 0
        try:
            final.parent.mkdir(mode=0o700, exist_ok=True)
            with open(draft, "xb") as target:
                while chunk := source.read(CHUNK_BYTES):
                    size += len(chunk)
                    if size > self._max_bytes:
                        raise too_large(self._max_bytes)
                    digest.update(chunk)
                    target.write(chunk)
                target.flush()
                os.fsync(target.fileno())
            os.replace(draft, final)
        except OSError as error:
            draft.unlink(missing_ok=True)
            raise Problem(507, "The file could not be stored: the disk takes no more.") from error
        except BaseException:
            draft.unlink(missing_ok=True)
            raise
        return Stored(size, digest.hexdigest())

    def remove(self, file_id: str) -> None:
        """Idempotent. Who reads it at this moment reads on to the end."""
        self.path(file_id).unlink(missing_ok=True)

    def remove_abandoned(self, is_known: Callable[[list[str]], set[str]], now: float | None = None) -> int:
        """Remove what a crash between disk and database left behind, and say how many.

        `is_known` gives those of the given ids that are in use.
        """
        old = (time.time() if now is None else now) - ABANDONED_AFTER_SECONDS
        removed = 0
        for folder in self._folder.iterdir():
            if not folder.is_dir():
                continue
            aged = [entry for entry in folder.iterdir() if _changed_at(entry) < old]
            known = is_known([entry.name for entry in aged])
            for entry in aged:
                if entry.name not in known:
                    entry.unlink(missing_ok=True)
                    removed += 1
        return removed


def too_large(max_bytes: int) -> Problem:
    return Problem(413, f"A file may have {max_bytes >> 20} MiB at most.", extra={"max_bytes": max_bytes})


def _changed_at(path: Path) -> float:
    try:
        return path.stat().st_mtime
    except FileNotFoundError:  # another process removed it first
        return float("inf")
