"""How many replicas a demand needs: HPA's arithmetic on slots, and the room that a destination must have."""

from __future__ import annotations

import math
from dataclasses import dataclass

from control_plane.topology import Deployment

_EPSILON = 1e-9  # so that 6.000000000000001 slots of demand do not ask for one replica more


@dataclass(frozen=True, slots=True)
class Demand:
    """Slots that requests and streams keep busy at the same time, waiting ones included; an average, e.g. 12.5.

    Little's law: arrivals per second times seconds each takes.
    """

    requests: float
    streams: float = 0.0

    def __add__(self, other: Demand) -> Demand:
        return Demand(self.requests + other.requests, self.streams + other.streams)

    def __mul__(self, factor: float) -> Demand:
        return Demand(self.requests * factor, self.streams * factor)

    def larger_of(self, other: Demand) -> Demand:
        """The larger of each kind."""
        return Demand(max(self.requests, other.requests), max(self.streams, other.streams))


NO_DEMAND = Demand(0.0)


def all_slots(deployment: Deployment) -> Demand:
    """The most that the deployment's desired replicas can hold: assumed where demand was not measured."""
    return Demand(
        float(deployment.desired * deployment.slots_per_replica),
        float(deployment.desired * deployment.stream_slots_per_replica),
    )


def busy_replicas(demand: Demand, deployment: Deployment) -> float:
    """Demand as a number of completely busy replicas, by the scarcer kind of slot."""
    busy = 0.0
    if deployment.slots_per_replica > 0:
        busy = demand.requests / deployment.slots_per_replica
    if deployment.stream_slots_per_replica > 0:
        busy = max(busy, demand.streams / deployment.stream_slots_per_replica)
    return busy


def replicas_for(demand: Demand, deployment: Deployment, headroom: float) -> int:
    """Replicas whose slots hold `demand` times `headroom`; at least one."""
    return max(1, math.ceil(busy_replicas(demand, deployment) * headroom - _EPSILON))


@dataclass(frozen=True, slots=True)
class Recommendation:
    """Replicas that a deployment should have: `wanted` by its demand, `replicas` by its limits too."""

    replicas: int
    wanted: int
    utilisation: float  # of the measured replicas' slots; 1.0 is full, more is a queue

    @property
    def limited(self) -> bool:
        return self.wanted > self.replicas


def recommend(
    demand: Demand, deployment: Deployment, measured: int, target_utilisation: float, tolerance: float
) -> Recommendation:
    """Desired replicas by the arithmetic of Kubernetes' Horizontal Pod Autoscaler.

    `measured` replicas reported the demand. Replicas that are not ready yet count as idle when scaling out, so that
    what was ordered is not ordered again while it starts. Ready replicas that did not report count as idle when
    scaling out and as exactly on target when scaling in: what is not known never removes a replica. Within
    `tolerance` of the target nothing changes.
    """
    busy = busy_replicas(demand, deployment)
    now, ready = deployment.desired, deployment.ready
    utilisation = busy / measured if measured > 0 else 0.0

    def limited(wanted: int) -> Recommendation:
        allowed = min(max(wanted, deployment.min_replicas), max(deployment.max_replicas, now))
        return Recommendation(allowed if wanted != now else now, wanted, utilisation)

    if measured <= 0:
        return limited(now)
    ratio = utilisation / target_utilisation
    starting, silent = max(0, now - ready), max(0, ready - measured)
    if ratio > 1:
        counted = measured + silent + starting
        adjusted = busy / counted / target_utilisation
    else:
        counted = measured + silent
        adjusted = (busy + silent * target_utilisation) / counted / target_utilisation
    if abs(adjusted - 1) <= tolerance + _EPSILON or (ratio > 1) != (adjusted > 1):
        return limited(now)
    wanted = math.ceil(adjusted * counted - _EPSILON)
    if (wanted < now and adjusted > 1) or (wanted > now and adjusted < 1):
        return limited(now)
    return limited(wanted)
