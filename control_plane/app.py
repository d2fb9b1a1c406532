"""Composition root: builds every adapter once, joins them, and closes them on the way out."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

import httpx
from fastapi import FastAPI

from control_plane.actions.plans import PlanPolicy
from control_plane.adapters.alertmanager import AlertmanagerAlerts
from control_plane.adapters.database.database import Database, open_database
from control_plane.adapters.drill_ground import LocalDrillGround
from control_plane.adapters.jaeger import JaegerTraces
from control_plane.adapters.journeys import LoadJourneys
from control_plane.adapters.local_runtime import LocalRuntime, local_client
from control_plane.adapters.prometheus import PrometheusEvents
from control_plane.adapters.runbook_files import load_runbooks
from control_plane.adapters.slo_files import read_texts
from control_plane.clock import Clock, monotonic, utc_now
from control_plane.console.web import build_console
from control_plane.decisions.evidence import Drill, Evidence
from control_plane.decisions.guards import ActionMemory, allowance, stopped_by
from control_plane.decisions.policy_file import load_policy
from control_plane.decisions.reasons import Action, Autonomy, Move
from control_plane.decisions.terms import Policy
from control_plane.errors import BackstayError, InvalidDefinition
from control_plane.local.layout import Layout
from control_plane.oncall.runbooks import RunbookFacts, slo_alert
from control_plane.runners.drills import DrillRunner
from control_plane.runners.host import Bulletin, RunningHost
from control_plane.runners.metrics import Metrics
from control_plane.runners.orders import Orders
from control_plane.runners.sagas import EventKind, SagaEvent, SagaRunner
from control_plane.runners.samples import ObjectiveSamples, provider_seconds
from control_plane.runners.telling import Teller
from control_plane.runners.tick import LEDGER, Ticker, TickStores
from control_plane.settings import Settings
from control_plane.slo import loading
from control_plane.slo.engine import SloEngine
from control_plane.slo.snapshot import UnreadableSnapshot
from control_plane.slo.spec import Catalogue

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """Everything that runs: the console to serve, and the loop to keep turning."""

    console: FastAPI
    ticker: Ticker


@asynccontextmanager
async def running(settings: Settings, clock: Clock = utc_now) -> AsyncIterator[ControlPlane]:
    """The control plane over the local stack. Raises InvalidDefinition for a wrong file before anything is touched."""
    catalogue = loading.load(read_texts([settings.slos_dir]))
    policy = load_policy(_text(settings.policy_file), file=str(settings.policy_file), profile=settings.policy_profile)
    alerts = [slo_alert(slo.name, slo.service, slo.kind, slo.description) for slo in catalogue.slos]
    runbooks = load_runbooks(settings.runbooks_dir, [alert for alert in alerts if alert is not None])
    layout = Layout(settings.port_base, settings.state_dir)
    plan_policy = PlanPolicy(headroom=policy.headroom)
    metrics, bulletin = Metrics(), Bulletin()

    async with AsyncExitStack() as ending:
        database = await ending.enter_async_context(await open_database(settings.database_at, clock))
        cluster = await ending.enter_async_context(local_client(settings.cluster_at, settings.token_file))
        load = await ending.enter_async_context(local_client(settings.load_at, settings.token_file))
        prometheus = await ending.enter_async_context(_client(settings.prometheus_at, settings))
        alertmanager = await ending.enter_async_context(_client(settings.alertmanager_at, settings))
        jaeger = await ending.enter_async_context(_client(settings.jaeger_at, settings))
        events = PrometheusEvents(prometheus, timedelta(seconds=settings.query_timeout_seconds))
        runtime = LocalRuntime(cluster)

        def saga_event(event: SagaEvent) -> None:
            drills.saw_saga(event)
            if event.kind is EventKind.ENDED:
                metrics.sagas.labels(event.saga.plan.kind.value, event.saga.entries[-1].data["state"]).inc()

        sagas = SagaRunner(
            runtime,
            LoadJourneys(load),
            database.sagas,
            database.fences,
            database.audit,
            clock=clock,
            monotonic=monotonic,
            holder=f"{socket.gethostname()}/{os.getpid()}",
            samples=ObjectiveSamples(events, catalogue.slos, clock),
            frozen=database.switches.frozen,
            observer=saga_event,
        )
        ending.push_async_callback(sagas.close)
        ticker = Ticker(
            engine=await _engine(catalogue, database),
            policy=policy,
            plan_policy=plan_policy,
            events=events,
            runtime=runtime,
            stores=TickStores(
                database.decisions,
                database.sagas,
                database.changes,
                database.exclusions,
                database.first_seen,
                database.switches,
                database.snapshots,
            ),
            sagas=sagas,
            teller=Teller(AlertmanagerAlerts(alertmanager)),
            metrics=metrics,
            clock=clock,
            monotonic=monotonic,
            period=timedelta(seconds=settings.tick_seconds),
            console_url=settings.console_at,
            publish=bulletin.publish,
            query_count=lambda: events.queries,
            traces=JaegerTraces(jaeger, timedelta(seconds=settings.trace_timeout_seconds)),
        )

        def announce(drill: Drill | None) -> None:
            ticker.drill = drill

        def evidence() -> Evidence | None:
            return ticker.evidence

        drills = DrillRunner(
            ground=LocalDrillGround(cluster, load, [layout.gateway_access_log, layout.mesh_access_log]),
            runtime=runtime,
            sagas=sagas,
            exclusions=database.exclusions,
            audit=database.audit,
            plan_policy=plan_policy,
            clock=clock,
            evidence=evidence,
            demand=ticker.demand,
            callers=ticker.callers,
            seconds_each=lambda service: provider_seconds(events, service, clock()),
            announce=announce,
            acts=lambda service, action: _acts(policy, service, action),
            spent=lambda service, action, seen: _spent(policy, service, action, seen, clock()),
            monotonic=monotonic,
        )
        ending.push_async_callback(drills.close)
        ticker.watchers.append(drills.saw_tick)
        accounts = database.accounts(timedelta(hours=settings.session_hours))
        orders = Orders(
            runtime=runtime,
            sagas=sagas,
            demand=ticker.demand,
            drills=drills,
            decisions=database.decisions,
            changes=database.changes,
            switches=database.switches,
            audit=database.audit,
            accounts=accounts,
            plan_policy=plan_policy,
            clock=clock,
        )
        host = RunningHost(
            environment="local",
            bulletin=bulletin,
            accounts=accounts,
            commands=orders,
            local_token=settings.token_file.read_text().strip(),
            secure_cookies=settings.console_at.startswith("https://"),
            decisions=database.decisions,
            sagas=database.sagas,
            changes=database.changes,
            exclusions=database.exclusions,
            runbooks=runbooks,
            facts=lambda: _facts(settings),
            metrics=metrics,
            clock=clock,
        )
        await drills.clean_up()
        await sagas.start()
        loop = asyncio.create_task(ticker.run(), name="tick")
        ending.push_async_callback(_cancel, loop)
        yield ControlPlane(build_console(host, monotonic), ticker)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidDefinition(f"{file} cannot be read: {error}.") from error


def _acts(policy: Policy, service: str, action: Action) -> bool:
    """Whether the policy lets Backstay do that to the service by itself."""
    move = _move_of(action)
    allowed = policy.autonomy_of(service, move) is Autonomy.AUTO and move in policy.limits
    return allowed and not (move is Move.ROLL_BACK and service in policy.irreversible)


def _spent(policy: Policy, service: str, action: Action, seen: Evidence, now: datetime) -> str | None:
    """Which cooldown or action budget keeps Backstay from doing that now; None when neither does."""
    memory = None if seen.recent_actions is None else ActionMemory.of(seen.recent_actions)
    stopped = stopped_by(allowance(_move_of(action), service, memory, policy, now))
    return None if stopped is None else f"{stopped.name}: {stopped.detail}"


def _move_of(action: Action) -> Move:
    return Move.SCALE_OUT if action is Action.SCALE else Move.ROLL_BACK


async def _engine(catalogue: Catalogue, database: Database) -> SloEngine:
    """The engine as the last process left it; a new one, to be filled from Prometheus, where that cannot be."""
    try:
        kept = await database.snapshots.load(LEDGER)
        if kept is not None:
            return SloEngine.restore(catalogue.slos, kept[1])
    except (BackstayError, UnreadableSnapshot) as error:
        log.warning("the kept ledger cannot be used and is rebuilt from Prometheus: %s", error)
    return SloEngine(catalogue.slos)


def _client(url: str, settings: Settings) -> httpx.AsyncClient:
    return httpx.AsyncClient(base_url=url, timeout=settings.query_timeout_seconds)


def _facts(settings: Settings) -> RunbookFacts:
    return RunbookFacts(
        console=settings.console_at,
        gateway=settings.gateway_at,
        prometheus=settings.prometheus_at,
        alertmanager=settings.alertmanager_at,
        traces=settings.jaeger_at,
    )


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
