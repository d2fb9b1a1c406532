"""What the core asks of the world. Adapters implement these; unit tests fake them; contract suites run on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Protocol

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
