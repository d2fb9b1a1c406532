"""For each kind of step: what must hold before, what it does, and how one sees that it has been done."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from control_plane.actions.capacity import load_on, replicas_for, shortfall
from control_plane.actions.effects import Effect, RunJourneys, SetReplicas, SetWeights
from control_plane.actions.journal import Entry, EntryKind, Progress, Saga, all_passed
from control_plane.actions.observation import Counters, Observation, answers_since, gets_nothing
from control_plane.actions.soundness import requests_needed, ruled_out_by, surely_above, surely_below
from control_plane.actions.steps import (
    AwaitReady,
    Drain,
    Grow,
    ProveMoved,
    Shift,
    Shrink,
    SmokeTest,
    Step,
    Verify,
    Watch,
)
from control_plane.topology import MONOLITH, Backend, RuntimeState, Weights, deployment_of

SMOKE_TRIES = 2
"""Runs of journeys that a step may use up: one failure can be bad luck, two are a finding."""

PROOF_LASTS = timedelta(minutes=5)
"""How long a smoke test or an open gate speaks for a backend; older ones are repeated before traffic moves."""

QUIET_AFTER = timedelta(seconds=5)
"""After this long without enough answers, journeys make the traffic that a proof needs."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Whether a step's postcondition holds, and what was seen."""

    met: bool
    detail: str
    hopeless: bool = False  # waiting longer cannot help


def finding(step: Step, saga: Saga, progress: Progress, seen: Observation, state: RuntimeState) -> Finding:
    """Whether the started step `progress.current` has reached its postcondition."""
    match step:
        case Grow():
            desired = state.deployments[step.deployment].desired if step.deployment in state.deployments else 0
            return Finding(desired >= step.replicas, f"{step.deployment} is to have {desired} replicas")
        case AwaitReady():
            ready = state.deployments[step.deployment].ready if step.deployment in state.deployments else 0
            return Finding(
                ready >= step.replicas, f"{ready} of {step.replicas} replicas of {step.deployment} are ready"
            )
        case SmokeTest():
            return _journeys(progress.tests)
        case Shift():
            return _shifted(step, progress, state)
        case Watch():
            return _watched(step, progress, state)
        case ProveMoved():
            return _moved(step, progress, seen, state)
        case Drain():
            traffic = state.traffic.get(step.service, {}).get(step.left)
            if traffic is None:
                return Finding(False, f"the gateway reports no traffic of {step.service}")
            where = deployment_of(step.service, step.left)
            return Finding(traffic.active == 0, f"{where} has {traffic.active} requests of {step.service} in flight")
        case Verify():
            return _verified(step, saga, progress, seen, state)
        case Shrink():
            desired = state.deployments[step.deployment].desired if step.deployment in state.deployments else 0
            return Finding(desired <= step.replicas, f"{step.deployment} is to have {desired} replicas")


def unmet(step: Step, saga: Saga, progress: Progress, seen: Observation, state: RuntimeState) -> str | None:
    """The condition that forbids the step's effect now; None when it may be made."""
    match step:
        case SmokeTest():
            name = deployment_of(step.service, step.backend)
            deployment = state.deployments.get(name)
            return None if deployment and deployment.ready > 0 else f"{name} has no ready replica"
        case Shift():
            if _smoke_test_of(step, saga) is None:
                return f"the plan holds no smoke test of {step.service} on {deployment_of(step.service, step.gaining)}"
            return may_route(step.service, step.weights, step.gaining, saga, seen, state)
        case Shrink():
            return _still_needed(step, saga, progress, seen, state)
        case _:
            return None


def effect(step: Step, saga: Saga, progress: Progress, seen: Observation) -> Effect | None:
    """What to do to the world for the started step; None when there is nothing but to look."""
    match step:
        case Grow() | Shrink():
            return SetReplicas(step.deployment, step.replicas)
        case SmokeTest():
            if len(progress.tests) >= SMOKE_TRIES:
                return None
            return RunJourneys(step.service, step.backend, step.journeys, step.patience)
        case Shift():
            smoke = _smoke_test_of(step, saga)
            proven = proven_at(step.service, step.gaining, saga, progress)
            if smoke is not None and (proven is None or seen.at - proven > PROOF_LASTS):
                return RunJourneys(step.service, step.gaining, smoke.journeys, smoke.patience)
            return SetWeights(step.service, step.weights)
        case ProveMoved():
            quiet = seen.elapsed >= QUIET_AFTER and len(progress.tests) < SMOKE_TRIES
            return RunJourneys(step.service, None, step.journeys, QUIET_AFTER * 3) if quiet else None
        case Verify():
            if len(progress.tests) >= SMOKE_TRIES or any(map(all_passed, progress.tests)):
                return None
            return RunJourneys(step.service, None, step.journeys, step.patience)
        case AwaitReady() | Watch() | Drain():
            return None


