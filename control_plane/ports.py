"""What the core asks of the world. Adapters implement these; unit tests fake them; contract suites run on both."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, Protocol

from control_plane.actions.drills import FailedRequest, Fault
from control_plane.actions.journal import Entry, Saga
from control_plane.actions.soundness import SampleCounts
from control_plane.slo.events import Selector, Series
from control_plane.topology import Backend, RuntimeState, Weights
from control_plane.tracing.spans import Trace


class EventSource(Protocol):
    """A Prometheus-like store of counters. Every method raises SourceUnavailable rather than answer in part."""

    async def samples(self, selectors: Sequence[Selector], over: timedelta, at: datetime) -> Sequence[Series]:
        """Raw samples of the last `over` before `at`, as scraped: one query a metric family, whatever the selectors."""
        ...

    async def history(
        self, selectors: Sequence[Selector], start: datetime, end: datetime, step: timedelta
    ) -> Sequence[Series]:
        """Counter readings every `step` for backfill and cold start. Missing stays missing."""
        ...


class Runtime(Protocol):
    """Where the suite runs. Writes carry a fencing token: a smaller one than was ever seen raises ActuationRefused."""

    async def state(self) -> RuntimeState: ...

    async def scale(self, deployment: str, replicas: int, *, fence: int, by: str) -> None:
        """Sets desired replicas; returns when recorded, not when ready. Surplus replicas drain before they stop."""
        ...

    async def set_weights(self, service: str, weights: Weights, *, fence: int, by: str) -> None:
        """Sets routing for every listener; returns when the data plane acknowledged the new routes."""
        ...


@dataclass(frozen=True, slots=True)
class JourneyResult:
    """Outcome of user journeys checked by content."""

    sent: int
    passed: int
    failures: tuple[str, ...]  # one plain sentence each, at most ten


class Journeys(Protocol):
    """Synthetic user journeys through the gateway, right by content and not just by status."""

    async def run(self, service: str, backend: Backend | None, count: int, timeout: timedelta) -> JourneyResult:
        """`backend` pins the service's requests to one backend whatever the weights; None follows the weights."""
        ...


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert as Alertmanager takes it. `ends_at` None keeps it firing until the next post or its time-out."""

    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime
    ends_at: datetime | None = None


class AlertSink(Protocol):
    async def send(self, alerts: Sequence[Alert]) -> None: ...

    async def active(self) -> Sequence[ActiveAlert]:
        """Every alert that is not resolved, also those that a silence or a faster tier hides."""
        ...


@dataclass(frozen=True, slots=True)
class ActiveAlert:
    """One alert as Alertmanager holds it."""

    fingerprint: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]
    starts_at: datetime
    ends_at: datetime  # when it counts as resolved unless it is posted again
    receivers: tuple[str, ...]
    silenced_by: tuple[str, ...] = ()  # ids of silences
    inhibited_by: tuple[str, ...] = ()  # fingerprints of the alerts that hide it

    @property
    def notifies(self) -> bool:
        """Whether it reaches its receivers."""
        return not self.silenced_by and not self.inhibited_by


@dataclass(frozen=True, slots=True)
class TraceQuery:
    """Traces to sample: one of their spans belongs to `service`, began in the time range, and fits the rest."""

    service: str
    start: datetime
    end: datetime
    limit: int = 100  # traces at most
    operation: str | None = None
    min_duration: timedelta | None = None
    tags: Mapping[str, str] = field(default_factory=dict)


class TraceSource(Protocol):
    """A Jaeger-like store of traces. Every method raises SourceUnavailable rather than answer in part."""

    async def services(self) -> Sequence[str]:
        """Names of services that have sent spans."""
        ...

    async def operations(self, service: str) -> Sequence[str]: ...

    async def traces(self, query: TraceQuery) -> Sequence[Trace]:
        """Up to `limit` traces, spread over the time range: on a busy service the newest alone are no fair sample."""
        ...

    async def trace(self, trace_id: str) -> Trace | None:
        """One trace; None when it is not (or no longer) held."""
        ...


class ServiceSamples(Protocol):
    """Requests of a service as its users saw them; where there is none, latency is not asked after a move."""

    async def since(self, service: str, since: datetime) -> SampleCounts:
        """Counts of requests that ended after `since`. Raises SourceUnavailable rather than count in part."""
        ...


class SagaJournal(Protocol):
    """Where sagas are written down. What a method wrote is durable when it returns.

    Writes raise ActuationRefused when nothing was written (StaleFence when another process acts by now), and reads
    SourceUnavailable.
    """

    async def begin(self, saga: Saga, *, fence: int) -> None:
        """Writes down a saga without entries."""
        ...

    async def append(self, saga_id: str, position: int, entry: Entry, *, fence: int) -> None:
        """Writes the entry at `position` (0, 1, ...); one that is there already with the same content is no error."""
        ...

    async def saga(self, saga_id: str) -> Saga | None: ...

    async def unfinished(self) -> Sequence[Saga]:
        """Sagas that have not ended, oldest first."""
        ...

    async def recent(self, since: datetime, *, drills: bool | None = None) -> Sequence[Saga]:
        """Sagas begun at or after `since`, newest first; `drills` False leaves drills out, True keeps only them."""
        ...


class Fences(Protocol):
    """Fencing tokens: each is larger than every one before, also after a restart."""

    async def take(self, holder: str) -> int:
        """A new token; from now on older ones are stale."""
        ...

    async def newest(self) -> int:
        """The newest token given out; 0 when there was none."""
        ...


@dataclass(frozen=True, slots=True)
class AuditRecord:
    """Something that was about to be done: recorded before it takes effect, and chained to the record before it."""

    number: int
    at: datetime
    actor: str
    action: str
    target: str
    detail: Mapping[str, Any]
    hash: str


class AuditLog(Protocol):
    """Who did what. Records are only added; each carries a hash over itself and the one before."""

    async def record(self, actor: str, action: str, target: str, detail: Mapping[str, Any]) -> AuditRecord: ...

    async def latest(self, limit: int) -> Sequence[AuditRecord]:
        """Newest first."""
        ...

    async def first_broken(self) -> int | None:
        """Number of the first record that does not fit the one before it; None when the chain is whole."""
        ...


@dataclass(frozen=True, slots=True)
class DecisionRecord:
    """A decision as it is kept. All but `state` and `saga_id` is under the hash and never changes."""

    id: str
    at: datetime
    service: str
    action: str
    target: str
    reason: str
    sentence: str
    guards: Sequence[Mapping[str, Any]]  # name, passed, detail
    evidence: Mapping[str, Any]  # everything the decision was made from: replaying it gives the same decision
    body: Mapping[str, Any]  # the decision itself, as replay must give it again
    drill: bool = False
    state: str = "decided"
    saga_id: str | None = None


class DecisionStore(Protocol):
    """Decisions with their evidence, in a hash chain."""

    async def add(self, decisions: Sequence[DecisionRecord]) -> None:
        """Writes all of one tick or none of them."""
        ...

    async def set_state(self, decision_id: str, state: str, saga_id: str | None = None) -> None:
        """What became of a decision; a `saga_id` of None leaves the one that is there."""
        ...

    async def decision(self, decision_id: str) -> DecisionRecord | None:
        """By id, or by a beginning of the id that only one decision has."""
        ...

    async def latest(self, limit: int, service: str | None = None) -> Sequence[DecisionRecord]:
        """Newest first."""
        ...

    async def first_broken(self) -> str | None:
        """Id of the first decision that does not fit the one before it; None when the chain is whole."""
        ...


@dataclass(frozen=True, slots=True)
class Exclusion:
    """A stretch of time that a service's SLOs are also shown without: a drill, a maintenance."""

    id: str
    service: str
    began_at: datetime
    ended_at: datetime | None  # None while it lasts
    reason: str


