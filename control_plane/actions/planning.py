"""How plans are built from what is seen: pure, and refused when the numbers do not allow them."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from datetime import timedelta

from control_plane.actions.capacity import Demand, all_slots, load_on, replicas_for
from control_plane.actions.plans import Plan, PlanKind, PlanPolicy
from control_plane.actions.steps import (
    AwaitReady,
    Drain,
    Grow,
    OnFailure,
    ProveMoved,
    Shift,
    Shrink,
    SmokeTest,
    Step,
    Verify,
    Watch,
)
from control_plane.errors import ActuationRefused, InvalidDefinition
from control_plane.topology import MONOLITH, Backend, Deployment, RuntimeState, Weights

ALL_SERVICES = "all"


def rollback_plan(
    target: str,
    state: RuntimeState,
    demand: Mapping[str, Demand],
    policy: PlanPolicy,
    *,
    also_moving: Collection[str] = (),
) -> Plan:
    """Traffic of one service, or of `all`, to the monolith, make-before-break.

    `demand` is that of before the incident, by service; a service it lacks is assumed to fill all its slots.
    `also_moving` are services that other plans are moving now; they count as if all of them came.
    Raises ActuationRefused when the monolith's limit does not allow the capacity.
    """
    services = tuple(sorted(state.weights)) if target == ALL_SERVICES else (target,)
    for service in services:
        _known_service(service, state)
    demand, notes = _complete(demand, state)
    moving = [service for service in services if state.weights[service].monolith < 100]
    steps: list[Step] = []
    if moving:
        load = load_on(MONOLITH, demand, state.weights, {*moving, *also_moving})
        steps += _make_room(MONOLITH, load, state, policy)
        steps += [_smoke_test(service, Backend.MONOLITH, policy) for service in moving]
        for service in moving:
            steps += _rollback_shifts(service, state.weights[service], policy)
        steps += [_moved(service, Backend.MONOLITH, policy, OnFailure.HOLD) for service in moving]
    surplus = [service for service in services if state.deployments[service].desired > policy.keep_warm]
    settling = [service for service in services if service in moving or service in surplus]
    steps += [Drain(service, Backend.SERVICE, policy.drain_deadline, OnFailure.GO_ON) for service in settling]
    steps += [_verify(service, Backend.MONOLITH, policy) for service in settling]
    steps += [
        Shrink(
            service,
            policy.keep_warm,
            was=state.deployments[service].desired,
            idle=True,
            deadline=policy.drain_deadline + policy.scale_deadline,
            on_failure=OnFailure.HOLD,
        )
        for service in surplus
    ]
    return Plan(PlanKind.ROLLBACK, target, services, tuple(steps), demand, policy.headroom, notes)


def scale_plan(
    deployment: str, replicas: int, state: RuntimeState, demand: Mapping[str, Demand], policy: PlanPolicy
) -> Plan:
    """Another number of replicas. Refused outside the deployment's limits, or when too few would stay for its load."""
    now = _known_deployment(deployment, state)
    if replicas > now.max_replicas:
        raise ActuationRefused(f"{deployment} may have at most {now.max_replicas} replicas, not {replicas}.")
    if replicas < now.min_replicas:
        raise ActuationRefused(f"{deployment} must keep at least {now.min_replicas} replicas, not {replicas}.")
    demand, notes = _complete(demand, state)
    steps: list[Step] = []
    if replicas > now.desired:
        steps = [
            Grow(deployment, replicas, now.desired, policy.scale_deadline, OnFailure.HOLD),
            AwaitReady(deployment, replicas, policy.ready_deadline, OnFailure.HOLD),
        ]
    elif replicas < now.desired:
        routed = [
            service
            for service, weights in state.weights.items()
            if (weights.monolith if deployment == MONOLITH else weights.service if service == deployment else 0) > 0
        ]
        needed = replicas_for(load_on(deployment, demand, state.weights), now, policy.headroom) if routed else 0
        if replicas < needed:
            raise ActuationRefused(
                f"{deployment} serves {', '.join(sorted(routed))} and needs {needed} replicas for what it gets "
                f"(demand x {policy.headroom:g}), not {replicas}."
            )
        steps = [
            Shrink(
                deployment,
                replicas,
                was=now.desired,
                idle=not routed,
                deadline=policy.drain_deadline + policy.scale_deadline,
                on_failure=OnFailure.HOLD,
            )
        ]
    return Plan(PlanKind.SCALE, deployment, (), tuple(steps), demand, policy.headroom, notes)


