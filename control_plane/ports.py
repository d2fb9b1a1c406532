"""What the core asks of the world. Adapters implement these; unit tests fake them; contract suites run on both."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Protocol

from control_plane.slo.events import Selector, Series
from control_plane.topology import Backend, RuntimeState, Weights


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
