"""One SQLite file, many hands."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from services.problems import Problem
from services.storage import SqliteStorage

TABLE = ("CREATE TABLE notes (text TEXT NOT NULL) STRICT",)


async def test_what_is_written_is_read(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path)
    database = storage.database("notes", TABLE)
    await database.write(lambda c: c.execute("INSERT INTO notes VALUES ('hello')"))
    assert await database.read(lambda c: c.execute("SELECT text FROM notes").fetchone()["text"]) == "hello"
    await storage.close()


async def test_a_write_that_fails_half_way_leaves_nothing(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path)
    database = storage.database("notes", TABLE)

    def work(connection: sqlite3.Connection) -> None:
        connection.execute("INSERT INTO notes VALUES ('half')")
        raise ValueError("on second thoughts")

    with pytest.raises(ValueError, match="second thoughts"):
        await database.write(work)
    assert await database.read(lambda c: c.execute("SELECT count(*) FROM notes").fetchone()[0]) == 0
    await storage.close()


async def test_a_read_cannot_write(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path)
    database = storage.database("notes", TABLE)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        await database.read(lambda c: c.execute("INSERT INTO notes VALUES ('sneaked in')"))
    await storage.close()


async def test_a_lock_that_is_never_given_up_is_a_503_and_not_a_crash(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path, busy_timeout_seconds=0.1)
    database = storage.database("notes", TABLE)
    other = sqlite3.connect(tmp_path / "notes.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(Problem) as refused:
        await database.write(lambda c: c.execute("INSERT INTO notes VALUES ('late')"))
    assert refused.value.status == 503
    assert await database.read(lambda c: c.execute("SELECT count(*) FROM notes").fetchone()[0]) == 0  # readers go on
    other.execute("ROLLBACK")
    await database.write(lambda c: c.execute("INSERT INTO notes VALUES ('now')"))
    other.close()
    await storage.close()


async def test_a_full_disk_is_a_507_that_says_so(tmp_path: Path) -> None:
    storage = SqliteStorage(tmp_path)
    database = storage.database("notes", TABLE)

    def fill(connection: sqlite3.Connection) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages}")
        connection.execute("INSERT INTO notes VALUES (?)", ("x" * 100_000,))

    with pytest.raises(Problem) as refused:
        await database.write(fill)
    assert (refused.value.status, refused.value.detail) == (507, "The disk is full: nothing was written.")
    await storage.close()


async def test_a_later_release_adds_its_tables_and_an_earlier_one_still_runs(tmp_path: Path) -> None:
    later = (*TABLE, "ALTER TABLE notes ADD COLUMN at REAL; CREATE INDEX notes_by_age ON notes (at);")
    for migrations in (TABLE, later, TABLE):
        storage = SqliteStorage(tmp_path)
        database = storage.database("notes", migrations)
        await database.write(lambda c: c.execute("INSERT INTO notes (text) VALUES ('kept')"))
        await storage.close()
    rows = sqlite3.connect(tmp_path / "notes.db").execute("SELECT text, at FROM notes").fetchall()
    assert rows == [("kept", None)] * 3


async def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    with pytest.raises(sqlite3.OperationalError):
        SqliteStorage(tmp_path).database("notes", (*TABLE, "CREATE TABLE more (a); CREATE TABEL typo (b);"))
    names = sqlite3.connect(tmp_path / "notes.db").execute("SELECT name FROM sqlite_master").fetchall()
    assert names == []


async def test_triggers_in_migrations_stay_whole(tmp_path: Path) -> None:
    trigger = """
    CREATE TABLE log (text TEXT);
    CREATE TRIGGER noted AFTER INSERT ON notes BEGIN
        INSERT INTO log VALUES (new.text);
        INSERT INTO log VALUES ('seen');
    END;
    """
    storage = SqliteStorage(tmp_path)
    database = storage.database("notes", (*TABLE, trigger))
    await database.write(lambda c: c.execute("INSERT INTO notes VALUES ('hello')"))
    assert await database.read(lambda c: c.execute("SELECT count(*) FROM log").fetchone()[0]) == 2
    await storage.close()


WRITER = """
import asyncio, sys
from pathlib import Path
from services.ids import new_id
from services.storage import SqliteStorage

async def main():
    storage = SqliteStorage(Path(sys.argv[1]))
    database = storage.database("ids", ("CREATE TABLE ids (id TEXT PRIMARY KEY, turn INTEGER NOT NULL) STRICT",))
    def work(connection):
        (turn,) = connection.execute("SELECT coalesce(max(turn), 0) + 1 FROM ids").fetchone()
        connection.execute("INSERT INTO ids VALUES (?, ?)", (new_id(), turn))
    for _ in range(100):
        await database.write(work)
    await storage.close()

asyncio.run(main())
"""


@pytest.mark.stack
def test_processes_that_start_together_and_write_at_once_lose_and_repeat_nothing(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, str(tmp_path)]) for _ in range(3)]
    assert [writer.wait(60) for writer in writers] == [0, 0, 0]
    count, turns, last = (
        sqlite3.connect(tmp_path / "ids.db")
        .execute("SELECT count(*), count(DISTINCT turn), max(turn) FROM ids")
        .fetchone()
    )
    assert (count, turns, last) == (300, 300, 300)
