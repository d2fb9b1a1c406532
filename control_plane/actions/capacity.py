"""How much a deployment must hold under given weights, and whether its ready replicas do."""

from __future__ import annotations

from collections.abc import Collection, Mapping

from control_plane.decisions.capacity import NO_DEMAND, Demand, all_slots, replicas_for
from control_plane.topology import Backend, RuntimeState, Weights, deployment_of

__all__ = ["NO_DEMAND", "Demand", "all_slots", "load_on", "replicas_for", "shortfall"]


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
