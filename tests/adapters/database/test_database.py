"""Opening, migrating, and bad days of the disk. These look below the stores, at SQLite itself."""

from __future__ import annotations

import os
import sqlite3
import stat
import subprocess
from collections.abc import Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import create_engine

from control_plane.adapters.database import Database, open_database
from control_plane.adapters.database.schema import metadata
from control_plane.errors import ActuationRefused, InvalidDefinition, SourceUnavailable
from tests.adapters.database.stopped_clock import NOON, StoppedClock
from tests.adapters.database.test_stores import a_decision

CLOCK = StoppedClock()


def sqlite_url(folder: Path) -> str:
    return f"sqlite:///{folder / 'backstay.db'}"


async def test_migrations_make_just_the_tables_that_queries_are_written_against(url: str) -> None:
    async with await open_database(url, CLOCK):
        pass
    engine = create_engine(url)
    with engine.connect() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []
    engine.dispose()


async def test_opening_twice_keeps_what_was_written(url: str) -> None:
    async with await open_database(url, CLOCK) as database:
        await database.decisions.add([a_decision()])
    async with await open_database(url, CLOCK) as database:
        assert await database.decisions.latest(5) == [a_decision()]


async def test_only_its_owner_may_read_the_file(tmp_path: Path) -> None:
    async with await open_database(sqlite_url(tmp_path), CLOCK) as database:
        await database.fences.take("me")
        modes = {name: stat.S_IMODE(os.stat(tmp_path / name).st_mode) for name in os.listdir(tmp_path)}
        assert modes == dict.fromkeys(("backstay.db", "backstay.db-wal", "backstay.db-shm"), 0o600)


async def test_the_journal_is_on_disk_before_a_call_returns(tmp_path: Path) -> None:
    async with await open_database(sqlite_url(tmp_path), CLOCK) as database:
        modes = await database.sagas._connections.read(
            lambda connection: [
                connection.exec_driver_sql(f"PRAGMA {name}").scalar() for name in ("journal_mode", "synchronous")
            ]
        )
    assert modes == ["wal", 2]


async def test_a_database_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    async with await open_database(sqlite_url(tmp_path), CLOCK):
        pass
    with sqlite3.connect(tmp_path / "backstay.db") as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(InvalidDefinition, match="newer"):
        await open_database(sqlite_url(tmp_path), CLOCK)


async def test_a_file_that_is_no_database_is_named_and_left_alone(tmp_path: Path) -> None:
    file = tmp_path / "backstay.db"
    file.write_text("not a database, " * 100)
    with pytest.raises(ActuationRefused, match=r"backstay\.db cannot be opened: it is not an SQLite database"):
        await open_database(sqlite_url(tmp_path), CLOCK)
    assert file.read_text().startswith("not a database")


async def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ActuationRefused, match="cannot be opened"):
        await open_database(sqlite_url(tmp_path / "file"), CLOCK)


@pytest.mark.parametrize("url", ["nonsense", "sqlite://", "quux://host/db"])
async def test_a_url_that_makes_no_sense_is_refused(url: str) -> None:
    with pytest.raises(InvalidDefinition, match="BACKSTAY_DATABASE_URL"):
        await open_database(url, CLOCK)


async def test_another_process_that_keeps_the_lock_makes_a_write_refused_and_loses_nothing(tmp_path: Path) -> None:
    async with await open_database(sqlite_url(tmp_path), CLOCK) as database:
        await database.decisions.add([a_decision(1)])
        other = sqlite3.connect(tmp_path / "backstay.db", isolation_level=None)
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(ActuationRefused, match="another process has kept it locked"):
            await database.decisions.add([a_decision(2)])
        assert await database.decisions.latest(5) == [a_decision(1)]  # readers do not wait for a writer
        other.execute("ROLLBACK")
        other.close()
        await database.decisions.add([a_decision(2)])
        assert len(await database.decisions.latest(5)) == 2


