"""Alerts about Backstay itself: it cannot see, or it holds a rollback that needs a person."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timedelta

from control_plane.decisions.phrases import length, listed
from control_plane.ports import Alert

BLIND = "BackstayBlind"
HELD = "RollbackHeld"
WATCHDOG = "Watchdog"
OWN_ALERTS = (BLIND, HELD, WATCHDOG)

PAGE_WHEN_BLIND_FOR = timedelta(seconds=60)
"""How long data may be missing before a person is told."""


def backstay_blind(what: Sequence[str], since: datetime, *, why: str, console_url: str, now: datetime) -> Alert | None:
    """Data of these services or sources is unknown; None until it has been so for a minute."""
    blind_for = now - since
    if not what or blind_for <= PAGE_WHEN_BLIND_FOR:
        return None
    return Alert(
        labels={"alertname": BLIND, "service": "backstay", "severity": "page"},
        annotations={
            "summary": f"No trustworthy data for {listed(sorted(what))} for {length(blind_for)}",
            "description": f"{why} Until it is back Backstay takes no action there, and says nothing is well.",
            "runbook_url": f"{console_url.rstrip('/')}/runbooks/{BLIND}",
            "dashboard_url": console_url,
        },
        starts_at=since,
    )


def rollback_held(service: str, saga_id: str, *, step: str, why: str, console_url: str, since: datetime) -> Alert:
    """A plan for `service` stopped at `step` and will not go on by itself."""
    return Alert(
        labels={"alertname": HELD, "service": service, "severity": "page", "saga": saga_id},
        annotations={
            "summary": f"{service}: the plan stopped at {step!r} and needs a person",
            "description": f"{why} Traffic stays where it is until somebody decides.",
            "runbook_url": f"{console_url.rstrip('/')}/runbooks/{HELD}",
            "dashboard_url": f"{console_url.rstrip('/')}/decisions",
        },
        starts_at=since,
    )
