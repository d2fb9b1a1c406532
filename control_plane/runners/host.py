"""The running control plane as the console sees it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from datetime import timedelta

from control_plane.clock import Clock
from control_plane.console.host import Accounts, Commands, DecisionShown, GuardShown
from control_plane.console.timeline import moments
from control_plane.errors import BackstayError
from control_plane.oncall.runbooks import RunbookFacts, Runbooks
from control_plane.ports import Changes, DecisionRecord, DecisionStore, Exclusions, SagaJournal
from control_plane.runners.metrics import Metrics
from control_plane.situation import Moment, Situation

TIMELINE_REACH = timedelta(days=7)


class Bulletin:
    """The latest situation, and everybody who waits for the next."""

    def __init__(self) -> None:
        self.latest: Situation | None = None
        self._changed = asyncio.Event()

    def publish(self, situation: Situation) -> None:
        self.latest = situation
        self._changed.set()
        self._changed = asyncio.Event()

    async def each(self) -> AsyncIterator[Situation]:
        """The latest at once, then each new one; a slow reader skips those it missed."""
        seen: Situation | None = None
        while True:
            changed = self._changed
            if self.latest is not None and self.latest is not seen:
                seen = self.latest
                yield seen
            else:
                await changed.wait()


class RunningHost:
    """Implements the console's ConsoleHost over the stores of Backstay."""

    def __init__(
        self,
        *,
        environment: str,
        bulletin: Bulletin,
        accounts: Accounts,
        commands: Commands,
        local_token: str | None,
        secure_cookies: bool,
        decisions: DecisionStore,
        sagas: SagaJournal,
        changes: Changes,
        exclusions: Exclusions,
        runbooks: Runbooks,
        facts: Callable[[], RunbookFacts],
        metrics: Metrics,
        clock: Clock,
    ) -> None:
        self.environment = environment
        self.accounts = accounts
        self.commands = commands
        self.local_token = local_token
        self.secure_cookies = secure_cookies
        self._bulletin = bulletin
        self._decisions = decisions
        self._sagas = sagas
        self._changes = changes
        self._exclusions = exclusions
        self._runbooks = runbooks
        self._facts = facts
        self._metrics = metrics
        self._clock = clock

    def situation(self) -> Situation | None:
        return self._bulletin.latest

    def situations(self) -> AsyncIterator[Situation]:
        return self._bulletin.each()

    async def moments(self, limit: int) -> Sequence[Moment]:
        """Empty while the database cannot be read: the page says elsewhere that it cannot."""
        now = self._clock()
        since = now - TIMELINE_REACH
        try:
            return moments(
                await self._decisions.latest(200),
                await self._sagas.recent(since),
                await self._changes.since(since),
                await self._exclusions.overlapping(since, now),
                limit,
            )
        except BackstayError:
            return ()

    async def decisions(self, limit: int, service: str | None = None) -> Sequence[DecisionShown]:
        return [shown(record) for record in await self._decisions.latest(limit, service)]

    async def decision(self, decision_id: str) -> DecisionShown | None:
        record = await self._decisions.decision(decision_id)
        return None if record is None else shown(record)

    def runbook_names(self) -> Sequence[str]:
        return self._runbooks.names()

    def runbook(self, name: str) -> str | None:
        return self._runbooks.render(name, self._facts())

    def metrics(self) -> bytes:
        return self._metrics.text()


def shown(record: DecisionRecord) -> DecisionShown:
    """A stored decision as the console shows it."""
    return DecisionShown(
        id=record.id,
        at=record.at,
        service=record.service,
        action=record.action,
        target=record.target,
        reason=record.reason,
        sentence=record.sentence,
        state=record.state,
        guards=tuple(GuardShown(str(g["name"]), bool(g["passed"]), str(g["detail"])) for g in record.guards),
        evidence=record.evidence,
    )
