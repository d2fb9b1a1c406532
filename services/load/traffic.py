"""Sends the traffic: demo journeys at their rates, extra requests while a drill asks for them, and checks on demand."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import takewhile

from services.load.arrivals import arrivals
from services.load.gateway import Gateway, Pin, StepFailed, Visit
from services.load.journeys import CHECKS, JOURNEYS, Run, chat, me
from services.load.recorder import Recorder
from services.load.users import Accounts, User

log = logging.getLogger(__name__)

CHECKS_AT_ONCE = 6
MOST_FAILURES_TOLD = 10


async def _conversations(visit: Visit, user: User, chance: random.Random) -> None:
    await visit.call("list", "GET", "/api/conversations?limit=10")


async def _files(visit: Visit, user: User, chance: random.Random) -> None:
    await visit.call("list", "GET", "/api/files?limit=10")


async def _search(visit: Visit, user: User, chance: random.Random) -> None:
    await visit.call("find", "GET", f"/api/search?q={user.word}")


async def _inbox(visit: Visit, user: User, chance: random.Random) -> None:
    await visit.call("count", "GET", "/api/notifications/unread-count")


EXTRA: Mapping[str, Run] = {
    "identity-service": me,
    "conversation-service": _conversations,
    "ai-gateway-service": chat,
    "file-service": _files,
    "search-service": _search,
    "notification-service": _inbox,
}
"""The one request that extra load on a service consists of. Streaming has none: no request of it stands alone."""


@dataclass(frozen=True, slots=True)
class ExtraLoad:
    """Extra requests in force."""

    rate_per_second: float
    until: float  # unix seconds


@dataclass(frozen=True, slots=True)
class CheckResult:
    """Outcome of journeys that check a service."""

    sent: int
    passed: int
    failures: tuple[str, ...]  # one sentence each, at most ten


class Traffic:
    """Arrivals are an open model: each has its time beforehand, and none waits for another's answer."""

    def __init__(self, gateway: Gateway, recorder: Recorder, accounts: Accounts, chance: random.Random) -> None:
        self._gateway = gateway
        self._recorder = recorder
        self._accounts = accounts
        self._chance = chance
        self._running: set[asyncio.Task[None]] = set()
        self._extra: dict[str, tuple[ExtraLoad, asyncio.Task[None]]] = {}

    async def demo(self, scale: float, ramp_seconds: float) -> None:
        """Until cancelled: all journeys, from when the first account is ready."""
        await self._accounts.anyone()
        log.info("demo traffic begins")
        async with asyncio.TaskGroup() as group:
            for journey in JOURNEYS:
                times = arrivals(journey.per_second * scale, ramp_seconds, random.Random(self._chance.random()))  # noqa: S311
                group.create_task(self._send(journey.name, journey.run, times))

    async def probe(self, every_seconds: float) -> None:
        """Until cancelled: one journey of each service at that distance, so that no minute of a quiet one goes unseen.

        Nothing of it is recorded here; the gateway counts its requests like any others.
        """
        await self._accounts.anyone()
        while True:
            found = await asyncio.gather(
                *(self.check(service, 1, every_seconds, backend=None, token="") for service in CHECKS)
            )
            for failure in (failure for result in found for failure in result.failures):
                log.info("a probe failed: %s", failure)
            await asyncio.sleep(every_seconds)

    def add_extra(self, service: str, rate_per_second: float, seconds: float) -> ExtraLoad:
        """Replaces extra load that the service has already."""
        self.remove_extra(service)
        extra = ExtraLoad(rate_per_second, time.time() + seconds)
        self._extra[service] = extra, asyncio.create_task(self._send_extra(service, extra, seconds))
        return extra

    def remove_extra(self, service: str) -> bool:
        """Whether there was any. Requests on their way are let finish."""
        had = self._extra.pop(service, None)
        if had:
            had[1].cancel()
        return had is not None

    @property
    def extra(self) -> dict[str, ExtraLoad]:
        return {service: extra for service, (extra, _) in self._extra.items()}

    async def check(
        self, service: str, count: int, timeout_seconds: float, backend: str | None, token: str
    ) -> CheckResult:
        """Run a service's journey `count` times, on one backend if given; kept out of the numbers of real traffic."""
        pin = Pin(service, backend, token) if backend else None
        places = asyncio.Semaphore(CHECKS_AT_ONCE)

        async def one() -> str | None:
            async with places:
                visit = Visit(self._gateway, None, f"check of {service}", pin=pin)
                user = await self._accounts.anyone()
                visit.token = user.token
                try:
                    await CHECKS[service](visit, user, self._chance)
                except StepFailed as failure:
                    return str(failure)
                return None

        tasks = [asyncio.create_task(one()) for _ in range(count)]
        try:
            done, late = await asyncio.wait(tasks, timeout=timeout_seconds)
        finally:
            for task in tasks:
                task.cancel()
        problems = [problem for task in done if (problem := task.result()) is not None]
        if late:
            problems.append(f"{len(late)} journeys had not ended after {timeout_seconds:.0f} s")
        passed = len(done) - sum(1 for task in done if task.result() is not None)
        return CheckResult(count, passed, tuple(problems[:MOST_FAILURES_TOLD]))

    async def stop(self) -> None:
        """Cut short what is on its way; none of it is recorded."""
        tasks = [*self._running, *(task for _, task in self._extra.values())]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _send_extra(self, service: str, extra: ExtraLoad, seconds: float) -> None:
        times = arrivals(extra.rate_per_second, 0.0, random.Random(self._chance.random()))  # noqa: S311
        await self._send("extra", EXTRA[service], takewhile(lambda at: at < seconds, times))
        self._extra.pop(service, None)

    async def _send(self, name: str, run: Run, times: Iterator[float]) -> None:
        """A journey at each of `times`, in seconds from now. Behind schedule, all that are due start at once."""
        start = time.monotonic()
        for at in times:
            due = start + at
            if (wait := due - time.monotonic()) > 0:
                await asyncio.sleep(wait)
            task = asyncio.create_task(self._visit(name, run, due))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def _visit(self, name: str, run: Run, due: float) -> None:
        user = await self._accounts.anyone()
        visit = Visit(self._gateway, self._recorder, name, due=due)
        visit.token = user.token
        try:
            await run(visit, user, self._chance)
        except StepFailed as failed:  # recorded; the user gives up
            if failed.failure.status == 401:
                self._accounts.doubt(user)
        except Exception:  # the outer turn of one journey
            log.exception("the journey %r is broken", name)