class Exclusions(Protocol):
    async def begin(self, service: str, at: datetime, reason: str) -> str:
        """Opens an exclusion and returns its id."""
        ...

    async def end(self, exclusion_id: str, at: datetime) -> None: ...

    async def overlapping(self, start: datetime, end: datetime) -> Sequence[Exclusion]:
        """Exclusions that share any time with [start, end), oldest first; open ones reach to the end of time."""
        ...


class FirstSeen(Protocol):
    """When Backstay first measured an SLO: what tells a young budget from lost data."""

    async def note(self, seen: Mapping[str, datetime]) -> None:
        """Remembers SLOs by name; an earlier instant that is already known stays."""
        ...

    async def all(self) -> Mapping[str, datetime]: ...


class Snapshots(Protocol):
    """Large values by name, such as an event ledger, each replaced as a whole."""

    async def save(self, name: str, at: datetime, payload: bytes) -> None: ...

    async def load(self, name: str) -> tuple[datetime, bytes] | None:
        """The latest; None when there is none. Raises SourceUnavailable when what was stored is damaged."""
        ...


@dataclass(frozen=True, slots=True)
class Change:
    """Something that changed a service, by a person, a pipeline or Backstay: what regressions are blamed on."""

    at: datetime
    service: str
    kind: str  # deploy, weights, config, scale
    version: str
    by: str
    detail: Mapping[str, Any] = field(default_factory=dict)


