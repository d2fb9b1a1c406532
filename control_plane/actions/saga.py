"""A saga as a pure state machine: from its journal and one look at the world to the next thing to do.

Asked again after every entry and every look, by whichever process runs it now. The journal is the only memory, so a
process that dies anywhere leaves nothing that another could not take up.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from control_plane.actions.capacity import load_on, replicas_for
from control_plane.actions.conditions import effect, finding, may_route, service_of, unmet
from control_plane.actions.effects import (
    Effect,
    Lasting,
    SetReplicas,
    SetWeights,
    effect_from_json,
    effect_json,
)
from control_plane.actions.journal import Entry, EntryKind, Progress, Saga, SagaState, started_shifts
from control_plane.actions.observation import Observation, counters_of
from control_plane.actions.steps import Grow, OnFailure, Step, Watch
from control_plane.topology import MONOLITH, Backend, RuntimeState

RETREAT_DEADLINE = timedelta(seconds=30)
"""Longest time to put things back; after that the saga says what is not as it should be."""

MAX_RESUMES = 20
"""Interruptions of one step after which a person should look."""


@dataclass(frozen=True, slots=True)
class Record:
    """Make this entry durable, then ask again."""

    entry: Entry


@dataclass(frozen=True, slots=True)
class Perform:
    """Make this effect, then look and ask again. Doing it twice is the same as doing it once."""

    effect: Effect
    step: int | None  # None during a retreat


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing to do until the world changes; `why` is what is waited for."""

    why: str


@dataclass(frozen=True, slots=True)
class Finished:
    """The saga has ended."""

    state: SagaState
    outcome: str


Move = Record | Perform | Wait | Finished


def next_move(saga: Saga, seen: Observation) -> Move:
    """The next thing to do. Pure; safe to ask any number of times."""
    progress = saga.progress
    if progress.ended is not None:
        return Finished(progress.state, progress.outcome)
    if progress.retreat is not None:
        return _retreat(saga, progress, progress.retreat, seen)
    index = progress.current
    if index == len(saga.plan.steps):
        return _end(seen, SagaState.DONE, _summary(saga, progress))
    step = saga.plan.steps[index]
    if seen.stop is not None:
        return _stop(saga, seen)
    late = seen.elapsed >= step.deadline
    if progress.resumes > MAX_RESUMES:
        return _fail(saga, step, seen, f"{step.name}: interrupted {progress.resumes} times")
    if seen.runtime is None:
        why = f"the runtime does not answer: {seen.problem}"
        return _give_up(saga, progress, step, seen, why) if late else Wait(why)
    if index not in progress.started:
        return Record(Entry(EntryKind.STARTED, seen.at, index, _counters(step, seen.runtime)))
    return _carry_on(saga, progress, step, seen, seen.runtime, late)


def _carry_on(saga: Saga, progress: Progress, step: Step, seen: Observation, state: RuntimeState, late: bool) -> Move:
    index = progress.current
    found = finding(step, saga, progress, seen, state)
    if found.met:
        return Record(Entry(EntryKind.DONE, seen.at, index, _seen(step, state, found.detail, met=True)))
    forbidden = unmet(step, saga, progress, seen, state)
    if found.hopeless or late:
        why = found.detail if forbidden is None else forbidden
        if seen.problem:
            why += f" ({seen.problem})"
        return _give_up(saga, progress, step, seen, why, hopeless=found.hopeless)
    if forbidden is not None:
        return Wait(forbidden)
    wanted = effect(step, saga, progress, seen)
    return Wait(found.detail) if wanted is None else Perform(wanted, index)


def _give_up(
    saga: Saga, progress: Progress, step: Step, seen: Observation, why: str, *, hopeless: bool = False
) -> Record:
    """The step's time is over, or waiting is no use: what that means is written in the step."""
    index = progress.current
    policy = step.on_short if isinstance(step, Watch) and not hopeless else step.on_failure
    if policy is OnFailure.GO_ON:
        if index not in progress.started:
            return Record(Entry(EntryKind.STARTED, seen.at, index))
        return Record(Entry(EntryKind.DONE, seen.at, index, _seen(step, seen.runtime, f"went on: {why}", met=False)))
    seconds = step.deadline.total_seconds()
    return _fail(saga, step, seen, f"{step.name}: {why}" + ("" if hopeless else f" after {seconds:g} s"))


def _fail(saga: Saga, step: Step, seen: Observation, reason: str) -> Record:
    """Stop because a step failed: hold, or put back what is not yet where the plan would leave it."""
    if step.on_failure is not OnFailure.REVERT:
        return _turn_back(seen, reason, SagaState.HELD, ())
    effects: list[Lasting] = []
    moved_for_good = False
    for service, shifts in started_shifts(saga).items():
        last = shifts[-1]
        if last.weights == last.safe:
            moved_for_good = True  # a service of a whole rollback that has arrived stays there
        else:
            effects.append(SetWeights(service, last.undo))
    if not moved_for_good:
        effects += _replicas_back(saga)
    return _turn_back(seen, reason, SagaState.HELD if moved_for_good else SagaState.REVERTED, effects)


