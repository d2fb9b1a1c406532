"""What is known of each file: its owner, name, type, size and hash."""

# ruff: noqa: S608  what is put into statements are constants of this file

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass

from control_plane.clock import Clock
from services.file.contents import Stored
from services.problems import Problem, not_found
from services.storage import Storage

MIGRATIONS = (
    """
    CREATE TABLE files (
        id TEXT PRIMARY KEY,  -- sorts by time
        user_id TEXT NOT NULL,
        name TEXT NOT NULL,
        media_type TEXT NOT NULL,
        size INTEGER NOT NULL,
        sha256 TEXT NOT NULL,
        created_at TEXT NOT NULL
    ) WITHOUT ROWID;
    CREATE INDEX files_of_user ON files (user_id, id, size);
    """,
)

QUOTA_BYTES = 500 << 20
"""What one user may keep in all."""

_COLUMNS = "id, name, media_type, size, sha256, created_at"


@dataclass(frozen=True, slots=True)
class FileRecord:
    id: str
    name: str
    media_type: str
    size: int  # bytes
    sha256: str  # hex
    created_at: str


class FileStore:
    """State of the domain. Another user's file is not found, exactly as one that does not exist."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._database = storage.database("file", MIGRATIONS)
        self._clock = clock

    async def add(self, user_id: str, file_id: str, name: str, media_type: str, stored: Stored) -> FileRecord:
        """Make stored content a file of this user. Problem 413 when it would exceed their quota."""
        record = FileRecord(
            file_id, name, media_type, stored.size, stored.sha256, self._clock().isoformat(timespec="microseconds")
        )

        def work(connection: sqlite3.Connection) -> None:
            used = connection.execute(
                "SELECT coalesce(sum(size), 0) FROM files WHERE user_id = ?", (user_id,)
            ).fetchone()[0]
            if used + stored.size > QUOTA_BYTES:
                raise Problem(413, f"Your files may have {QUOTA_BYTES >> 20} MiB in all: delete some first.")
            connection.execute(
                "INSERT INTO files (id, user_id, name, media_type, size, sha256, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?)",
                (record.id, user_id, name, media_type, record.size, record.sha256, record.created_at),
            )

        await self._database.write(work)
        return record

    async def get(self, user_id: str, file_id: str) -> FileRecord:
        def work(connection: sqlite3.Connection) -> FileRecord:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM files WHERE id = ? AND user_id = ?",
                (file_id, user_id),
            ).fetchone()
            if row is None:
                raise not_found("file")
            return FileRecord(*row)

        return await self._database.read(work)

    async def page(self, user_id: str, limit: int, before: str | None) -> tuple[list[FileRecord], str | None]:
        """Newest first, older than the file `before`; and where to go on from (None: this was the last page)."""

        def work(connection: sqlite3.Connection) -> list[FileRecord]:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM files WHERE user_id = ? AND id < ? ORDER BY id DESC LIMIT ?",
                (user_id, before or "~", limit + 1),  # "~" sorts after every id
            )
            return [FileRecord(*row) for row in rows]

        found = await self._database.read(work)
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else None

    async def remove(self, user_id: str, file_id: str) -> None:
        def work(connection: sqlite3.Connection) -> None:
            if not connection.execute("DELETE FROM files WHERE id = ? AND user_id = ?", (file_id, user_id)).rowcount:
                raise not_found("file")

        await self._database.write(work)

    async def known(self, file_ids: Sequence[str]) -> set[str]:
        """Those of these ids that are files of someone."""

        def work(connection: sqlite3.Connection) -> set[str]:
            return {
                id_ for id_ in file_ids if connection.execute("SELECT 1 FROM files WHERE id = ?", (id_,)).fetchone()
            }

        return await self._database.read(work)