class Changes(Protocol):
    async def record(self, change: Change) -> None: ...

    async def since(self, at: datetime, service: str | None = None) -> Sequence[Change]:
        """Newest first."""
        ...


@dataclass(frozen=True, slots=True)
class Freeze:
    """Automatic action is forbidden, by whom and why."""

    at: datetime
    by: str
    reason: str


class Switches(Protocol):
    """The kill switch, and other settings that people change while Backstay runs. They survive restarts."""

    async def freeze(self, *, reason: str, by: str, at: datetime) -> None:
        """Replaces the reason when it is frozen already; the time of the first freeze stays."""
        ...

    async def thaw(self) -> None: ...

    async def frozen(self) -> Freeze | None:
        """None when automatic action is allowed."""
        ...


@dataclass(frozen=True, slots=True)
class Login:
    """A person's open session. `csrf` must come back with every form."""

    username: str
    csrf: str


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the senders of a stretch of traffic got. `complete` is False when failures were too many to keep."""

    sent: int
    failures: tuple[FailedRequest, ...]
    complete: bool


class DrillGround(Protocol):
    """What a drill needs of the place it runs in: faults in, what users got out, and what the gateway saw.

    Calls raise ActuationRefused when nothing was changed, and SourceUnavailable when there was no answer.
    """

    async def inject(self, fault: Fault, service: str, limit: timedelta) -> None:
        """Puts the fault on every replica, now and later, until `limit` has passed or it is cleared."""
        ...

    async def clear(self, service: str) -> None:
        """Takes the fault away; no error when there is none."""
        ...

    async def overload(self, service: str, requests_per_second: float, limit: timedelta) -> None:
        """Adds open-loop load on top of what runs."""
        ...

    async def end_overload(self, service: str) -> None: ...

    async def outcomes(self, since: datetime, until: datetime | None = None) -> Outcomes:
        """Everything that ended in [since, until), whole seconds, of all users."""
        ...

    async def write_markers(self) -> str:
        """Writes a user, a message, a file and a notification; the token finds them again."""
        ...

    async def missing_markers(self, token: str) -> tuple[str, ...]:
        """What of the written cannot be read any more; empty when all is there."""
        ...

    def requests_seen_at(self, cluster: str, since: datetime) -> Collection[str]:
        """Ids of requests that the gateway sent to `cluster` (`<service>.<backend>`) and that failed there. Blocks."""
        ...