def _stop(saga: Saga, seen: Observation) -> Record:
    """Stop because somebody said so: no service stays between two copies."""
    effects: list[Lasting] = []
    for service, shifts in started_shifts(saga).items():
        last = shifts[-1]
        now = seen.runtime.weights.get(service) if seen.runtime else None
        if now not in (last.undo, last.safe):
            effects.append(SetWeights(service, last.safe))
    return _turn_back(seen, f"stopped: {seen.stop}", SagaState.HELD, effects)


def _replicas_back(saga: Saga) -> list[Lasting]:
    started = saga.progress.started
    grown = [saga.plan.steps[index] for index in sorted(started, reverse=True)]
    return [
        SetReplicas(step.deployment, step.was) for step in grown if isinstance(step, Grow) and step.was < step.replicas
    ]


def _turn_back(seen: Observation, reason: str, end: SagaState, effects: tuple[Lasting, ...] | list[Lasting]) -> Record:
    data = {"reason": reason, "end": end.value, "effects": [effect_json(each) for each in effects]}
    return Record(Entry(EntryKind.RETREAT, seen.at, None, data))


def _retreat(saga: Saga, progress: Progress, retreat: Entry, seen: Observation) -> Move:
    """Make what a retreat still lacks, then end. An effect that would do harm is not made."""
    reason, end = str(retreat.data["reason"]), SagaState(retreat.data["end"])
    effects = [effect_from_json(value) for value in retreat.data["effects"]]
    if not effects:
        return _end(seen, end, reason)
    late = seen.elapsed >= RETREAT_DEADLINE or progress.resumes > MAX_RESUMES
    if seen.runtime is None:
        if late:
            return _end(seen, SagaState.HELD, f"{reason}; then the runtime did not answer: {seen.problem}")
        return Wait(f"the runtime does not answer: {seen.problem}")
    lacking = [e for e in effects if not e.holds_in(seen.runtime) and not _is_better_left(e, saga, seen, seen.runtime)]
    harms = [_harm(each, saga, seen, seen.runtime) for each in lacking]
    if lacking and late:
        why = harms[0] or seen.problem or "it was not seen to take effect"
        return _end(seen, SagaState.HELD, f"{reason}; could not {lacking[0].sentence}: {why}")
    for each, harm in zip(lacking, harms, strict=True):
        if harm is None:
            return Perform(each, None)
    if lacking:
        return Wait("; ".join(filter(None, harms)))
    return _end(seen, end, reason)


def _is_better_left(each: Lasting, saga: Saga, seen: Observation, state: RuntimeState) -> bool:
    """Whether replicas that a revert would take away are in use by now, or already gone."""
    if not isinstance(each, SetReplicas):
        return False
    deployment = state.deployments.get(each.deployment)
    if deployment is None or deployment.desired <= each.replicas:
        return True
    in_full = seen.others if each.deployment == MONOLITH else frozenset[str]()
    load = load_on(each.deployment, saga.plan.demand, state.weights, in_full)
    return replicas_for(load, deployment, saga.plan.headroom) > each.replicas


def _harm(each: Lasting, saga: Saga, seen: Observation, state: RuntimeState) -> str | None:
    """Why routing must not be put there: the copy that would gain cannot take it."""
    if not isinstance(each, SetWeights):
        return None
    now = state.weights.get(each.service)
    gaining = Backend.MONOLITH if now is None or each.weights.monolith > now.monolith else Backend.SERVICE
    return may_route(each.service, each.weights, gaining, saga, seen, state)


def _end(seen: Observation, state: SagaState, outcome: str) -> Record:
    return Record(Entry(EntryKind.ENDED, seen.at, None, {"state": state.value, "outcome": outcome}))


def _counters(step: Step, state: RuntimeState) -> dict[str, Any]:
    service = service_of(step)
    return {} if service is None else {"counters": counters_of(service, state)}


def _seen(step: Step, state: RuntimeState | None, detail: str, *, met: bool) -> dict[str, Any]:
    return {"detail": detail, "met": met, **(_counters(step, state) if state else {})}


def _summary(saga: Saga, progress: Progress) -> str:
    if not saga.plan.steps:
        return "Nothing to do: it was so already."
    details = [str(progress.done[index].data.get("detail", "")) for index in range(len(saga.plan.steps))]
    return f"{saga.plan.title}: done; {details[-1]}"
