"""What every journal of sagas must do: the database's, and the one in memory that other tests rely on."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest

from control_plane.actions.journal import Entry, EntryKind, Saga, SagaState
from control_plane.actions.planning import rollback_plan
from control_plane.actions.plans import PlanPolicy
from control_plane.adapters.database import Database, open_database
from control_plane.errors import ActuationRefused, StaleFence
from control_plane.ports import Fences, SagaJournal
from tests.actions.suite_world import a_world
from tests.adapters.database.stopped_clock import NOON, StoppedClock
from tests.runners.saga_desk import MemoryJournal


def a_saga(saga_id: str = "s1", after: float = 0.0, drill: bool = False) -> Saga:
    world = a_world()
    plan = rollback_plan("file-service", world.reading(), world.demand, PlanPolicy())
    began = NOON + timedelta(seconds=after)
    return Saga(saga_id, plan, "backstay", "20 % errors", True, began, drill, decision_id="d1")


def an_entry(number: int, kind: EntryKind = EntryKind.STARTED, **data: object) -> Entry:
    return Entry(kind, NOON + timedelta(seconds=number), 0, data)


def the_end(state: SagaState) -> Entry:
    return Entry(EntryKind.ENDED, NOON, None, {"state": state.value, "outcome": "so it ended"})


Stores = tuple[SagaJournal, Fences]


@pytest.fixture(params=["database", "memory"])
async def stores(request: pytest.FixtureRequest, database: Database) -> AsyncIterator[Stores]:
    if request.param == "memory":
        journal = MemoryJournal()
        yield journal, journal
    else:
        yield database.sagas, database.fences


async def test_a_saga_comes_back_with_its_plan_and_its_entries_in_order(stores: Stores) -> None:
    journal, fences = stores
    fence = await fences.take("me")
    saga = a_saga()
    await journal.begin(saga, fence=fence)
    entries = [an_entry(n, counters={"service": [n, 0, 1]}) for n in range(3)]
    for position, entry in enumerate(entries):
        await journal.append(saga.id, position, entry, fence=fence)
    stored = await journal.saga(saga.id)
    assert stored is not None
    assert stored.plan == saga.plan
    assert stored.plan.hash == saga.plan.hash
    assert stored.entries == tuple(entries)
    assert await journal.saga("another") is None


async def test_a_stale_token_writes_nothing(stores: Stores) -> None:
    journal, fences = stores
    old = await fences.take("old")
    await journal.begin(a_saga(), fence=old)
    new = await fences.take("new")
    with pytest.raises(StaleFence):
        await journal.append("s1", 0, an_entry(0), fence=old)
    with pytest.raises(StaleFence):
        await journal.begin(a_saga("s2"), fence=old)
    await journal.append("s1", 0, an_entry(0), fence=new)
    stored = await journal.saga("s1")
    assert stored is not None
    assert len(stored.entries) == 1


async def test_only_sagas_without_an_end_are_unfinished(stores: Stores) -> None:
    journal, fences = stores
    fence = await fences.take("me")
    for number in (1, 2):
        await journal.begin(a_saga(f"s{number}", after=number), fence=fence)
    await journal.append("s1", 0, the_end(SagaState.HELD), fence=fence)
    assert [saga.id for saga in await journal.unfinished()] == ["s2"]
    ended = await journal.saga("s1")
    assert ended is not None
    assert ended.progress.state is SagaState.HELD


async def test_recent_actions_can_be_asked_with_and_without_drills(stores: Stores) -> None:
    journal, fences = stores
    fence = await fences.take("me")
    await journal.begin(a_saga("old"), fence=fence)
    await journal.begin(a_saga("real", after=10), fence=fence)
    await journal.begin(a_saga("drill", after=10, drill=True), fence=fence)
    since = NOON + timedelta(seconds=5)
    assert {saga.id for saga in await journal.recent(since)} == {"real", "drill"}
    assert [saga.id for saga in await journal.recent(since, drills=False)] == ["real"]
    assert [saga.id for saga in await journal.recent(since, drills=True)] == ["drill"]


async def test_an_entry_whose_answer_was_lost_may_be_written_again_but_not_another_in_its_place(
    database: Database,
) -> None:
    fence = await database.fences.take("me")
    await database.sagas.begin(a_saga(), fence=fence)
    await database.sagas.append("s1", 0, an_entry(0), fence=fence)
    await database.sagas.append("s1", 0, an_entry(0), fence=fence)
    with pytest.raises(ActuationRefused, match="another one"):
        await database.sagas.append("s1", 0, an_entry(0, detail="else"), fence=fence)
    stored = await database.sagas.saga("s1")
    assert stored is not None
    assert len(stored.entries) == 1


async def test_an_entry_of_no_saga_is_refused(database: Database) -> None:
    fence = await database.fences.take("me")
    with pytest.raises(ActuationRefused, match="Nothing was written"):
        await database.sagas.append("nobody", 0, an_entry(0), fence=fence)


WRITER = """
import asyncio, sys
from control_plane.adapters.database import open_database
from tests.adapters.database.stopped_clock import StoppedClock
from tests.adapters.database.test_saga_journal import a_saga, an_entry

async def main(url):
    database = await open_database(url, StoppedClock())
    fence = await database.fences.take("child")
    await database.sagas.begin(a_saga(), fence=fence)
    for position in range(100_000):
        await database.sagas.append("s1", position, an_entry(position), fence=fence)
        print(position, flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'backstay.db'}"
    child = subprocess.Popen(  # noqa: ASYNC220 - nothing else runs on this loop
        [sys.executable, "-c", WRITER, url], stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3]
    )
    assert child.stdout is not None
    acknowledged = -1
    for line in child.stdout:
        acknowledged = int(line)
        if acknowledged >= 50:
            break
    os.kill(child.pid, signal.SIGKILL)
    acknowledged = int([str(acknowledged), *child.stdout.read().split()][-1])
    child.wait()
    async with await open_database(url, StoppedClock()) as database:
        (saga,) = await database.sagas.unfinished()
        assert len(saga.entries) > acknowledged >= 50
        assert [entry.at for entry in saga.entries] == [an_entry(n).at for n in range(len(saga.entries))]
