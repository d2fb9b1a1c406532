"""The one thread that talks to the database, and its errors in Backstay's words."""

from __future__ import annotations

import asyncio
import os
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, NoSuchModuleError, SQLAlchemyError

from control_plane.errors import ActuationRefused, InvalidDefinition, SourceUnavailable

T = TypeVar("T")

LOCK_PATIENCE_SECONDS = 3.0
"""How long a statement waits for another process that writes."""

_PROBLEMS = {
    "SQLITE_FULL": "the disk that holds it is full: free some space, Backstay goes on by itself",
    "SQLITE_BUSY": f"another process has kept it locked for {LOCK_PATIENCE_SECONDS:g} s: find it with `fuser`",
    "SQLITE_LOCKED": "it is locked by another statement",
    "SQLITE_READONLY": "it is read-only: check the owner and mode of the file and its folder",
    "SQLITE_IOERR": "the disk reported an error: it may be full or failing",
    "SQLITE_CANTOPEN": "it cannot be opened: check that its folder exists and may be written",
    "SQLITE_CORRUPT": "it is damaged: restore it from a backup",
    "SQLITE_NOTADB": "it is not an SQLite database: move that file away, or point BACKSTAY_DATABASE_URL elsewhere",
}


class Connections:
    """Runs queries one after the other on a thread of its own: SQLite has one writer, and the event loop none to spare.

    A write is durable when its call returns, and has changed nothing when it raises.
    """

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        self.shown = engine.url.database or engine.url.render_as_string(hide_password=True)

    async def read(self, query: Callable[[Connection], T]) -> T:
        """Answer of a query; SourceUnavailable when it could not be had."""
        return await self._call(lambda: self._run(query, writes=False))

    async def write(self, change: Callable[[Connection], T]) -> T:
        """Makes a change in one transaction; ActuationRefused when nothing was written."""
        return await self._call(lambda: self._run(change, writes=True))

    async def outside_transaction(self, work: Callable[[Engine], T]) -> T:
        """Work with the engine itself, on the same thread."""
        return await self._call(lambda: work(self._engine))

    async def close(self) -> None:
        """Waits for what runs, then closes."""
        await self._call(self._engine.dispose)
        self._thread.shutdown(wait=True)

    async def _call(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _run(self, work: Callable[[Connection], T], *, writes: bool) -> T:
        try:
            with self._engine.connect() as connection:
                connection = connection.execution_options(backstay_writes=writes)
                with connection.begin():
                    return work(connection)
        except SQLAlchemyError as error:
            self._forget_after(error)
            what = problem(error)
            if writes:
                raise ActuationRefused(f"Nothing was written to the database {self.shown}: {what}.") from error
            raise SourceUnavailable(f"The database {self.shown} could not be read: {what}.") from error

    def _forget_after(self, error: SQLAlchemyError) -> None:
        """A connection that saw the disk fail may be left half-way; the next call opens another."""
        if isinstance(error, DBAPIError) and _sqlite_name(error).startswith(
            ("SQLITE_IOERR", "SQLITE_FULL", "SQLITE_CANTOPEN", "SQLITE_READONLY")
        ):
            self._engine.dispose()


def problem(error: BaseException) -> str:
    """What went wrong with the database and what to do about it, without SQL."""
    if isinstance(error, DBAPIError):
        name = _sqlite_name(error)
        for prefix, words in _PROBLEMS.items():
            if name.startswith(prefix):
                return words
        return str(error.orig).strip()
    return str(error).strip()


def _sqlite_name(error: DBAPIError) -> str:
    return str(getattr(error.orig, "sqlite_errorname", ""))


def engine_for(url: str) -> Engine:
    """An engine with one connection. For SQLite: WAL, every commit on disk before it returns, foreign keys held."""
    try:
        parsed = make_url(url)
        if parsed.get_backend_name() != "sqlite":
            return create_engine(parsed, pool_size=1, max_overflow=0, pool_pre_ping=True)
    except (ArgumentError, NoSuchModuleError, ImportError) as error:
        raise InvalidDefinition(f"BACKSTAY_DATABASE_URL {url.split('@')[-1]!r} cannot be used: {error}") from error
    _make_file(parsed)
    engine = create_engine(
        parsed,
        pool_size=1,
        max_overflow=0,
        connect_args={"check_same_thread": False, "timeout": LOCK_PATIENCE_SECONDS},
    )

    @event.listens_for(engine, "connect")
    def set_up(connection: sqlite3.Connection, _: object) -> None:
        connection.isolation_level = None  # transactions are begun below; the driver's own begin comes too late
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.close()

    @event.listens_for(engine, "begin")
    def begin(connection: Connection) -> None:
        # A writer takes the lock at once: a read lock that is raised later fails instead of waiting.
        writes = connection.get_execution_options().get("backstay_writes", True)
        connection.exec_driver_sql("BEGIN IMMEDIATE" if writes else "BEGIN")

    return engine


def _make_file(url: URL) -> None:
    """Makes the database file readable to its owner only: it holds password hashes."""
    if not url.database or url.database == ":memory:":
        raise InvalidDefinition("BACKSTAY_DATABASE_URL names no file: state must survive a restart.")
    path = Path(url.database)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise ActuationRefused(f"The database {path} cannot be opened: {error.strerror}.") from error


def rows(connection: Connection, statement: Any) -> list[dict[str, Any]]:
    """All rows of a statement as mappings by column name."""
    return [dict(row) for row in connection.execute(statement).mappings()]