async def test_a_database_at_its_size_limit_refuses_and_goes_on_when_there_is_room(tmp_path: Path) -> None:
    async with await open_database(sqlite_url(tmp_path), CLOCK) as database:
        pages = database.snapshots._connections
        await pages.read(lambda c: c.exec_driver_sql("PRAGMA max_page_count = 60").scalar())
        with pytest.raises(ActuationRefused, match="is full"):
            await database.snapshots.save("ledger", NOON, os.urandom(1_000_000))
        await database.decisions.add([a_decision(1)])  # the limit was the connection's; it opened another
        assert await database.decisions.latest(5) == [a_decision(1)]


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 400 kB."""
    folder = tmp_path / "small"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=400k", "tmpfs", str(folder)], capture_output=True, check=False
    )
    if mounted.returncode != 0:
        pytest.skip("this account may not mount a disk")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def fill(disk: Path) -> Path:
    """Writes until there is no room left."""
    ballast = disk / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while file.write(b"x" * 4096):
            pass
    return ballast


async def write_until_refused(database: Database) -> int:
    """Adds decisions to the one that is there; returns how many were accepted in all."""
    written = 1
    try:
        while written < 1000:
            await database.decisions.add([a_decision(written + 1, evidence={"filler": "y" * 20_000})])
            written += 1
    except ActuationRefused as refusal:
        assert "Nothing was written" in str(refusal)  # noqa: PT017 - how many were written is asked as well
        assert "disk" in str(refusal)  # noqa: PT017
        return written
    raise AssertionError("the disk never got full")


async def test_a_full_disk_refuses_writes_keeps_what_was_there_and_heals_by_itself(small_disk: Path) -> None:
    async with await open_database(sqlite_url(small_disk), CLOCK) as database:
        await database.decisions.add([a_decision(1)])
        ballast = fill(small_disk)
        written = await write_until_refused(database)
        kept = await database.decisions.latest(1000)
        assert len(kept) == written
        assert kept[-1] == a_decision(1)
        assert await database.decisions.first_broken() is None
        ballast.unlink()
        await database.decisions.add([a_decision(1000)])
        assert (await database.decisions.latest(1))[0] == a_decision(1000)
        assert await database.decisions.first_broken() is None


async def test_a_changed_past_shows(tmp_path: Path) -> None:
    async with await open_database(sqlite_url(tmp_path), CLOCK) as database:
        await database.decisions.add([a_decision(1), a_decision(2), a_decision(3)])
        await database.audit.record("ana", "freeze", "all", {})
        await database.audit.record("ana", "thaw", "all", {})
    with sqlite3.connect(tmp_path / "backstay.db") as connection:
        connection.execute("UPDATE decisions SET content = replace(content, 'fail', 'pass') WHERE number = 2")
        connection.execute("DELETE FROM audit WHERE number = 1")
    async with await open_database(sqlite_url(tmp_path), CLOCK) as database:
        assert await database.decisions.first_broken() == a_decision(2).id
        assert await database.audit.first_broken() == 2


async def test_a_damaged_snapshot_is_not_handed_out(tmp_path: Path) -> None:
    async with await open_database(sqlite_url(tmp_path), CLOCK) as database:
        await database.snapshots.save("ledger", NOON, b"whole")
    with sqlite3.connect(tmp_path / "backstay.db") as connection:
        connection.execute("UPDATE snapshots SET payload = x'00'")
    async with await open_database(sqlite_url(tmp_path), CLOCK) as database:
        with pytest.raises(SourceUnavailable, match="damaged"):
            await database.snapshots.load("ledger")


async def test_an_unreadable_table_is_a_missing_source(tmp_path: Path) -> None:
    async with await open_database(sqlite_url(tmp_path), CLOCK) as database:
        with sqlite3.connect(tmp_path / "backstay.db") as connection:
            connection.execute("DROP TABLE switches")
        with pytest.raises(SourceUnavailable, match="could not be read"):
            await database.switches.frozen()
        assert await database.changes.since(NOON - timedelta(days=1)) == []
