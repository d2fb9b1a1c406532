"""How much a deployment must be able to hold: demand in slots, headroom, replicas."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass

from control_plane.topology import Backend, Deployment, RuntimeState, Weights, deployment_of


@dataclass(frozen=True, slots=True)
class Demand:
    """What users of a service keep busy at the same time, on all its backends together.

    `requests` and `streams` are slots in use on average, e.g. 12.5: requests/s times seconds each takes (Little's law).
    For a service that fails, the demand is that of before it failed: a service that answers nobody looks idle.
    """

    requests: float
    streams: float = 0.0

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.requests + other.requests, self.streams + other.streams)

    def __mul__(self, share: float) -> Demand:
        return Demand(self.requests * share, self.streams * share)


NO_DEMAND = Demand(0.0)


def all_slots(deployment: Deployment) -> Demand:
    """The most that the deployment's desired replicas can hold: what is assumed where demand was not measured."""
    return Demand(
        float(deployment.desired * deployment.slots_per_replica),
        float(deployment.desired * deployment.stream_slots_per_replica),
    )


def load_on(
    deployment: str, demand: Mapping[str, Demand], weights: Mapping[str, Weights], in_full: Collection[str] = ()
) -> Demand:
    """What `deployment` has to hold under `weights`.

    Services `in_full` count as if all their requests went to it: they are being moved there.
    """
    load = NO_DEMAND
    for service, wanted in demand.items():
        backends = [backend for backend in Backend if deployment_of(service, backend) == deployment]
        for backend in backends:
            percent = 100 if service in in_full else weights[service].of(backend) if service in weights else 0
            load += wanted * (percent / 100)
    return load


def replicas_for(load: Demand, deployment: Deployment, headroom: float) -> int:
    """Replicas that hold `load` times `headroom`; at least one."""
    needed = [1]
    if deployment.slots_per_replica > 0:
        needed.append(math.ceil(load.requests * headroom / deployment.slots_per_replica - 1e-9))
    if deployment.stream_slots_per_replica > 0:
        needed.append(math.ceil(load.streams * headroom / deployment.stream_slots_per_replica - 1e-9))
    return max(needed)


def shortfall(name: str, state: RuntimeState, load: Demand, headroom: float) -> str | None:
    """Why the ready replicas of a deployment cannot hold `load` times `headroom`; None when they can."""
    deployment = state.deployments.get(name)
    if deployment is None:
        return f"there is no deployment {name}"
    needed = replicas_for(load, deployment, headroom)
    if deployment.ready >= needed:
        return None
    return (
        f"{name} has {deployment.ready} ready replicas and needs {needed} "
        f"for {load.requests:.1f} slots of demand x {headroom:g}"
    )
