"""One SQLite file a domain, written by several processes at once: replicas of the service and of the monolith.

What makes that safe: WAL (readers never wait for the writer), `BEGIN IMMEDIATE` (the write lock is taken before
anything is read, so no transaction dies half-way of a stale snapshot), a busy time-out, short transactions, ids that
never collide, and migrations that run under the write lock, so replicas may start together.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from services.problems import Problem

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]
"""What runs inside one transaction. It must be quick, touch nothing but the connection, and be safe to run again."""


class Database(Protocol):
    """State of one domain. Rows come back as `sqlite3.Row` (by name or by position)."""

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` on one consistent snapshot; it cannot write."""
        ...

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run `work` in one transaction: all of it is kept, or (when it raises) none of it."""
        ...


class Storage(Protocol):
    """Where databases live."""

    def database(self, domain: str, migrations: Sequence[str]) -> Database:
        """The domain's database, brought up to date: `migrations[n]` (SQL statements) leads from version n to n + 1.

        Append migrations, never edit them: other processes may have run them. The same domain gives the same object.
        """
        ...

    def folder(self, name: str) -> Path:
        """A folder for what does not belong in a database (uploaded files), created if missing."""
        ...

    async def close(self) -> None: ...


class SqliteStorage:
    """Databases as files `<domain>.db` in one folder."""

    def __init__(self, directory: Path, busy_timeout_seconds: float = 5.0) -> None:
        self._directory = directory
        self._busy_timeout_seconds = busy_timeout_seconds
        self._open: dict[str, SqliteDatabase] = {}

    def database(self, domain: str, migrations: Sequence[str]) -> SqliteDatabase:
        if domain not in self._open:
            self._directory.mkdir(parents=True, exist_ok=True, mode=0o700)
            path = self._directory / f"{domain}.db"
            self._open[domain] = SqliteDatabase(path, migrations, self._busy_timeout_seconds)
        return self._open[domain]

    def folder(self, name: str) -> Path:
        path = self._directory / name
        path.mkdir(parents=True, exist_ok=True, mode=0o700)
        return path

    async def close(self) -> None:
        for database in self._open.values():
            await database.close()
        self._open.clear()


class SqliteDatabase:
    """Work runs on threads, off the event loop: one writer, so a process never competes with itself; two readers."""

    def __init__(self, path: Path, migrations: Sequence[str], busy_timeout_seconds: float) -> None:
        self._path = path
        self._busy_timeout_seconds = busy_timeout_seconds
        self._writer = ThreadPoolExecutor(1, thread_name_prefix=f"{path.stem}-write")
        self._readers = ThreadPoolExecutor(2, thread_name_prefix=f"{path.stem}-read")
        self._of_thread = threading.local()
        self._connections: list[sqlite3.Connection] = []
        setup = self._connect()
        try:
            _migrate(setup, migrations, busy_timeout_seconds)
        finally:
            setup.close()

    async def read(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._readers, self._run, "BEGIN", work)

    async def write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._writer, self._run, "BEGIN IMMEDIATE", work)

    async def close(self) -> None:
        """Let running work finish, then close the file."""

        def finish() -> None:
            self._writer.shutdown(wait=True)
            self._readers.shutdown(wait=True)
            for connection in self._connections:
                connection.close()

        await asyncio.to_thread(finish)

    def _run(self, begin: str, work: Callable[[sqlite3.Connection], T]) -> T:
        connection = self._connection(read_only=begin == "BEGIN")
        try:
            connection.execute(begin)
            try:
                result = work(connection)
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise
            return result
        except sqlite3.OperationalError as error:
            raise _explained(error) from error

    def _connection(self, *, read_only: bool) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._of_thread, "connection", None)
        if connection is None:
            connection = self._connect()
            if read_only:
                connection.execute("PRAGMA query_only = ON")
            self._of_thread.connection = connection
            self._connections.append(connection)
        return connection

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(
            self._path, timeout=self._busy_timeout_seconds, isolation_level=None, check_same_thread=False
        )
        connection.row_factory = sqlite3.Row
        connection.execute("PRAGMA foreign_keys = ON")
        connection.execute("PRAGMA synchronous = NORMAL")  # with WAL: a crash of the process loses nothing committed
        connection.execute("PRAGMA cache_size = -1024")  # KiB; many replicas, one machine
        return connection


def _migrate(connection: sqlite3.Connection, migrations: Sequence[str], timeout_seconds: float) -> None:
    """Bring the file to version `len(migrations)`; of several processes one does it and the others find it done."""
    deadline = time.monotonic() + timeout_seconds
    while True:
        try:  # changing the journal mode ignores the busy time-out
            connection.execute("PRAGMA journal_mode = WAL")
            break
        except sqlite3.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)
    connection.execute("BEGIN IMMEDIATE")
    try:
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        for statements in migrations[version:]:
            for statement in _split(statements):
                connection.execute(statement)
        if version < len(migrations):  # a newer release may have run before: its tables stay
            connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _split(statements: str) -> list[str]:
    """Single statements of a script; `executescript` would commit the migration's transaction. Triggers stay whole."""
    found: list[str] = []
    current = ""
    for piece in statements.split(";"):
        current += piece + ";"
        if sqlite3.complete_statement(current):  # knows strings, comments and the END of a trigger
            found.append(current)
            current = ""
    rest = current.removesuffix(";").strip()
    return [*found, rest] if rest else found


def _explained(error: sqlite3.OperationalError) -> Problem | sqlite3.OperationalError:
    text = str(error)
    if "locked" in text or "busy" in text:
        return Problem(503, "The database is busy; try again.", headers={"retry-after": "1"})
    if "full" in text or "disk I/O" in text:
        return Problem(507, "The disk is full: nothing was written.")
    return error
