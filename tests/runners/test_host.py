"""What the console sees of the running control plane."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from control_plane.console.host import ConsoleHost
from control_plane.errors import SourceUnavailable
from control_plane.oncall.runbooks import RunbookFacts
from control_plane.ports import DecisionRecord
from control_plane.runners.host import Bulletin, RunningHost, shown
from control_plane.runners.metrics import Metrics
from tests.console.console_builders import NOON, AccountsInMemory, CommandsInMemory, a_situation
from tests.runners.memory_ports import MemoryChanges, MemoryDecisions, MemoryExclusions
from tests.runners.saga_desk import MemoryJournal


class NoRunbooks:
    def names(self) -> list[str]:
        return ["BackstayBlind"]

    def render(self, name: str, facts: RunbookFacts) -> str | None:
        return None


def a_record(**changes: Any) -> DecisionRecord:
    record = DecisionRecord(
        id="d1",
        at=NOON,
        service="search-service",
        action="roll_back",
        target="search-service",
        reason="errors_without_saturation",
        sentence="20 % fail.",
        guards=[{"name": "cooldown", "passed": True, "detail": "none is remembered"}],
        evidence={"label": "x"},
        body={"move": "roll_back"},
    )
    return replace(record, **changes)


def a_host(**changes: Any) -> RunningHost:
    parts: dict[str, Any] = {
        "environment": "local",
        "bulletin": Bulletin(),
        "accounts": AccountsInMemory(),
        "commands": CommandsInMemory(),
        "local_token": "t",
        "secure_cookies": False,
        "decisions": MemoryDecisions(),
        "sagas": MemoryJournal(),
        "changes": MemoryChanges(),
        "exclusions": MemoryExclusions(),
        "runbooks": NoRunbooks(),
        "facts": lambda: RunbookFacts({}, {}),
        "metrics": Metrics(),
        "clock": lambda: NOON,
    }
    return RunningHost(**(parts | changes))


# --- the bulletin


async def test_the_latest_situation_comes_at_once() -> None:
    bulletin = Bulletin()
    bulletin.publish(a_situation())
    async with asyncio.timeout(1):
        assert await anext(bulletin.each()) == a_situation()


async def test_whoever_waits_gets_the_first_situation_and_then_each_new_one() -> None:
    bulletin = Bulletin()
    reading = bulletin.each()
    for drill in ("one", "two"):
        waiting = asyncio.ensure_future(anext(reading))
        await asyncio.sleep(0)
        assert not waiting.done()
        bulletin.publish(a_situation(drill=drill))
        async with asyncio.timeout(1):
            assert (await waiting).drill == drill


async def test_a_slow_reader_skips_what_it_missed() -> None:
    bulletin = Bulletin()
    reading = bulletin.each()
    bulletin.publish(a_situation(drill="one"))
    await anext(reading)
    for drill in ("two", "three", "four"):
        bulletin.publish(a_situation(drill=drill))
    async with asyncio.timeout(1):
        assert (await anext(reading)).drill == "four"
    waiting = asyncio.ensure_future(anext(reading))
    await asyncio.sleep(0)
    assert not waiting.done()  # nothing is given twice
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


async def test_every_reader_gets_every_situation() -> None:
    bulletin = Bulletin()
    waiting = [asyncio.ensure_future(anext(bulletin.each())) for _ in range(3)]
    await asyncio.sleep(0)
    bulletin.publish(a_situation())
    async with asyncio.timeout(1):
        assert await asyncio.gather(*waiting) == [a_situation()] * 3


# --- the host


async def test_the_host_is_what_the_console_asks_for() -> None:
    host: ConsoleHost = a_host()
    assert host.situation() is None
    assert host.runbook_names() == ["BackstayBlind"]
    assert host.runbook("nothing") is None
    assert b"backstay_ticks" in host.metrics()


async def test_a_stored_decision_is_shown_with_its_guards() -> None:
    decisions = MemoryDecisions()
    await decisions.add([a_record()])
    host = a_host(decisions=decisions)
    found = await host.decision("d1")
    assert found is not None
    assert found == shown(a_record())
    assert found.guards[0].passed
    assert await host.decision("other") is None
    assert [item.id for item in await host.decisions(10)] == ["d1"]
    assert await host.decisions(10, "file-service") == []


async def test_the_timeline_reaches_a_week_back() -> None:
    decisions, changes = MemoryDecisions(), MemoryChanges()
    await decisions.add([a_record()])
    host = a_host(decisions=decisions, changes=changes, clock=lambda: NOON + timedelta(minutes=1))
    assert [moment.title for moment in await host.moments(10)] == ["ROLL BACK search-service"]


@pytest.mark.parametrize("part", ["changes", "exclusions", "sagas"])
async def test_a_timeline_that_cannot_be_read_is_empty_and_the_page_still_comes(part: str) -> None:
    stores: dict[str, Any] = {
        "changes": MemoryChanges(down=True),
        "exclusions": MemoryExclusions(down=True),
        "sagas": MemoryJournal(unreadable=True),
    }
    host = a_host(**{part: stores[part]})
    assert await host.moments(10) == ()


async def test_decisions_that_cannot_be_read_are_an_error_and_not_an_empty_list() -> None:
    class Broken(MemoryDecisions):
        async def latest(self, limit: int, service: str | None = None) -> list[DecisionRecord]:
            raise SourceUnavailable("the database could not be read")

    with pytest.raises(SourceUnavailable):
        await a_host(decisions=Broken()).decisions(10)
