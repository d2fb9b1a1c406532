"""What every store must do, whatever database is below."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta, timezone

import pytest

from control_plane.adapters.database import Database, open_database
from control_plane.errors import ActuationRefused
from control_plane.ports import Change, DecisionRecord
from tests.adapters.database.stopped_clock import NOON, StoppedClock


def a_decision(number: int = 1, **changes: object) -> DecisionRecord:
    decision = DecisionRecord(
        id=f"{number:08x}aaaa",
        at=NOON + timedelta(seconds=number),
        service="ai-gateway-service",
        action="roll_back",
        target="ai-gateway-service",
        reason="errors_without_saturation",
        sentence="20 % of its requests fail.",
        guards=[{"name": "target_healthy", "passed": True, "detail": "1 of 1 ready"}],
        evidence={"bad": 12, "share": 0.2, "name": "Ștefan"},
        body={"action": "roll_back"},
    )
    return replace(decision, **changes)  # type: ignore[arg-type]


async def test_a_decision_comes_back_as_it_was_stored(database: Database) -> None:
    await database.decisions.add([a_decision()])
    assert await database.decisions.decision(a_decision().id) == a_decision()


async def test_a_decision_is_found_by_the_beginning_of_its_id_only_if_that_is_clear(database: Database) -> None:
    await database.decisions.add([a_decision(1), a_decision(2)])
    assert await database.decisions.decision("00000001") == a_decision(1)
    assert await database.decisions.decision("0000") is None
    assert await database.decisions.decision("%") is None
    assert await database.decisions.decision("") is None


async def test_decisions_come_newest_first_and_by_service(database: Database) -> None:
    await database.decisions.add([a_decision(1), a_decision(2, service="file-service"), a_decision(3)])
    assert [d.id for d in await database.decisions.latest(2)] == [a_decision(3).id, a_decision(2).id]
    assert [d.id for d in await database.decisions.latest(9, "file-service")] == [a_decision(2).id]


async def test_decisions_of_a_tick_are_written_together_or_not_at_all(database: Database) -> None:
    await database.decisions.add([a_decision(1)])
    with pytest.raises(ActuationRefused, match="Nothing was written"):
        await database.decisions.add([a_decision(2), a_decision(1)])
    assert [d.id for d in await database.decisions.latest(9)] == [a_decision(1).id]


async def test_what_became_of_a_decision_is_kept_without_breaking_the_chain(database: Database) -> None:
    await database.decisions.add([a_decision(1), a_decision(2)])
    await database.decisions.set_state(a_decision(1).id, "acting", "saga-1")
    await database.decisions.set_state(a_decision(1).id, "done")
    stored = await database.decisions.decision(a_decision(1).id)
    assert stored is not None
    assert (stored.state, stored.saga_id) == ("done", "saga-1")
    assert await database.decisions.first_broken() is None


async def test_the_state_of_an_unknown_decision_is_refused(database: Database) -> None:
    with pytest.raises(ActuationRefused, match="No decision"):
        await database.decisions.set_state("nobody", "done")


async def test_audit_records_are_chained_and_come_newest_first(database: Database, clock: StoppedClock) -> None:
    first = await database.audit.record("admin", "freeze", "all", {"reason": "maintenance"})
    clock.forward(seconds=1)
    second = await database.audit.record("backstay", "set weights", "file-service", {"to": [50, 50]})
    assert [record.hash for record in await database.audit.latest(5)] == [second.hash, first.hash]
    assert (await database.audit.latest(1))[0] == second
    assert await database.audit.first_broken() is None


async def test_fencing_tokens_only_rise_also_over_a_restart(url: str, clock: StoppedClock) -> None:
    async with await open_database(url, clock) as database:
        assert await database.fences.newest() == 0
        tokens = [await database.fences.take("one"), await database.fences.take("two")]
    async with await open_database(url, clock) as database:
        tokens.append(await database.fences.take("three"))
        assert await database.fences.newest() == tokens[-1]
    assert tokens == sorted(set(tokens))


async def test_a_hundred_takers_at_once_get_a_hundred_tokens(database: Database) -> None:
    tokens = await asyncio.gather(*(database.fences.take(f"taker {n}") for n in range(100)))
    assert len(set(tokens)) == 100


async def test_exclusions_are_found_by_overlap_and_open_ones_last(database: Database) -> None:
    minute = timedelta(minutes=1)
    closed = await database.exclusions.begin("file-service", NOON, "drill errors")
    await database.exclusions.end(closed, NOON + minute)
    lasting = await database.exclusions.begin("search-service", NOON + 5 * minute, "maintenance")
    found = await database.exclusions.overlapping(NOON + minute / 2, NOON + 2 * minute)
    assert [exclusion.id for exclusion in found] == [closed]
    assert await database.exclusions.overlapping(NOON + minute, NOON + 2 * minute) == []
    later = await database.exclusions.overlapping(NOON + 60 * minute, NOON + 61 * minute)
    assert [(exclusion.id, exclusion.ended_at) for exclusion in later] == [(lasting, None)]


async def test_an_exclusion_that_has_ended_keeps_its_end(database: Database) -> None:
    exclusion = await database.exclusions.begin("file-service", NOON, "drill")
    await database.exclusions.end(exclusion, NOON + timedelta(minutes=1))
    await database.exclusions.end(exclusion, NOON + timedelta(minutes=9))
    (found,) = await database.exclusions.overlapping(NOON, NOON + timedelta(hours=1))
    assert found.ended_at == NOON + timedelta(minutes=1)
    with pytest.raises(ActuationRefused):
        await database.exclusions.end("nobody", NOON)


async def test_the_earliest_first_sight_of_an_slo_stays(database: Database) -> None:
    await database.first_seen.note({"a-errors": NOON, "b-errors": NOON})
    await database.first_seen.note({"a-errors": NOON + timedelta(days=1), "b-errors": NOON - timedelta(days=1)})
    assert await database.first_seen.all() == {"a-errors": NOON, "b-errors": NOON - timedelta(days=1)}


async def test_a_snapshot_is_replaced_as_a_whole(database: Database) -> None:
    assert await database.snapshots.load("ledger") is None
    await database.snapshots.save("ledger", NOON, b"\x00one")
    await database.snapshots.save("ledger", NOON + timedelta(minutes=5), b"two")
    assert await database.snapshots.load("ledger") == (NOON + timedelta(minutes=5), b"two")


async def test_changes_come_newest_first(database: Database) -> None:
    deploy = Change(NOON, "file-service", "deploy", "v1.4.2", "ci", {"commit": "abc"})
    shift = Change(NOON + timedelta(minutes=1), "search-service", "weights", "50/50", "backstay")
    await database.changes.record(deploy)
    await database.changes.record(shift)
    assert await database.changes.since(NOON) == [shift, deploy]
    assert await database.changes.since(NOON, "file-service") == [deploy]
    assert await database.changes.since(NOON + timedelta(seconds=1)) == [shift]


async def test_the_kill_switch_survives_a_restart(url: str, clock: StoppedClock) -> None:
    async with await open_database(url, clock) as database:
        assert await database.switches.frozen() is None
        await database.switches.freeze(reason="maintenance", by="ana", at=NOON)
    async with await open_database(url, clock) as database:
        frozen = await database.switches.frozen()
        assert frozen is not None
        assert (frozen.reason, frozen.by, frozen.at) == ("maintenance", "ana", NOON)
        await database.switches.thaw()
        assert await database.switches.frozen() is None


async def test_an_instant_of_another_zone_is_the_same_instant_and_a_naive_one_is_refused(database: Database) -> None:
    east = NOON.astimezone(timezone(timedelta(hours=2)))
    await database.first_seen.note({"a-errors": east})
    assert (await database.first_seen.all())["a-errors"] == NOON
    with pytest.raises(ActuationRefused, match="time zone"):
        await database.first_seen.note({"b-errors": NOON.replace(tzinfo=None)})
