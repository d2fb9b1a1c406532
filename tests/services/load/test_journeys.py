"""Journeys on the real suite: right on a sound one, wrong on one that loses or changes things."""

import asyncio
import random
import sqlite3
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from control_plane.topology import MONOLITH, SERVICES
from services.load import markers
from services.load.gateway import Gateway, StepFailed, Visit
from services.load.journeys import CHECKS, JOURNEYS, Journey
from services.load.recorder import Recorder
from services.load.settings import LoadSettings
from services.load.users import Accounts, User
from tests.services.live_suite import LiveSuite, a_live_suite

pytestmark = pytest.mark.suite


@dataclass
class Load:
    suite: LiveSuite
    gateway: Gateway
    recorder: Recorder
    user: User
    folder: Path

    async def run(self, journey: Journey) -> None:
        visit = Visit(self.gateway, self.recorder, journey.name)
        visit.token = self.user.token
        await journey.run(visit, self.user, random.Random())


@pytest.fixture
async def load(tmp_path: Path) -> AsyncIterator[Load]:
    async with a_live_suite(tmp_path) as suite:
        suite.start(*SERVICES)  # the tests look into databases that are made on demand
        gateway = Gateway(LoadSettings(gateway_url=str(suite.http.base_url)))
        recorder = Recorder(time.time)
        accounts = Accounts(gateway, recorder, b"secret", random.Random(1))
        task = asyncio.create_task(accounts.keep_ready(1, 100))
        user = await asyncio.wait_for(accounts.anyone(), 20)
        task.cancel()
        yield Load(suite, gateway, recorder, user, tmp_path / "data")
        await gateway.close()


async def test_every_journey_passes_on_a_sound_suite_and_leaves_little_behind(load: Load) -> None:
    for journey in JOURNEYS:
        await load.run(journey)
    told = load.recorder.outcomes()
    assert told["failures"] == []
    assert {service for service, numbers in told["services"].items() if numbers["sent"]} == set(SERVICES)
    with sqlite3.connect(load.folder / "conversation.db") as database:
        assert database.execute("SELECT count(*) FROM conversations").fetchone() == (1,)  # the logbook
    assert [path for path in (load.folder / "files").rglob("*") if path.is_file()] == []


def test_every_service_gets_ten_requests_a_second_and_sign_ins_stay_rare() -> None:
    requests = {"conversation": 5, "file": 5, "search": 2, "notification": 4, "stream": 4, "chat kept": 1}
    rates = dict.fromkeys(SERVICES, 0.0)
    for journey in JOURNEYS:
        rates[journey.service] += journey.per_second * requests.get(journey.name, 1)
    assert min(rates.values()) >= 10
    assert 18 <= rates["ai-gateway-service"] <= 22
    assert sum(journey.per_second for journey in JOURNEYS if journey.name.startswith("sign")) <= 1
    assert set(CHECKS) == set(SERVICES)


async def test_a_restart_of_the_load_generator_finds_its_accounts_again(load: Load) -> None:
    again = Accounts(load.gateway, load.recorder, b"secret", random.Random(1))
    other = Accounts(load.gateway, load.recorder, b"another", random.Random(1))
    for accounts in (again, other):
        task = asyncio.create_task(accounts.keep_ready(1, 100))
        await asyncio.wait_for(accounts.anyone(), 20)
        task.cancel()
    assert (await again.anyone()).id == load.user.id
    assert (await other.anyone()).id != load.user.id  # the known address has another password there


SPOILERS = {  # journey: what happens after an insert
    "conversation": "messages BEGIN UPDATE messages SET content = 'x'; END",
    "chat kept": "messages BEGIN UPDATE messages SET content = 'x'; END",
    "file": "files BEGIN UPDATE files SET sha256 = 'x'; END",
    "notification": "notifications BEGIN UPDATE notifications SET title = 'x'; END",
    "search": "documents BEGIN SELECT 1; END; DELETE FROM documents",
    "stream": "stream_events WHEN new.number = 2 BEGIN DELETE FROM stream_events WHERE number = 2; END",
}


async def test_a_suite_that_loses_or_changes_something_is_found_out(load: Load) -> None:
    for name, spoiler in SPOILERS.items():
        domain = {"chat kept": "conversation", "stream": "streaming"}.get(name, name)
        with sqlite3.connect(load.folder / f"{domain}.db") as database:
            database.executescript(f"CREATE TRIGGER spoilt AFTER INSERT ON {spoiler}")
        with pytest.raises(StepFailed, match=r"wrong_body|broken_stream"):
            await load.run(next(journey for journey in JOURNEYS if journey.name == name))
        with sqlite3.connect(load.folder / f"{domain}.db") as database:
            database.execute("DROP TRIGGER spoilt")
    assert [failure["journey"] for failure in load.recorder.outcomes()["failures"]] == list(SPOILERS)


async def test_a_user_whose_token_is_refused_gets_another_one(load: Load) -> None:
    accounts = Accounts(load.gateway, load.recorder, b"secret", random.Random(1))
    task = asyncio.create_task(accounts.keep_ready(1, 50))
    user = await asyncio.wait_for(accounts.anyone(), 20)
    with sqlite3.connect(load.folder / "identity.db") as database:  # identity has lost its users
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("DELETE FROM users")
    lost, user.token = user.token, "no token"
    accounts.doubt(user)
    async with asyncio.timeout(20):
        while user.token == "no token":  # noqa: ASYNC110
            await asyncio.sleep(0.02)
    task.cancel()
    assert user.token != lost
    visit = Visit(load.gateway, load.recorder, "me")
    visit.token = user.token
    await CHECKS["identity-service"](visit, user, random.Random())


async def test_markers_are_found_on_either_side_and_missed_when_lost(load: Load) -> None:
    token = (await markers.write(load.gateway)).token()
    written = markers.Markers.of(token)
    assert await markers.missing(load.gateway, written) == []
    for service in SERVICES:  # all of it moves to the monolith
        load.suite.crowd.replicas[service] = load.suite.crowd.replicas[MONOLITH]
    assert await markers.missing(load.gateway, written) == []
    for domain, table in (("conversation", "messages"), ("file", "files"), ("notification", "notifications")):
        with sqlite3.connect(load.folder / f"{domain}.db") as database:
            database.execute(f"DELETE FROM {table}")  # noqa: S608
    missing = await markers.missing(load.gateway, written)
    assert [sentence.split(" is missing")[0] for sentence in missing] == ["The message", "The file", "The notification"]
    with sqlite3.connect(load.folder / "identity.db") as database:
        database.execute("PRAGMA foreign_keys = ON")
        database.execute("DELETE FROM users")
    [sentence] = await markers.missing(load.gateway, written)
    assert sentence.startswith("The user cannot sign in")