def cutover_plan(
    service: str,
    to_percent: int,
    state: RuntimeState,
    demand: Mapping[str, Demand],
    policy: PlanPolicy,
    *,
    also_moving: Collection[str] = (),
) -> Plan:
    """Traffic of one service to `to_percent` on its microservice, gate by gate; downwards it is one careful shift."""
    _known_service(service, state)
    if not 0 <= to_percent <= 100:
        raise InvalidDefinition(f"{to_percent} is not a percentage between 0 and 100.")
    demand, notes = _complete(demand, state)
    now = state.weights[service]
    steps: list[Step] = []
    if to_percent > now.service:
        percents = [p for p in policy.cutover_percents if now.service < p < to_percent] + [to_percent]
        load = demand[service] * (to_percent / 100)
        steps += _make_room(service, load, state, policy)
        steps += _forward(service, now, percents, policy.cutover_requests, policy.cutover_gate_deadline, policy)
    elif to_percent < now.service:
        after = {**state.weights, service: Weights(to_percent, 100 - to_percent)}
        steps += _make_room(MONOLITH, load_on(MONOLITH, demand, after, also_moving), state, policy)
        steps.append(_smoke_test(service, Backend.MONOLITH, policy))
        steps.append(
            Shift(service, after[service], now, after[service], policy.shift_deadline, on_failure=OnFailure.REVERT)
        )
        if to_percent == 0:
            steps.append(_moved(service, Backend.MONOLITH, policy, OnFailure.HOLD))
            steps.append(Drain(service, Backend.SERVICE, policy.drain_deadline, OnFailure.GO_ON))
        steps.append(_verify(service, Backend.MONOLITH, policy))
    return Plan(PlanKind.CUTOVER, service, (service,), tuple(steps), demand, policy.headroom, notes)


def restore_plan(
    service: str,
    replicas: Mapping[str, int],
    weights: Weights,
    state: RuntimeState,
    demand: Mapping[str, Demand],
    policy: PlanPolicy,
) -> Plan:
    """Back to the `weights` and `replicas` (by deployment) of before a drill, gate by gate.

    When a gate does not open, the service stays where the plan found it: on the monolith.
    """
    _known_service(service, state)
    demand, notes = _complete(demand, state)
    now = state.weights[service]
    steps: list[Step] = []
    wanted = max(replicas.get(service, 0), state.deployments[service].desired)
    if weights.service > now.service:
        percents = [p for p in policy.restore_percents if now.service < p < weights.service] + [weights.service]
        steps += _make_room(service, demand[service] * (weights.service / 100), state, policy, at_least=wanted)
        steps += _forward(service, now, percents, policy.restore_requests, policy.restore_gate_deadline, policy)
    elif wanted > state.deployments[service].desired:
        steps += _make_room(service, demand[service], state, policy, at_least=wanted)
    for deployment, before in sorted(replicas.items()):
        desired = _known_deployment(deployment, state).desired
        if desired > before:
            steps.append(
                Shrink(
                    deployment,
                    before,
                    was=desired,
                    idle=False,
                    deadline=policy.drain_deadline + policy.scale_deadline,
                    on_failure=OnFailure.HOLD,
                )
            )
    return Plan(PlanKind.RESTORE, service, (service,), tuple(steps), demand, policy.headroom, notes)


def _make_room(
    name: str, load: Demand, state: RuntimeState, policy: PlanPolicy, at_least: int = 0
) -> tuple[Grow, AwaitReady]:
    deployment = _known_deployment(name, state)
    needed = replicas_for(load, deployment, policy.headroom)
    if needed > deployment.max_replicas:
        raise ActuationRefused(
            f"{name} would need {needed} replicas for {load.requests:.1f} slots of demand x {policy.headroom:g} "
            f"(and {load.streams:.1f} streams); its limit is {deployment.max_replicas}. Raise the limit, or move less."
        )
    replicas = max(needed, deployment.desired, at_least)
    return (
        Grow(name, replicas, deployment.desired, policy.scale_deadline, OnFailure.REVERT),
        # Traffic may come as soon as what it needs is ready; surplus replicas need not be waited for.
        AwaitReady(name, max(needed, at_least), policy.ready_deadline, OnFailure.REVERT),
    )


