"""Keeps Alertmanager in step with what is known: posts what fires, resolves what does not any more."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.actions.journal import Saga, SagaState, progress_of, step_in_hand
from control_plane.actions.plans import Plan
from control_plane.decisions.evidence import Evidence
from control_plane.decisions.policy import Decision
from control_plane.decisions.reasons import Action
from control_plane.errors import BackstayError
from control_plane.oncall.fast_path_alert import fast_path_alert, resolved
from control_plane.oncall.own_alerts import backstay_blind, rollback_held
from control_plane.ports import Alert, AlertSink
from control_plane.topology import MONOLITH

log = logging.getLogger(__name__)

REPEAT_AFTER = timedelta(seconds=30)
"""A firing alert is posted again this often, long before Alertmanager would take it for resolved."""
PATIENCE = timedelta(seconds=1)
"""Longest wait for Alertmanager in one tick; what it did not take is told in the next."""


def alerts_for(
    evidence: Evidence,
    decisions: Sequence[Decision],
    held: Iterable[Saga],
    console_url: str,
    now: datetime,
    silent: Mapping[str, datetime] | None = None,
) -> tuple[Alert, ...]:
    """Everything that Backstay itself has to tell now. `silent` names sources that do not answer, since when. Pure."""
    next_steps = {decision.service: _next_step(decision) for decision in decisions}
    found: list[Alert] = []
    for service in evidence.services:
        step = next_steps.get(service.service, "")
        found += [
            fast_path_alert(
                service.service, test.slo, test.kind, test.result, console_url=console_url, next_step=step, now=now
            )
            for test in service.fast_paths
            if test.result.fired
        ]
    unknown = {s.service: s.unknown_since for s in evidence.services if s.unknown_since is not None}
    unknown |= silent or {}
    if unknown:
        since = min(unknown.values())
        why = (
            f"{'; '.join(evidence.blind).rstrip('.')}."
            if evidence.blind
            else "Samples are missing, stale or contradictory."
        )
        blind = backstay_blind(sorted(unknown), since, why=why, console_url=console_url, now=now)
        found += [blind] if blind is not None else []
    for saga in held:
        progress = progress_of(saga)
        in_hand = step_in_hand(saga)
        found.append(
            rollback_held(
                saga.plan.target,
                saga.id,
                step=in_hand.name if in_hand else "the end",
                why=progress.outcome,
                console_url=console_url,
                since=progress.last_at,
            )
        )
    return tuple(found)


def _next_step(decision: Decision) -> str:
    """What Backstay does about it, or why it does nothing; the numbers stand in the alert already."""
    if decision.action is Action.HOLD:
        return f"Backstay does nothing now: {decision.reason.sentence}"
    if decision.action is Action.SCALE:
        what = f"scale {decision.target} to {decision.replicas} replicas"
    else:
        all_of_it = "all services" if decision.action is Action.FULL_ROLLBACK else decision.target
        what = f"roll {all_of_it} back to {MONOLITH}"
    if decision.executes:
        return f"Backstay is about to {what}."
    return f"Backstay would {what}, and its policy says: {decision.autonomy.value}."


def held_rollbacks(sagas: Iterable[Saga]) -> tuple[Saga, ...]:
    """Held plans that no newer one overtook, oldest first."""
    standing: list[Saga] = []
    for saga in sorted(sagas, key=lambda each: each.began_at):
        standing = [held for held in standing if not _overtakes(saga.plan, held.plan)]
        if progress_of(saga).state is SagaState.HELD:
            standing.append(saga)
    return tuple(standing)


def _overtakes(newer: Plan, older: Plan) -> bool:
    """Whether it moves the same traffic, or, where the older one moved none, scales the same deployment."""
    if older.services:
        return set(newer.services) >= set(older.services)
    return newer.target == older.target and not newer.services


class Teller:
    """Posts differences only, and repeats what fires. A sink that is down delays nothing and is told later."""

    def __init__(self, sink: AlertSink, patience: timedelta = PATIENCE) -> None:
        self._sink = sink
        self._patience = patience.total_seconds()
        self._since: dict[Key, datetime] = {}  # when each alert began that goes on now, told or not
        self._told: dict[Key, Alert] = {}  # what Alertmanager took last
        self._repeated_at: datetime | None = None
        self.problem: str | None = None

    async def tell(self, alerts: Sequence[Alert], now: datetime, unknown: Collection[str] = ()) -> None:
        """Brings Alertmanager to exactly these alerts. An alert keeps the start that it was first seen with.

        `unknown` names SLOs that cannot be judged now: what was told of them is not over.
        """
        wanted = {_key(alert.labels): alert for alert in alerts}
        for key, alert in self._told.items():
            if key not in wanted and alert.labels.get("slo") in unknown:
                wanted[key] = alert
        self._since = {key: self._since.get(key, alert.starts_at) for key, alert in wanted.items()}
        wanted = {key: replace(alert, starts_at=self._since[key]) for key, alert in wanted.items()}
        gone = [resolved(alert, now) for key, alert in self._told.items() if key not in wanted]
        due = self._repeated_at is None or not timedelta(0) <= now - self._repeated_at < REPEAT_AFTER
        news = [alert for key, alert in wanted.items() if due or key not in self._told]
        if not news and not gone:
            return
        try:
            async with asyncio.timeout(self._patience):
                await self._sink.send([*news, *gone])
        except (BackstayError, TimeoutError) as error:
            problem = str(error) or f"Alertmanager did not answer within {self._patience:g} s."
            if self.problem is None:
                log.warning("Alertmanager was not told: %s", problem)
            self.problem = problem
            return
        self.problem = None
        self._told = wanted
        if due:
            self._repeated_at = now


Key = frozenset[tuple[str, str]]
"""Labels: what Alertmanager knows an alert by."""


def _key(labels: Mapping[str, str]) -> Key:
    return frozenset(labels.items())
