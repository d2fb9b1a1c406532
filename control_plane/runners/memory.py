"""What was done lately, read from the journal: cooldowns, action budgets and blame survive a restart this way. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from control_plane.actions.journal import Saga, SagaState, progress_of
from control_plane.actions.plans import Plan, PlanKind
from control_plane.actions.steps import Grow, Shift, Shrink
from control_plane.decisions import evidence
from control_plane.decisions.evidence import ActiveSaga, ChangeKind, RecentAction
from control_plane.decisions.reasons import Move
from control_plane.ports import Change

_CHANGE_KINDS = {"deploy": ChangeKind.DEPLOY, "config": ChangeKind.CONFIG}


def move_of(plan: Plan) -> Move | None:
    """Which automatic move a plan carries out; None for one that only people order."""
    if plan.kind is PlanKind.ROLLBACK:
        return Move.FULL_ROLLBACK if plan.target == evidence.ALL_SERVICES else Move.ROLL_BACK
    if plan.kind is PlanKind.SCALE:
        grows = any(isinstance(step, Grow) for step in plan.steps)
        return Move.SCALE_OUT if grows else Move.SCALE_IN
    return None


def recent_actions(sagas: Iterable[Saga]) -> tuple[RecentAction, ...]:
    """Automatic actions of the past, and those that are going on.

    What people ordered uses up no cooldown; it is remembered as a drill is, since it too changes what is measured.
    """
    found = []
    for saga in sagas:
        move = move_of(saga.plan)
        if move is None and saga.plan.kind not in (PlanKind.CUTOVER, PlanKind.RESTORE):
            continue
        progress = progress_of(saga)
        ended = progress.ended.at if progress.ended is not None else None
        free = saga.drill or not saga.automatic
        found.append(RecentAction(saga.began_at, move or Move.ROLL_BACK, saga.plan.target, free, ended))
    return tuple(found)


def active_sagas(sagas: Iterable[Saga]) -> tuple[ActiveSaga, ...]:
    return tuple(
        ActiveSaga(saga.id, saga.plan.kind.value, saga.plan.target, saga.plan.services, _leads_to_monolith(saga.plan))
        for saga in sagas
        if progress_of(saga).state is SagaState.RUNNING
    )


def changes_by_service(changes: Iterable[Change], sagas: Iterable[Saga]) -> Mapping[str, tuple[evidence.Change, ...]]:
    """Deploys that people told of, traffic that plans moved, and replicas that they took away."""
    found: dict[str, list[evidence.Change]] = {}
    for change in changes:
        kind = _CHANGE_KINDS.get(change.kind)
        if kind is not None:
            found.setdefault(change.service, []).append(evidence.Change(change.at, kind, change.version))
    for saga in sagas:
        for index, entry in progress_of(saga).done.items():
            match saga.plan.steps[index]:
                case Shift(service, weights, undo):
                    before, after = undo.service, weights.service
                    kind = ChangeKind.WEIGHTS_FORWARD if after > before else ChangeKind.WEIGHTS_BACK
                    moved = evidence.Change(entry.at, kind, f"{before} -> {after} %", saga.drill)
                    found.setdefault(service, []).append(moved)
                case Shrink(deployment, replicas, was):
                    fewer = evidence.Change(entry.at, ChangeKind.SCALE, f"{was} -> {replicas} replicas", saga.drill)
                    found.setdefault(deployment, []).append(fewer)
    return {service: tuple(sorted(each, key=lambda c: c.at)) for service, each in found.items()}


def _leads_to_monolith(plan: Plan) -> bool:
    return any(isinstance(step, Shift) and step.weights.monolith > step.undo.monolith for step in plan.steps)
