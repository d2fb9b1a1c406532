"""Slots, queue and shedding."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from fastapi import APIRouter
from hypothesis import given
from hypothesis import strategies as st

from services.slots import Lease, Saturated, SlotPool, Slots
from services.telemetry import Metrics
from tests.services.a_replica import a_replica

SERVICE = "identity-service"


def a_pool(size: int = 2, queue_seconds: float = 5.0) -> SlotPool:
    return SlotPool("request", size, queue_seconds, Metrics(), SERVICE)


async def queue_up(pool: SlotPool, count: int) -> list[asyncio.Task[None]]:
    tasks = [asyncio.create_task(pool.take(SERVICE)) for _ in range(count)]
    await asyncio.sleep(0)
    return tasks


async def test_as_many_as_there_are_slots_are_served_at_once() -> None:
    pool = a_pool(size=2)
    await pool.take(SERVICE)
    await pool.take(SERVICE)
    assert pool.in_use == 2


async def test_a_slot_that_comes_back_goes_to_who_waits_longest() -> None:
    pool = a_pool(size=1)
    await pool.take(SERVICE)
    first, second = await queue_up(pool, 2)
    pool.give_back(SERVICE)
    await asyncio.sleep(0)
    assert (first.done(), second.done()) == (True, False)
    pool.give_back(SERVICE)
    await second


async def test_nobody_who_just_came_overtakes_the_queue() -> None:
    pool = a_pool(size=1)
    await pool.take(SERVICE)
    (waiting,) = await queue_up(pool, 1)
    pool.give_back(SERVICE)
    (late,) = await queue_up(pool, 1)
    await asyncio.sleep(0)
    assert (waiting.done(), late.done()) == (True, False)
    late.cancel()


async def test_beyond_twice_the_slots_in_the_queue_a_request_is_shed_at_once() -> None:
    pool = a_pool(size=1)
    await pool.take(SERVICE)
    waiting = await queue_up(pool, 2)
    with pytest.raises(Saturated):
        await pool.take(SERVICE)
    assert pool.queued == 2
    for task in waiting:
        task.cancel()


async def test_who_waits_too_long_is_shed_and_leaves_the_queue() -> None:
    pool = a_pool(size=1, queue_seconds=0.01)
    await pool.take(SERVICE)
    with pytest.raises(Saturated):
        await pool.take(SERVICE)
    assert pool.queued == 0
    pool.give_back(SERVICE)
    assert pool.in_use == 0


async def test_who_gives_up_while_being_handed_a_slot_passes_it_on() -> None:
    pool = a_pool(size=1)
    await pool.take(SERVICE)
    first, second = await queue_up(pool, 2)
    pool.give_back(SERVICE)  # to the first, who has not run yet
    first.cancel()
    await asyncio.wait([first])
    await asyncio.wait_for(second, 1)
    pool.give_back(SERVICE)
    assert pool.in_use == 0


@given(st.lists(st.sampled_from(["take", "give", "cancel"]), max_size=60), st.integers(1, 4))
def test_slots_are_neither_lost_nor_made(steps: list[str], size: int) -> None:
    async def play() -> None:
        pool = a_pool(size=size)
        tasks: list[asyncio.Task[None]] = []
        held = 0

        async def settle() -> None:
            nonlocal held
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            for task in [t for t in tasks if t.done()]:
                tasks.remove(task)
                if not task.cancelled() and task.exception() is None:
                    held += 1

        for step in steps:
            if step == "take":
                tasks.append(asyncio.create_task(pool.take(SERVICE)))
            elif step == "give" and held:
                held -= 1
                pool.give_back(SERVICE)
            elif step == "cancel" and tasks:
                tasks[0].cancel()
            await settle()
            assert held == pool.in_use <= size
            assert pool.queued == len(tasks) <= 2 * size
        for task in tasks:
            task.cancel()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        for _ in range(held):
            pool.give_back(SERVICE)
        assert pool.in_use == 0

    asyncio.run(play())


async def test_a_stream_gives_its_request_slot_back() -> None:
    slots = Slots(requests=1, streams=1, queue_seconds=0.01, metrics=Metrics(), deployment=SERVICE)
    lease = Lease(slots, SERVICE)
    await lease.take_request_slot()
    await lease.become_stream()
    assert (slots.requests.in_use, slots.streams.in_use) == (0, 1)
    lease.release()
    assert slots.streams.in_use == 0


async def test_a_stream_too_many_is_shed_and_keeps_its_request_slot_to_say_so() -> None:
    metrics = Metrics()
    slots = Slots(requests=2, streams=1, queue_seconds=0.01, metrics=metrics, deployment=SERVICE)
    await slots.streams.take(SERVICE)
    lease = Lease(slots, SERVICE)
    await lease.take_request_slot()
    with pytest.raises(Saturated):
        await lease.become_stream()
    assert slots.requests.in_use == 1
    assert metrics.registry.get_sample_value("http_requests_shed_total", {"service": SERVICE}) == 1
    lease.release()
    assert slots.requests.in_use == 0


async def test_a_shed_request_is_a_503_under_its_routes_template_that_says_when_to_come_back(tmp_path: Path) -> None:
    routes = APIRouter()
    release = asyncio.Event()

    @routes.get("/api/users/{user_id}")
    async def user(user_id: str) -> str:
        await release.wait()
        return user_id

    async with a_replica(tmp_path, routes, slots=1, queue_seconds=0.05) as one:
        first = asyncio.create_task(one.http.get("/api/users/ana"))
        await asyncio.sleep(0.02)
        answer = await one.http.get("/api/users/bob")
        assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
        assert (await one.http.get("/ready")).status_code == 200  # probes need no slot
        release.set()
        assert (await first).status_code == 200
        labels = {"endpoint": "/api/users/{user_id}", "method": "GET"}
        assert one.sample("http_requests_total", **labels, status_code="503") == 1
        assert one.sample("http_requests_shed_total") == 1
        assert one.sample("http_slots_in_use", kind="request") == 0
