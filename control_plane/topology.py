"""Names that the user's document fixes, and the state of what runs: services, backends, deployments, weights."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

SERVICES: tuple[str, ...] = (
    "identity-service",
    "conversation-service",
    "ai-gateway-service",
    "file-service",
    "search-service",
    "notification-service",
    "streaming-service",
)
MONOLITH = "librechat-monolith"


class Backend(StrEnum):
    """Who answers for a service: its own deployment, or the monolith."""

    SERVICE = "service"
    MONOLITH = "monolith"


@dataclass(frozen=True, slots=True)
class Weights:
    """Whole percent of a service's requests that each backend gets; they sum to 100."""

    service: int
    monolith: int

    def __post_init__(self) -> None:
        if not (0 <= self.service <= 100 and self.service + self.monolith == 100):
            raise ValueError(f"weights {self.service}/{self.monolith} are not whole percents that sum to 100")

    def of(self, backend: Backend) -> int:
        return self.service if backend is Backend.SERVICE else self.monolith


@dataclass(frozen=True, slots=True)
class Deployment:
    """Desired and actual state of one deployment, as the runtime reports it."""

    name: str
    desired: int
    ready: int
    min_replicas: int
    max_replicas: int
    slots_per_replica: int  # requests that one replica serves at a time
    restarts: int = 0  # since the stack started, all replicas
    draining: int = 0  # replicas that finish what they have and get nothing new
    stream_slots_per_replica: int = 0  # streams have slots of their own; 0 where the runtime does not say

    @property
    def ready_slots(self) -> int:
        return self.ready * self.slots_per_replica


@dataclass(frozen=True, slots=True)
class BackendTraffic:
    """Data-plane counters of one backend of one service since the gateway started. Never reset while it runs."""

    completed: int  # answers sent to callers, whatever their code
    server_errors: int  # of those, 5xx
    active: int  # requests in flight now


@dataclass(frozen=True, slots=True)
class RuntimeState:
    """One consistent reading of the runtime."""

    at: datetime
    deployments: Mapping[str, Deployment]  # by deployment name: the seven services and the monolith
    weights: Mapping[str, Weights]  # by service
    traffic: Mapping[str, Mapping[Backend, BackendTraffic]]  # by service


def deployment_of(service: str, backend: Backend) -> str:
    """Deployment that serves `service` on `backend`."""
    return service if backend is Backend.SERVICE else MONOLITH
