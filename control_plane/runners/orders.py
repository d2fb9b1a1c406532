"""What people order by hand: plans, the kill switch, word of a deploy. The same sagas as automatic action."""

from __future__ import annotations

import json
from typing import Any

from control_plane.actions.journal import EntryKind, Saga, progress_of
from control_plane.actions.planning import ALL_SERVICES, cutover_plan, rollback_plan, scale_plan
from control_plane.actions.plans import Plan, PlanPolicy, canonical_json
from control_plane.clock import Clock
from control_plane.decisions import codec
from control_plane.errors import InvalidDefinition
from control_plane.ports import AuditLog, Change, Changes, DecisionStore, Runtime, Switches
from control_plane.runners.drills import DrillRunner
from control_plane.runners.sagas import SagaRunner
from control_plane.runners.tick import Ticker
from control_plane.topology import SERVICES


class Orders:
    """Everything that a person may order, each audited before it takes effect."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        sagas: SagaRunner,
        ticker: Ticker,
        drills: DrillRunner,
        decisions: DecisionStore,
        changes: Changes,
        switches: Switches,
        audit: AuditLog,
        plan_policy: PlanPolicy,
        clock: Clock,
    ) -> None:
        self._runtime = runtime
        self._sagas = sagas
        self._ticker = ticker
        self._drills = drills
        self._decisions = decisions
        self._changes = changes
        self._switches = switches
        self._audit = audit
        self._plan_policy = plan_policy
        self._clock = clock

    async def order(
        self, kind: str, target: str, amount: int | None, *, reason: str, by: str, dry_run: bool
    ) -> dict[str, Any]:
        """The plan for an order, and its saga unless this is a dry run."""
        plan = await self._plan(kind, target, amount)
        shown = {"hash": plan.hash, "title": plan.title, "lines": plan.lines()}
        if dry_run:
            return {"plan": shown, "saga_id": None}
        saga_id = await self._sagas.begin(plan, by=by, reason=reason, automatic=False)
        return {"plan": shown, "saga_id": saga_id}

    async def _plan(self, kind: str, target: str, amount: int | None) -> Plan:
        state, demand = await self._runtime.state(), self._ticker.demand()
        moving = self._sagas.moving()
        if kind == "rollback":
            if target != ALL_SERVICES:
                _known(target)
            return rollback_plan(target, state, demand, self._plan_policy, also_moving=moving)
        if amount is None:
            raise InvalidDefinition(f"A {kind} needs a number: replicas for scale, percent for cutover.")
        if kind == "scale":
            return scale_plan(target, amount, state, demand, self._plan_policy)
        _known(target)
        return cutover_plan(target, amount, state, demand, self._plan_policy, also_moving=moving)

    async def progress(self, saga_id: str) -> dict[str, Any] | None:
        saga = await self._sagas.saga(saga_id)
        return None if saga is None else saga_progress(saga)

    async def freeze(self, *, reason: str, by: str) -> dict[str, Any]:
        await self._audit.record(by, "freeze", ALL_SERVICES, {"reason": reason})
        await self._switches.freeze(reason=reason, by=by, at=self._clock())
        self._sagas.stop_all(f"frozen by {by}: {reason}")
        return {"frozen": reason}

    async def thaw(self, *, reason: str, by: str) -> dict[str, Any]:
        await self._audit.record(by, "thaw", ALL_SERVICES, {"reason": reason})
        await self._switches.thaw()
        return {"frozen": None}

    async def record_change(self, service: str, version: str, *, by: str) -> dict[str, Any]:
        _known(service)
        change = Change(self._clock(), service, "deploy", version, by)
        await self._audit.record(by, "record deploy", service, {"version": version})
        await self._changes.record(change)
        return {"service": service, "version": version, "at": change.at.isoformat()}

    async def start_drill(self, name: str, service: str | None, *, by: str, dry_run: bool) -> dict[str, Any]:
        return await self._drills.begin(name, service, by=by, dry_run=dry_run)

    async def drill(self, drill_id: str) -> dict[str, Any] | None:
        return self._drills.progress(drill_id)

    async def replay(self, decision_id: str) -> dict[str, Any] | None:
        """Decides again from what was stored, with the code of today."""
        record = await self._decisions.decision(decision_id)
        if record is None:
            return None
        text = canonical_json({"decision": dict(record.body), **record.evidence})
        again = json.loads(codec.decision_json(codec.replay(text)))
        return {"id": record.id, "identical": codec.replays_alike(text), "stored": dict(record.body), "replayed": again}


def saga_progress(saga: Saga) -> dict[str, Any]:
    """A saga as programs and people follow it."""
    progress = progress_of(saga)
    steps = []
    for index, step in enumerate(saga.plan.steps):
        started, done = progress.started.get(index), progress.done.get(index)
        state = "done" if done else "running" if started else "waiting"
        if progress.ended is not None and done is None:
            state = "stopped here" if started else "not begun"
        steps.append(
            {
                "name": step.name,
                "state": state,
                "started_at": started.at.isoformat() if started else None,
                "ended_at": done.at.isoformat() if done else None,
                "detail": str(done.data.get("detail", "")) if done else None,
            }
        )
    retreat = [entry for entry in saga.entries if entry.kind is EntryKind.RETREAT]
    return {
        "saga_id": saga.id,
        "kind": saga.plan.kind.value,
        "target": saga.plan.target,
        "by": saga.by,
        "reason": saga.reason,
        "state": progress.state.value,
        "outcome": progress.outcome,
        "retreat": str(retreat[-1].data.get("reason", "")) if retreat else None,
        "steps": steps,
    }


def _known(service: str) -> None:
    if service not in SERVICES:
        raise InvalidDefinition(f"There is no service {service!r}. There are: {', '.join(SERVICES)}.")
