"""What the local cluster remembers across restarts of the stack."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from control_plane.errors import InvalidDefinition, SourceUnavailable
from control_plane.local.files import write_atomically
from control_plane.local.specification import StackSpec
from control_plane.topology import SERVICES, Weights


@dataclass(frozen=True, slots=True)
class Desired:
    """What was last asked for."""

    replicas: Mapping[str, int]  # by deployment
    weights: Mapping[str, Weights] = field(default_factory=dict)  # by service
    fence: int = 0  # highest fencing token that ever wrote


def initial(spec: StackSpec) -> Desired:
    """The first start: replicas as specified, every service on its own deployment."""
    return Desired(
        replicas={name: deployment.replicas for name, deployment in spec.deployments.items()},
        weights={service: Weights(100, 0) for service in SERVICES},
    )


def recall(path: Path, spec: StackSpec) -> Desired:
    """The remembered state; the initial one when there is none. Raises InvalidDefinition for a file that is damaged.

    A damaged file is never taken for a first start: that would undo a rollback.
    """
    try:
        text = path.read_text()
    except FileNotFoundError:
        return initial(spec)
    first = initial(spec)
    try:
        body = json.loads(text)
        replicas = {
            name: min(int(body["replicas"].get(name, default)), spec.deployments[name].max)
            for name, default in first.replicas.items()
        }
        weights = {
            service: Weights(**body["weights"][service]) if service in body["weights"] else default
            for service, default in first.weights.items()
        }
        return Desired(replicas, weights, int(body["fence"]))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise InvalidDefinition(
            f"{path} is damaged ({error!r}): it holds replicas and weights. Mend it, or remove it to start anew "
            "with every service on its own deployment."
        ) from error


def remember(path: Path, desired: Desired) -> None:
    """Writes the state to disk before it takes effect. Raises SourceUnavailable when that fails."""
    body = {
        "replicas": dict(desired.replicas),
        "weights": {name: {"service": w.service, "monolith": w.monolith} for name, w in desired.weights.items()},
        "fence": desired.fence,
    }
    try:
        write_atomically(path, json.dumps(body, indent=1), durable=True)
    except OSError as error:
        raise SourceUnavailable(f"{path} cannot be written, so nothing was changed: {error}") from error