def service_of(step: Step) -> str | None:
    """The service whose counters an entry about this step keeps."""
    match step:
        case Shift() | Watch() | ProveMoved() | Drain() | Verify():
            return step.service
        case Shrink() if step.deployment != MONOLITH:
            return step.deployment
        case _:
            return None


def sample_window(saga: Saga, progress: Progress) -> tuple[str, datetime] | None:
    """Service and instant since which the current step wants latency samples; None when it wants none."""
    index = progress.current
    if progress.retreat is not None or index not in progress.started:
        return None
    step = saga.plan.steps[index]
    if not isinstance(step, Verify):
        return None
    return step.service, _convergence(step.service, index, saga, progress).at


def may_route(
    service: str, weights: Weights, gaining: Backend, saga: Saga, seen: Observation, state: RuntimeState
) -> str | None:
    """Why the gaining backend cannot take what `weights` would send to it; None when it has ready capacity."""
    after = {**state.weights, service: weights}
    name = deployment_of(service, gaining)
    in_full = seen.others if gaining is Backend.MONOLITH else frozenset[str]()
    return shortfall(name, state, load_on(name, saga.plan.demand, after, in_full - {service}), saga.plan.headroom)


def proven_at(service: str, backend: Backend, saga: Saga, progress: Progress) -> datetime | None:
    """When the backend last proved in this saga that it serves the service: journeys passed, or a gate opened."""
    latest: datetime | None = None
    for entry in saga.entries:
        if entry.step is None:
            continue
        step = saga.plan.steps[entry.step]
        match step:
            case SmokeTest() | Watch() if (step.service, step.backend) == (service, backend):
                pass
            case Shift() if (step.service, step.gaining) == (service, backend):
                pass
            case _:
                continue
        tested = entry.kind is EntryKind.TESTED
        opened = entry.kind is EntryKind.DONE and isinstance(step, Watch) and bool(entry.data.get("met"))
        if tested:
            latest = entry.at if all_passed(entry) else None  # a later failure takes the proof away
        elif opened:
            latest = entry.at
    return latest


def _smoke_test_of(step: Shift, saga: Saga) -> SmokeTest | None:
    for other in saga.plan.steps:
        if isinstance(other, SmokeTest) and (other.service, other.backend) == (step.service, step.gaining):
            return other
    return None


def _journeys(tests: tuple[Entry, ...]) -> Finding:
    if not tests:
        return Finding(False, "no journey has been run yet")
    last = tests[-1]
    sent, passed = last.data["sent"], last.data["passed"]
    if all_passed(last):
        return Finding(True, f"{passed} of {sent} journeys passed")
    failures = "; ".join(last.data.get("failures", [])[:3]) or "none was sent"
    return Finding(False, f"{passed} of {sent} journeys passed: {failures}", hopeless=len(tests) >= SMOKE_TRIES)


def _shifted(step: Shift, progress: Progress, state: RuntimeState) -> Finding:
    now = state.weights.get(step.service)
    shown = f"{now.service}/{now.monolith}" if now else "unknown"
    failed = len(progress.tests) >= SMOKE_TRIES and not all_passed(progress.tests[-1])
    if failed and now != step.weights:
        return _journeys(progress.tests)
    return Finding(now == step.weights, f"weights of {step.service} are {shown} (service/monolith)")


def _watched(step: Watch, progress: Progress, state: RuntimeState) -> Finding:
    base: Counters = progress.started[progress.current].data.get("counters", {})
    mine = answers_since(base, step.service, step.backend, state)
    name = deployment_of(step.service, step.backend)
    if mine is None:
        return Finding(False, f"the gateway reports no traffic of {step.service} on {name}")
    limit = ruled_out_by(step.requests)
    detail = f"{name} answered {mine.total} requests of {step.service}, {mine.bad} of them with errors"
    if mine.total >= step.requests and surely_below(mine.bad, mine.total, limit):
        return Finding(True, detail)
    hopeless = surely_above(mine.bad, mine.total, limit)
    if hopeless and step.against_other:
        other = Backend.SERVICE if step.backend is Backend.MONOLITH else Backend.MONOLITH
        theirs = answers_since(base, step.service, other, state)
        if theirs is not None and theirs.share is not None and mine.share is not None:
            detail += f"; the other backend {theirs.bad} of {theirs.total}"
            hopeless = mine.share >= theirs.share
    return Finding(False, detail, hopeless)


