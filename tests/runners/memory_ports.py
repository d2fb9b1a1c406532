"""Backstay's stores, Alertmanager and the ground of drills in memory: one fake a port, each can be told to fail."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from control_plane.actions.drills import FailedRequest, Fault
from control_plane.errors import ActuationRefused, SourceUnavailable
from control_plane.ports import ActiveAlert, Alert, Change, DecisionRecord, Exclusion, Freeze, Outcomes


@dataclass
class MemoryDecisions:
    """The DecisionStore port."""

    records: dict[str, DecisionRecord] = field(default_factory=dict)
    full: bool = False
    refuses_states: bool = False

    async def add(self, decisions: Sequence[DecisionRecord]) -> None:
        if self.full:
            raise ActuationRefused("Nothing was written: the disk is full.")
        self.records |= {record.id: record for record in decisions}

    async def set_state(self, decision_id: str, state: str, saga_id: str | None = None) -> None:
        if self.full or self.refuses_states:
            raise ActuationRefused("Nothing was written: the disk is full.")
        record = self.records[decision_id]
        self.records[decision_id] = replace(record, state=state, saga_id=saga_id or record.saga_id)

    async def decision(self, decision_id: str) -> DecisionRecord | None:
        return self.records.get(decision_id)

    async def latest(self, limit: int, service: str | None = None) -> Sequence[DecisionRecord]:
        wanted = [record for record in self.records.values() if service in (None, record.service)]
        return wanted[::-1][:limit]

    async def first_broken(self) -> str | None:
        return None


@dataclass
class MemoryChanges:
    """The Changes port."""

    changes: list[Change] = field(default_factory=list)
    down: bool = False

    async def record(self, change: Change) -> None:
        self.changes.append(change)

    async def since(self, at: datetime, service: str | None = None) -> Sequence[Change]:
        if self.down:
            raise SourceUnavailable("the database could not be read")
        return [each for each in reversed(self.changes) if each.at >= at and service in (None, each.service)]


@dataclass
class MemoryExclusions:
    """The Exclusions port."""

    kept: dict[str, Exclusion] = field(default_factory=dict)
    down: bool = False
    most: int = 100  # how many can be opened before it fails

    async def begin(self, service: str, at: datetime, reason: str) -> str:
        if len(self.kept) >= self.most:
            raise ActuationRefused("Nothing was written: the disk is full.")
        exclusion = Exclusion(f"x{len(self.kept)}", service, at, None, reason)
        self.kept[exclusion.id] = exclusion
        return exclusion.id

    async def end(self, exclusion_id: str, at: datetime) -> None:
        self.kept[exclusion_id] = replace(self.kept[exclusion_id], ended_at=at)

    async def overlapping(self, start: datetime, end: datetime) -> Sequence[Exclusion]:
        if self.down:
            raise SourceUnavailable("the database could not be read")
        return [e for e in self.kept.values() if e.began_at < end and (e.ended_at is None or e.ended_at > start)]

    @property
    def open_services(self) -> set[str]:
        return {each.service for each in self.kept.values() if each.ended_at is None}


@dataclass
class MemoryFirstSeen:
    """The FirstSeen port."""

    seen: dict[str, datetime] = field(default_factory=dict)

    async def note(self, seen: Mapping[str, datetime]) -> None:
        self.seen = {**seen, **self.seen}

    async def all(self) -> Mapping[str, datetime]:
        return self.seen


@dataclass
class MemorySwitches:
    """The Switches port."""

    on: Freeze | None = None
    down: bool = False

    async def freeze(self, *, reason: str, by: str, at: datetime) -> None:
        if self.down:
            raise ActuationRefused("Nothing was written: the disk is full.")
        self.on = Freeze(at, by, reason)

    async def thaw(self) -> None:
        self.on = None

    async def frozen(self) -> Freeze | None:
        if self.down:
            raise SourceUnavailable("the database could not be read")
        return self.on


@dataclass
class MemorySnapshots:
    """The Snapshots port."""

    kept: dict[str, tuple[datetime, bytes]] = field(default_factory=dict)
    saves: int = 0
    full: bool = False

    async def save(self, name: str, at: datetime, payload: bytes) -> None:
        if self.full:
            raise ActuationRefused("Nothing was written: the disk is full.")
        self.saves += 1
        self.kept[name] = at, payload

    async def load(self, name: str) -> tuple[datetime, bytes] | None:
        return self.kept.get(name)


@dataclass
class MemoryAlerts:
    """The AlertSink port."""

    posts: list[list[Alert]] = field(default_factory=list)
    down: bool = False
    hangs: bool = False

    async def send(self, alerts: Sequence[Alert]) -> None:
        if self.hangs:
            await asyncio.Event().wait()
        if self.down:
            raise SourceUnavailable("Alertmanager did not answer")
        self.posts.append(list(alerts))

    async def active(self) -> Sequence[ActiveAlert]:
        return []

    @property
    def firing(self) -> set[str]:
        """Names of the alerts that Alertmanager would hold now."""
        held: dict[frozenset[tuple[str, str]], Alert] = {}
        for alert in (alert for post in self.posts for alert in post):
            held[frozenset(alert.labels.items())] = alert
        return {alert.labels["alertname"] for alert in held.values() if alert.ends_at is None}


@dataclass
class MemoryGround:
    """The DrillGround port. `faults` and `overloads` are what is in force now; `calls` is everything that was asked."""

    faults: dict[str, str] = field(default_factory=dict)
    overloads: dict[str, float] = field(default_factory=dict)
    calls: list[str] = field(default_factory=list)
    sent: int = 1000
    failures: list[FailedRequest] = field(default_factory=list)
    complete: bool = True
    missing: tuple[str, ...] = ()
    seen_at_backend: frozenset[str] = frozenset()
    refuses: str | None = None  # why a fault is refused
    down: set[str] = field(default_factory=set)  # names of methods that do not answer

    async def inject(self, fault: Fault, service: str, limit: timedelta) -> None:
        self._called("inject", f"{fault.name} {service}")
        if self.refuses:
            raise ActuationRefused(self.refuses)
        self.faults[service] = fault.name

    async def clear(self, service: str) -> None:
        self._called("clear", service)
        self.faults.pop(service, None)

    async def overload(self, service: str, requests_per_second: float, limit: timedelta) -> None:
        self._called("overload", service)
        self.overloads[service] = requests_per_second

    async def end_overload(self, service: str) -> None:
        self._called("end_overload", service)
        self.overloads.pop(service, None)

    async def outcomes(self, since: datetime, until: datetime | None = None) -> Outcomes:
        self._called("outcomes", "")
        return Outcomes(self.sent, tuple(self.failures), self.complete)

    async def write_markers(self) -> str:
        self._called("write_markers", "")
        return "token"

    async def missing_markers(self, token: str) -> tuple[str, ...]:
        self._called("missing_markers", token)
        return self.missing

    def requests_seen_at(self, cluster: str, since: datetime) -> Collection[str]:
        self._called("requests_seen_at", cluster)
        return self.seen_at_backend

    def _called(self, method: str, what: str) -> None:
        self.calls.append(f"{method} {what}".strip())
        if method in self.down:
            raise SourceUnavailable(f"{method} did not answer")
