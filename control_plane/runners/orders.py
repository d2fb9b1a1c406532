"""What people order by hand: plans, the kill switch, word of a deploy. The same sagas as automatic action."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Mapping
from typing import Any

from control_plane.actions.capacity import Demand
from control_plane.actions.journal import saga_json
from control_plane.actions.planning import ALL_SERVICES, cutover_plan, rollback_plan, scale_plan
from control_plane.actions.plans import Plan, PlanPolicy, canonical_json
from control_plane.clock import Clock
from control_plane.console.host import Accounts
from control_plane.decisions import codec
from control_plane.errors import BackstayError, InvalidDefinition
from control_plane.ports import AuditLog, Change, Changes, DecisionStore, Runtime, Switches
from control_plane.runners.drills import DrillRunner
from control_plane.runners.sagas import SagaRunner
from control_plane.topology import SERVICES

log = logging.getLogger(__name__)


class Orders:
    """Everything that a person may order, each audited before it takes effect."""

    def __init__(
        self,
        *,
        runtime: Runtime,
        sagas: SagaRunner,
        demand: Callable[[], Mapping[str, Demand]],
        drills: DrillRunner,
        decisions: DecisionStore,
        changes: Changes,
        switches: Switches,
        audit: AuditLog,
        accounts: Accounts,
        plan_policy: PlanPolicy,
        clock: Clock,
    ) -> None:
        """`demand` is what each service needs, as it was before any breach that goes on."""
        self._runtime = runtime
        self._sagas = sagas
        self._demand = demand
        self._drills = drills
        self._decisions = decisions
        self._changes = changes
        self._switches = switches
        self._audit = audit
        self._accounts = accounts
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
        state, demand = await self._runtime.state(), self._demand()
        moving = self._sagas.moving()
        if kind == "rollback":
            if target != ALL_SERVICES:
                _known(target)
            return rollback_plan(target, state, demand, self._plan_policy, also_moving=moving)
        if amount is None:
            raise InvalidDefinition(f"A {kind} needs a number: replicas for scale, percent for cutover.")
        if kind == "scale":
            return scale_plan(target, amount, state, demand, self._plan_policy)
        if kind != "cutover":
            raise InvalidDefinition(f"There is no order {kind!r}. There are: rollback, scale, cutover.")
        _known(target)
        return cutover_plan(target, amount, state, demand, self._plan_policy, also_moving=moving)

    async def progress(self, saga_id: str) -> dict[str, Any] | None:
        saga = await self._sagas.saga(saga_id)
        return None if saga is None else saga_json(saga)

    async def freeze(self, *, reason: str, by: str) -> dict[str, Any]:
        """What runs is stopped whether or not that can be written down: this is the switch for bad days."""
        try:
            await self._audit.record(by, "freeze", ALL_SERVICES, {"reason": reason})
        except BackstayError as error:
            log.error("not in the audit log: freeze by %s: %s", by, error)
        try:
            await self._switches.freeze(reason=reason, by=by, at=self._clock())
        finally:
            self._sagas.stop_all(f"frozen by {by}: {reason}")
        return {"frozen": reason}

    async def thaw(self, *, reason: str, by: str) -> dict[str, Any]:
        await self._audit.record(by, "thaw", ALL_SERVICES, {"reason": reason})
        await self._switches.thaw()
        return {"frozen": None}

    async def record_change(self, service: str, version: str, *, reason: str, by: str, dry_run: bool) -> dict[str, Any]:
        _known(service)
        change = Change(self._clock(), service, "deploy", version, by, {"reason": reason})
        if not dry_run:
            await self._audit.record(by, "record deploy", service, {"version": version, "reason": reason})
            await self._changes.record(change)
        return {"service": service, "version": version, "at": change.at.isoformat()}

    async def new_password(self, username: str, *, reason: str, by: str) -> dict[str, Any]:
        await self._audit.record(by, "new password", username, {"reason": reason})
        return {"username": username, "password": await self._accounts.new_password(username)}

    async def start_drill(
        self, name: str, service: str | None, *, reason: str, by: str, dry_run: bool
    ) -> dict[str, Any]:
        return await self._drills.begin(name, service, reason=reason, by=by, dry_run=dry_run)

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


def _known(service: str) -> None:
    if service not in SERVICES:
        raise InvalidDefinition(f"There is no service {service!r}. There are: {', '.join(SERVICES)}.")
