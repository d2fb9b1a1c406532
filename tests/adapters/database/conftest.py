"""A fresh database for each test. The same tests run on every engine whose URL is given.

`BACKSTAY_TEST_POSTGRESQL` may hold the SQLAlchemy URL of an empty PostgreSQL database; SQLite needs nothing.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from sqlalchemy import create_engine, text

from control_plane.adapters.database import Database, open_database
from tests.adapters.database.stopped_clock import StoppedClock

ENGINES = ["sqlite"] + (["postgresql"] if os.environ.get("BACKSTAY_TEST_POSTGRESQL") else [])


@pytest.fixture
def clock() -> StoppedClock:
    return StoppedClock()


@pytest.fixture(params=ENGINES)
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'backstay.db'}"
    address = os.environ["BACKSTAY_TEST_POSTGRESQL"]
    engine = create_engine(address)
    with engine.begin() as connection:
        connection.execute(text("DROP SCHEMA public CASCADE"))
        connection.execute(text("CREATE SCHEMA public"))
    engine.dispose()
    return address


@pytest.fixture
async def database(url: str, clock: StoppedClock) -> AsyncIterator[Database]:
    async with await open_database(url, clock) as opened:
        yield opened
