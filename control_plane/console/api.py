"""The JSON API: what the command line and pipelines use. Everything is under /api/v1."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, HTTPException, Request
from pydantic import BaseModel, Field

from control_plane.console.host import ConsoleHost, DecisionShown
from control_plane.console.security import commander, reader
from control_plane.slo.state import SloState

Reason = Annotated[str, Field(min_length=1, max_length=500)]
"""Why; it is kept in the audit log."""
BY_HAND = "by hand"


class Order(BaseModel):
    kind: Annotated[str, Field(pattern="^(rollback|scale|cutover)$")]
    target: Annotated[str, Field(min_length=1, max_length=100)]
    amount: Annotated[int | None, Field(ge=0, le=1000)] = None
    reason: Reason
    dry_run: bool = False


class Why(BaseModel):
    reason: Reason


class Change(BaseModel):
    service: Annotated[str, Field(min_length=1, max_length=100)]
    version: Annotated[str, Field(min_length=1, max_length=100)]
    reason: Reason = BY_HAND
    dry_run: bool = False


class DrillOrder(BaseModel):
    name: Annotated[str, Field(min_length=1, max_length=40)]
    service: Annotated[str | None, Field(max_length=100)] = None
    reason: Reason = BY_HAND
    dry_run: bool = False


class PasswordOrder(BaseModel):
    username: Annotated[str, Field(min_length=1, max_length=100)] = "admin"
    only_if_missing: bool = False
    reason: Reason = BY_HAND
    dry_run: bool = False


def slo_json(state: SloState) -> dict[str, Any]:
    """One SLO in the shape that DESIGN fixes for `slo status`, with what else a program may want."""
    sli = state.sli
    return {
        "name": state.name,
        "service": state.service,
        "kind": state.kind.value,
        "target": state.target,
        "verdict": state.verdict.value,
        "reason": state.reason,
        "sli": None if sli is None else {"lower": sli.lower, "estimate": sli.estimate, "upper": sli.upper},
        "sli_without_exclusions": None
        if (without := state.sli_without_exclusions) is None
        else {"lower": without.lower, "estimate": without.estimate, "upper": without.upper},
        "budget_remaining_ratio": state.budget_remaining_ratio,
        "coverage_ratio": state.coverage_ratio,
        "measured_ratio": state.measured_ratio,
        "burn_rates": dict(state.burn_rates),
        "events": None if state.events is None else {"total": state.events.total, "bad": state.events.bad},
        "last_sample_at": state.last_sample_at.isoformat() if state.last_sample_at else None,
        "as_of": state.as_of.isoformat(),
    }


def decision_json(item: DecisionShown) -> dict[str, Any]:
    """A stored decision in the shape of `decisions list`, with its sentence and guards."""
    return {
        "id": item.id,
        "at": item.at.isoformat(),
        "service": item.service,
        "action": item.action,
        "target": item.target,
        "reason": item.reason,
        "state": item.state,
        "sentence": item.sentence,
        "guards": [{"name": g.name, "passed": g.passed, "detail": g.detail} for g in item.guards],
    }


def router(host: ConsoleHost) -> APIRouter:
    """Every route of the API."""
    routes = APIRouter(prefix="/api/v1")

    @routes.get("/status")
    async def status(request: Request) -> dict[str, Any]:
        await reader(request, host)
        situation = host.situation()
        if situation is None:
            return {"ready": False, "as_of": None}
        runtime = situation.runtime
        return {
            "ready": True,
            "as_of": situation.at.isoformat(),
            "automatic": situation.automatic,
            "frozen": situation.frozen,
            "drill": situation.drill,
            "sources": [{"name": s.name, "ok": s.ok, "detail": s.detail} for s in situation.sources],
            "plans": [
                {"saga_id": p.saga_id, "kind": p.kind, "target": p.target, "step": p.step} for p in situation.plans
            ],
            "services": {
                name: {
                    "ready": d.ready,
                    "desired": d.desired,
                    "weights": {"service": w.service, "monolith": w.monolith}
                    if (w := runtime.weights.get(name))
                    else None,
                    "requests_per_second": situation.request_rates.get(name),
                }
                for name, d in runtime.deployments.items()
            }
            if runtime
            else None,
        }

    @routes.get("/slos")
    async def slos(request: Request) -> dict[str, Any]:
        await reader(request, host)
        situation = host.situation()
        return {"slos": [slo_json(state) for state in situation.states] if situation else []}

    @routes.get("/decisions")
    async def decisions(request: Request, limit: int = 50, service: str | None = None) -> dict[str, Any]:
        await reader(request, host)
        found = await host.decisions(max(1, min(limit, 1000)), service)
        return {"decisions": [decision_json(item) for item in found]}

    @routes.get("/decisions/{decision_id}")
    async def decision(request: Request, decision_id: str) -> dict[str, Any]:
        await reader(request, host)
        item = await host.decision(decision_id)
        if item is None:
            raise HTTPException(404, f"No decision has the id {decision_id}.")
        return {**decision_json(item), "evidence": dict(item.evidence)}

    @routes.get("/decisions/{decision_id}/replay")
    async def replay(request: Request, decision_id: str) -> dict[str, Any]:
        await reader(request, host)
        return _found(await host.commands.replay(decision_id), f"No decision has the id {decision_id}.")

    @routes.post("/plans", status_code=202)
    async def order(request: Request, order: Order) -> dict[str, Any]:
        by = commander(request, host)
        return await host.commands.order(
            order.kind, order.target, order.amount, reason=order.reason, by=by, dry_run=order.dry_run
        )

    @routes.get("/plans/{saga_id}")
    async def progress(request: Request, saga_id: str) -> dict[str, Any]:
        await reader(request, host)
        return _found(await host.commands.progress(saga_id), f"No plan has the id {saga_id}.")

    @routes.post("/freeze")
    async def freeze(request: Request, why: Why) -> dict[str, Any]:
        return await host.commands.freeze(reason=why.reason, by=commander(request, host))

    @routes.post("/thaw")
    async def thaw(request: Request, why: Why) -> dict[str, Any]:
        return await host.commands.thaw(reason=why.reason, by=commander(request, host))

    @routes.post("/deploys", status_code=201)
    async def deploys(request: Request, change: Change) -> dict[str, Any]:
        by = commander(request, host)
        return await host.commands.record_change(
            change.service, change.version, reason=change.reason, by=by, dry_run=change.dry_run
        )

    @routes.post("/drills", status_code=202)
    async def start_drill(request: Request, order: DrillOrder) -> dict[str, Any]:
        by = commander(request, host)
        return await host.commands.start_drill(
            order.name, order.service, reason=order.reason, by=by, dry_run=order.dry_run
        )

    @routes.get("/drills/{drill_id}")
    async def drill(request: Request, drill_id: str) -> dict[str, Any]:
        await reader(request, host)
        return _found(await host.commands.drill(drill_id), f"No drill has the id {drill_id}.")

    @routes.post("/admin/password")
    async def password(request: Request, order: PasswordOrder) -> dict[str, Any]:
        by = commander(request, host)
        if order.dry_run or (order.only_if_missing and await host.accounts.exists(order.username)):
            return {"username": order.username, "password": None}
        return await host.commands.new_password(order.username, reason=order.reason, by=by)

    return routes


def _found(answer: dict[str, Any] | None, otherwise: str) -> dict[str, Any]:
    if answer is None:
        raise HTTPException(404, otherwise)
    return answer
