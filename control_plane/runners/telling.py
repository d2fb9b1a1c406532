"""Keeps Alertmanager in step with what is known: posts what fires, resolves what does not any more."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from control_plane.actions.journal import Saga, SagaState, progress_of, step_in_hand
from control_plane.decisions.evidence import Evidence
from control_plane.decisions.policy import Decision
from control_plane.errors import BackstayError
from control_plane.oncall.fast_path_alert import fast_path_alert, resolved
from control_plane.oncall.own_alerts import backstay_blind, rollback_held
from control_plane.ports import Alert, AlertSink

log = logging.getLogger(__name__)

REPEAT_AFTER = timedelta(seconds=30)
"""A firing alert is posted again this often, long before Alertmanager would take it for resolved."""


def alerts_for(
    evidence: Evidence, decisions: Sequence[Decision], held: Iterable[Saga], console_url: str, now: datetime
) -> tuple[Alert, ...]:
    """Everything that Backstay itself has to tell now. Pure."""
    next_steps = {decision.service: decision.sentence for decision in decisions}
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
    if unknown:
        since = min(unknown.values())
        why = f"{'; '.join(evidence.blind)}." if evidence.blind else "Samples are missing, stale or contradictory."
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


def held_rollbacks(sagas: Iterable[Saga]) -> tuple[Saga, ...]:
    """Of each target the newest plan, where that is a held one: an older one was overtaken."""
    newest: dict[str, Saga] = {}
    for saga in sorted(sagas, key=lambda each: each.began_at):
        newest[saga.plan.target] = saga
    return tuple(saga for saga in newest.values() if progress_of(saga).state is SagaState.HELD)


class Teller:
    """Posts differences only, and repeats what fires. A sink that is down delays nothing and is told later."""

    def __init__(self, sink: AlertSink) -> None:
        self._sink = sink
        self._firing: dict[frozenset[tuple[str, str]], Alert] = {}
        self._posted_at: datetime | None = None
        self.problem: str | None = None

    async def tell(self, alerts: Sequence[Alert], now: datetime) -> None:
        """Brings Alertmanager to exactly these alerts. An alert keeps the start of its first telling."""
        wanted: dict[frozenset[tuple[str, str]], Alert] = {}
        for alert in alerts:
            key = _key(alert.labels)
            known = self._firing.get(key)
            wanted[key] = alert if known is None else replace(alert, starts_at=known.starts_at)
        gone = [resolved(alert, now) for key, alert in self._firing.items() if key not in wanted]
        due = self._posted_at is None or now - self._posted_at >= REPEAT_AFTER
        news = [alert for key, alert in wanted.items() if due or key not in self._firing]
        if not news and not gone:
            return
        try:
            await self._sink.send([*news, *gone])
        except BackstayError as error:
            if self.problem is None:
                log.warning("Alertmanager was not told: %s", error)
            self.problem = str(error)
            return
        self.problem = None
        self._firing = wanted
        if due:
            self._posted_at = now


def _key(labels: Mapping[str, str]) -> frozenset[tuple[str, str]]:
    return frozenset(labels.items())
