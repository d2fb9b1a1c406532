"""Inboxes: what users were told, and what of it they have read."""

# ruff: noqa: S608  what is put into statements are constants of this file

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from control_plane.clock import Clock
from services.ids import new_id
from services.peers import Notice
from services.problems import not_found
from services.storage import Storage

MIGRATIONS = (
    """
    CREATE TABLE notifications (
        id TEXT PRIMARY KEY,  -- sorts by time
        user_id TEXT NOT NULL,
        event_id TEXT NOT NULL,
        kind TEXT NOT NULL,
        title TEXT NOT NULL,
        body TEXT NOT NULL,
        about TEXT,
        created_at TEXT NOT NULL,
        read_at TEXT,
        UNIQUE (user_id, event_id)
    ) WITHOUT ROWID;
    CREATE INDEX notifications_of_user ON notifications (user_id, id);
    CREATE INDEX notifications_unread ON notifications (user_id, id) WHERE read_at IS NULL;
    """,
)

INBOX_SIZE = 500
"""Entries that an inbox keeps; older ones make room."""

_COLUMNS = "id, kind, title, body, about, created_at, read_at"


@dataclass(frozen=True, slots=True)
class Notification:
    id: str
    kind: str
    title: str
    body: str
    about: str | None
    created_at: str
    read_at: str | None  # None: unread


class NotificationStore:
    """State of the domain. Another user's entry is not found, exactly as one that does not exist."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._database = storage.database("notification", MIGRATIONS)
        self._clock = clock

    async def tell(self, user_id: str, notice: Notice) -> tuple[str, bool]:
        """Put a notice in the inbox: its id, and whether it is new. An event told before keeps its one entry."""
        id_ = new_id()
        now = self._now()
        event_id = notice.event_id or id_

        def work(connection: sqlite3.Connection) -> tuple[str, bool]:
            added = connection.execute(
                "INSERT INTO notifications (id, user_id, event_id, kind, title, body, about, created_at)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT (user_id, event_id) DO NOTHING",
                (id_, user_id, event_id, notice.kind, notice.title, notice.body, notice.about, now),
            )
            if added.rowcount == 0:
                known = connection.execute(
                    "SELECT id FROM notifications WHERE user_id = ? AND event_id = ?", (user_id, event_id)
                ).fetchone()
                return str(known["id"]), False
            connection.execute(
                "DELETE FROM notifications WHERE user_id = ?1 AND id <= ("
                "SELECT id FROM notifications WHERE user_id = ?1 ORDER BY id DESC LIMIT 1 OFFSET ?2)",
                (user_id, INBOX_SIZE),
            )
            return id_, True

        return await self._database.write(work)

    async def page(
        self, user_id: str, limit: int, before: str | None, unread_only: bool
    ) -> tuple[list[Notification], str | None]:
        """Newest first, older than the entry `before`; and where to go on from (None: this was the last page)."""
        condition = " AND read_at IS NULL" if unread_only else ""

        def work(connection: sqlite3.Connection) -> list[Notification]:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM notifications WHERE user_id = ? AND id < ?{condition}"
                " ORDER BY id DESC LIMIT ?",
                (user_id, before or "~", limit + 1),  # "~" sorts after every id
            )
            return [Notification(*row) for row in rows]

        found = await self._database.read(work)
        page = found[:limit]
        return page, page[-1].id if len(found) > limit else None

    async def unread(self, user_id: str) -> int:
        def work(connection: sqlite3.Connection) -> int:
            row = connection.execute(
                "SELECT count(*) FROM notifications WHERE user_id = ? AND read_at IS NULL", (user_id,)
            ).fetchone()
            return int(row[0])

        return await self._database.read(work)

    async def mark_read(self, user_id: str, notification_id: str) -> Notification:
        """The entry as read; the first reading's time stays."""
        now = self._now()

        def work(connection: sqlite3.Connection) -> Notification:
            row = connection.execute(
                "UPDATE notifications SET read_at = coalesce(read_at, ?) WHERE id = ? AND user_id = ?"
                f" RETURNING {_COLUMNS}",
                (now, notification_id, user_id),
            ).fetchone()
            if row is None:
                raise not_found("notification")
            return Notification(*row)

        return await self._database.write(work)

    async def mark_all_read(self, user_id: str) -> int:
        """How many were unread until now."""
        now = self._now()

        def work(connection: sqlite3.Connection) -> int:
            return connection.execute(
                "UPDATE notifications SET read_at = ? WHERE user_id = ? AND read_at IS NULL", (now, user_id)
            ).rowcount

        return await self._database.write(work)

    def _now(self) -> str:
        return self._clock().isoformat(timespec="microseconds")
