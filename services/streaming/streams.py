"""Streams that outlive the replica they began on: each event is kept under a number before anyone sees it.

A reader says which event it saw last and goes on from there, on any replica and on the monolith. The replica that asks
the model holds a lease and keeps renewing it; when it runs out, the reader's replica takes over and starts the reply
again, which the reader learns from a `restart` event.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from services.storage import Database

MIGRATIONS = (
    """
    CREATE TABLE streams (
        id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL,
        request TEXT NOT NULL,
        state TEXT NOT NULL CHECK (state IN ('running', 'ended')),
        holder TEXT NOT NULL,
        leased_until REAL NOT NULL,
        created_at REAL NOT NULL
    ) STRICT;
    CREATE INDEX streams_by_age ON streams (created_at);
    CREATE TABLE stream_events (
        stream_id TEXT NOT NULL REFERENCES streams (id) ON DELETE CASCADE,
        number INTEGER NOT NULL,
        name TEXT NOT NULL,
        data TEXT NOT NULL,
        PRIMARY KEY (stream_id, number)
    ) STRICT, WITHOUT ROWID;
    """,
)

LEASE_SECONDS = 4.0
RENEW_SECONDS = 1.0
KEPT_SECONDS = 3600.0
FORGOTTEN_AT_ONCE = 50


@dataclass(frozen=True, slots=True)
class Stream:
    """One stream as it stands."""

    id: str
    user_id: str
    request: str  # JSON of the chat it answers
    state: str  # "running" or "ended"
    leased_until: float  # unix seconds; past them nobody writes it any more
    created_at: float


@dataclass(frozen=True, slots=True)
class StreamEvent:
    """`number` counts from 1 within its stream. Names: delta, restart, done, error."""

    number: int
    name: str
    data: str  # JSON


class LeaseLost(Exception):
    """Someone else writes this stream now."""


class Streams:
    """Reads and writes of the streaming database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, stream_id: str, user_id: str, request: str, holder: str, now: float) -> None:
        """A new stream, held by `holder`; streams older than an hour are forgotten on the way."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM streams WHERE id IN (SELECT id FROM streams WHERE created_at < ? LIMIT ?)",
                (now - KEPT_SECONDS, FORGOTTEN_AT_ONCE),
            )
            connection.execute(
                "INSERT INTO streams (id, user_id, request, state, holder, leased_until, created_at)"
                " VALUES (?, ?, ?, 'running', ?, ?, ?)",
                (stream_id, user_id, request, holder, now + LEASE_SECONDS, now),
            )

        await self._database.write(work)

    async def find(self, stream_id: str, user_id: str) -> Stream | None:
        """The user's own stream; None when there is none of theirs."""

        def work(connection: sqlite3.Connection) -> Stream | None:
            row = connection.execute(
                "SELECT id, user_id, request, state, leased_until, created_at FROM streams"
                " WHERE id = ? AND user_id = ?",
                (stream_id, user_id),
            ).fetchone()
            return Stream(*row) if row else None

        return await self._database.read(work)

    async def append(
        self, stream_id: str, holder: str, events: list[tuple[str, str]], now: float, *, ends: bool = False
    ) -> None:
        """Add events (name, JSON) in order and renew the lease. Raises LeaseLost, and then nothing was added."""

        def work(connection: sqlite3.Connection) -> None:
            renewed = connection.execute(
                "UPDATE streams SET leased_until = ?, state = ? WHERE id = ? AND holder = ? AND state = 'running'",
                (now + LEASE_SECONDS, "ended" if ends else "running", stream_id, holder),
            )
            if renewed.rowcount == 0:
                raise LeaseLost(stream_id)
            (last,) = connection.execute(
                "SELECT coalesce(max(number), 0) FROM stream_events WHERE stream_id = ?", (stream_id,)
            ).fetchone()
            connection.executemany(
                "INSERT INTO stream_events (stream_id, number, name, data) VALUES (?, ?, ?, ?)",
                [(stream_id, last + index, name, data) for index, (name, data) in enumerate(events, 1)],
            )

        await self._database.write(work)

    async def take_over(self, stream_id: str, holder: str, now: float) -> bool:
        """Become the holder of a stream whose lease ran out; of several who try exactly one succeeds."""

        def work(connection: sqlite3.Connection) -> bool:
            taken = connection.execute(
                "UPDATE streams SET holder = ?, leased_until = ?"
                " WHERE id = ? AND state = 'running' AND leased_until < ?",
                (holder, now + LEASE_SECONDS, stream_id, now),
            )
            return taken.rowcount == 1

        return await self._database.write(work)

    async def after(self, stream_id: str, number: int) -> tuple[list[StreamEvent], bool, float]:
        """Events after `number`; whether the stream has ended; until when it is leased."""

        def work(connection: sqlite3.Connection) -> tuple[list[StreamEvent], bool, float]:
            rows = connection.execute(
                "SELECT number, name, data FROM stream_events WHERE stream_id = ? AND number > ? ORDER BY number",
                (stream_id, number),
            ).fetchall()
            state = connection.execute("SELECT state, leased_until FROM streams WHERE id = ?", (stream_id,)).fetchone()
            events = [StreamEvent(*row) for row in rows]
            return (events, True, 0.0) if state is None else (events, state[0] == "ended", state[1])

        return await self._database.read(work)