def _moved(step: ProveMoved, progress: Progress, seen: Observation, state: RuntimeState) -> Finding:
    weights = state.weights.get(step.service)
    if weights is None or weights.of(step.to) != 100:
        return Finding(False, f"the weights of {step.service} are not 100 % on {deployment_of(step.service, step.to)}")
    base: Counters = progress.started[progress.current].data.get("counters", {})
    gained = answers_since(base, step.service, step.to, state)
    old = Backend.SERVICE if step.to is Backend.MONOLITH else Backend.MONOLITH
    now = state.traffic.get(step.service, {}).get(old)
    then = seen.earlier.traffic.get(step.service, {}).get(old) if seen.earlier else None
    if gained is None or now is None:
        return Finding(False, f"the gateway reports no traffic of {step.service}")
    to, left = deployment_of(step.service, step.to), deployment_of(step.service, old)
    if gained.total < step.requests:
        return Finding(False, f"{to} answered {gained.total} of {step.requests} requests of {step.service}")
    if then is None or not gets_nothing(then, now):
        return Finding(False, f"{left} is not yet seen to get nothing more of {step.service}")
    return Finding(
        True,
        f"{to} answered {gained.total} requests of {step.service}; {left} gets none, {now.active} are in flight there",
    )


def _convergence(service: str, index: int, saga: Saga, progress: Progress) -> Entry:
    """The entry since which a service's requests went to one place only: its drain, or the start of this step."""
    for earlier in range(index - 1, -1, -1):
        step = saga.plan.steps[earlier]
        seen = progress.done.get(earlier)
        if isinstance(step, Drain) and step.service == service and seen is not None and "counters" in seen.data:
            return seen
    return progress.started[index]


def _verified(step: Verify, saga: Saga, progress: Progress, seen: Observation, state: RuntimeState) -> Finding:
    journeys = _journeys(progress.tests)
    if journeys.hopeless:
        return journeys
    base: Counters = _convergence(step.service, progress.current, saga, progress).data.get("counters", {})
    mine = answers_since(base, step.service, step.backend, state)
    if mine is None:
        return Finding(False, f"the gateway reports no traffic of {step.service}")
    detail = f"{mine.bad} errors in {mine.total} requests"
    if not (mine.total >= step.requests and surely_below(mine.bad, mine.total, step.error_share_below)):
        needed = max(step.requests, requests_needed(mine.bad, step.error_share_below))
        return Finding(False, f"{detail}; {needed} are needed to rule out {step.error_share_below:.2%}")
    if seen.samples_problem:
        return Finding(False, f"{detail}, but latency could not be seen: {seen.samples_problem}")
    if seen.samples is not None:
        total, bad, slow = seen.samples.total, seen.samples.bad, seen.samples.slow
        if not surely_below(bad, total, step.error_share_below):
            return Finding(False, f"users saw {bad} errors in {total} requests")
        if slow is not None:
            detail += f", {slow} of {total} slow"
            if not surely_below(slow, total, step.slow_share_below):
                return Finding(False, f"{detail}; that does not rule out {step.slow_share_below:.0%}")
    if not journeys.met:
        return Finding(False, f"{detail}; {journeys.detail}")
    return Finding(True, f"{detail}; {journeys.detail}")


def _still_needed(step: Shrink, saga: Saga, progress: Progress, seen: Observation, state: RuntimeState) -> str | None:
    """Why a deployment must not shrink now; None when nothing that it serves would suffer."""
    if not step.idle:
        deployment = state.deployments.get(step.deployment)
        if deployment is None:
            return f"there is no deployment {step.deployment}"
        in_full = seen.others if step.deployment == MONOLITH else frozenset[str]()
        needed = replicas_for(
            load_on(step.deployment, saga.plan.demand, state.weights, in_full), deployment, saga.plan.headroom
        )
        if needed > step.replicas:
            return f"{step.deployment} needs {needed} replicas for what it gets"
        return None
    routed = [
        service
        for service, weights in state.weights.items()
        for backend in Backend
        if deployment_of(service, backend) == step.deployment and weights.of(backend) > 0
    ]
    if routed:
        return f"{', '.join(sorted(routed))} is still routed to {step.deployment}"
    if step.deployment == MONOLITH:
        return f"{', '.join(sorted(seen.others))} is being moved to it" if seen.others else None
    now = state.traffic.get(step.deployment, {}).get(Backend.SERVICE)
    base: Counters = _convergence(step.deployment, progress.current, saga, progress).data.get("counters", {})
    before = base.get(Backend.SERVICE.value)
    if now is None or before is None:
        return f"the gateway does not say whether {step.deployment} still gets requests"
    begun_before, begun_now = int(before[0]) + int(before[2]), now.completed + now.active
    restarted = now.completed < int(before[0])
    if begun_now > begun_before and not restarted:
        return f"{step.deployment} still gets requests ({begun_now - begun_before} since it was drained)"
    return None