def _smoke_test(service: str, backend: Backend, policy: PlanPolicy) -> SmokeTest:
    return SmokeTest(
        service, backend, policy.smoke_journeys, policy.smoke_patience, policy.smoke_deadline, OnFailure.REVERT
    )


def _rollback_shifts(service: str, now: Weights, policy: PlanPolicy) -> list[Step]:
    steps: list[Step] = []
    percents = [percent for percent in policy.rollback_percents if percent > now.monolith]
    for percent in percents:
        first, last = percent == percents[0], percent == percents[-1]
        # Once some traffic is on the monolith, going back to a suspect service is no cure: hold and tell a person.
        on_failure = OnFailure.REVERT if first else OnFailure.HOLD
        steps.append(
            Shift(service, Weights(100 - percent, percent), now, Weights(0, 100), policy.shift_deadline, on_failure)
        )
        if not last:
            steps.append(
                Watch(
                    service,
                    Backend.MONOLITH,
                    policy.glance_requests,
                    against_other=True,
                    deadline=policy.glance_deadline,
                    on_short=OnFailure.GO_ON,
                    on_failure=OnFailure.REVERT,
                )
            )
    return steps


def _forward(
    service: str, now: Weights, percents: Sequence[int], requests: int, gate: timedelta, policy: PlanPolicy
) -> list[Step]:
    steps: list[Step] = [_smoke_test(service, Backend.SERVICE, policy)]
    for percent in percents:
        steps.append(Shift(service, Weights(percent, 100 - percent), now, now, policy.shift_deadline, OnFailure.REVERT))
        steps.append(
            Watch(
                service,
                Backend.SERVICE,
                requests,
                against_other=False,
                deadline=gate,
                on_short=OnFailure.REVERT,
                on_failure=OnFailure.REVERT,
            )
        )
    if percents[-1] == 100:
        steps.append(_moved(service, Backend.SERVICE, policy, OnFailure.REVERT))
        steps.append(Drain(service, Backend.MONOLITH, policy.drain_deadline, OnFailure.GO_ON))
    return steps


def _moved(service: str, to: Backend, policy: PlanPolicy, on_failure: OnFailure) -> ProveMoved:
    return ProveMoved(service, to, policy.moved_requests, policy.smoke_journeys, policy.moved_deadline, on_failure)


def _verify(service: str, backend: Backend, policy: PlanPolicy) -> Verify:
    return Verify(
        service,
        backend,
        policy.verify_requests,
        policy.error_share_below,
        policy.slow_share_below,
        policy.smoke_journeys,
        policy.smoke_patience,
        policy.verify_deadline,
        OnFailure.HOLD,
    )


def _complete(demand: Mapping[str, Demand], state: RuntimeState) -> tuple[dict[str, Demand], tuple[str, ...]]:
    """Demand of every service; one that was not measured counts as all the slots it has: rather too much."""
    complete = {service: demand[service] for service in state.weights if service in demand}
    assumed = sorted(set(state.weights) - set(complete))
    for service in assumed:
        complete[service] = all_slots(_known_deployment(service, state))
    notes = (f"Demand of {', '.join(assumed)} is not measured: all slots are assumed busy.",) if assumed else ()
    return complete, notes


def _known_service(service: str, state: RuntimeState) -> None:
    if service not in state.weights:
        raise InvalidDefinition(f"There is no service {service!r}. There are: {', '.join(sorted(state.weights))}.")
    _known_deployment(service, state)


def _known_deployment(name: str, state: RuntimeState) -> Deployment:
    if name not in state.deployments:
        raise InvalidDefinition(f"There is no deployment {name!r}. There are: {', '.join(sorted(state.deployments))}.")
    return state.deployments[name]
