"""What a saga does to the world: three effects, each the same when it is done twice."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from control_plane.errors import InvalidDefinition
from control_plane.topology import Backend, RuntimeState, Weights


@dataclass(frozen=True, slots=True)
class SetReplicas:
    """Desired replicas of a deployment."""

    deployment: str
    replicas: int

    @property
    def sentence(self) -> str:
        return f"set {self.deployment} to {self.replicas} replicas"

    def holds_in(self, state: RuntimeState) -> bool:
        deployment = state.deployments.get(self.deployment)
        return deployment is not None and deployment.desired == self.replicas


@dataclass(frozen=True, slots=True)
class SetWeights:
    """Routing of a service."""

    service: str
    weights: Weights

    @property
    def sentence(self) -> str:
        return f"route {self.service} {self.weights.service}/{self.weights.monolith} (service/monolith)"

    def holds_in(self, state: RuntimeState) -> bool:
        return state.weights.get(self.service) == self.weights


@dataclass(frozen=True, slots=True)
class RunJourneys:
    """User journeys, pinned to a backend or following the weights. They change nothing; their result is recorded."""

    service: str
    backend: Backend | None
    count: int
    patience: timedelta

    @property
    def sentence(self) -> str:
        pinned = f" pinned to {self.backend.value}" if self.backend else ""
        return f"run {self.count} journeys of {self.service}{pinned}"


Effect = SetReplicas | SetWeights | RunJourneys
Lasting = SetReplicas | SetWeights


def effect_json(effect: Lasting) -> dict[str, Any]:
    """A lasting effect as JSON values."""
    match effect:
        case SetReplicas():
            return {"set": "replicas", "deployment": effect.deployment, "replicas": effect.replicas}
        case SetWeights():
            weights = effect.weights
            return {
                "set": "weights",
                "service": effect.service,
                "to": {"service": weights.service, "monolith": weights.monolith},
            }


def effect_from_json(value: Mapping[str, Any]) -> Lasting:
    """The effect behind stored JSON."""
    match value:
        case {"set": "replicas", "deployment": str(deployment), "replicas": int(replicas)}:
            return SetReplicas(deployment, replicas)
        case {"set": "weights", "service": str(service), "to": {"service": int(mine), "monolith": int(theirs)}}:
            return SetWeights(service, Weights(mine, theirs))
    raise InvalidDefinition(f"A stored effect cannot be read: {value!r}")
