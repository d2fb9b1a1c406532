"""The page that Backstay sends itself, seconds after the first failure, before any burn-rate rule can know."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from control_plane.decisions.phrases import percent
from control_plane.decisions.statistics import FastPathResult
from control_plane.ports import Alert
from control_plane.slo.alert_names import alert_name
from control_plane.slo.state import Kind

TIER = "fast_path"
"""The fastest tier: it inhibits the burn-rate tiers of the same SLO, from which its labels differ only in `tier`."""

_HAPPENED = {
    Kind.ERRORS: ("fail", "failed"),
    Kind.LATENCY: ("are slow", "were slow"),
    Kind.AVAILABILITY: ("are not served", "were not served"),
    Kind.THROUGHPUT: ("are not served", "were not served"),
}


def fast_path_alert(
    service: str, slo_name: str, kind: Kind, found: FastPathResult, *, console_url: str, next_step: str, now: datetime
) -> Alert:
    """The alert for a fast-path test that fired.

    `next_step` is one sentence: what Backstay does about it, or what it waits for. `console_url` is how people reach
    the console; the runbook and the evidence lie behind it.
    """
    fail, failed = _HAPPENED[kind]
    name = alert_name(slo_name)
    return Alert(
        labels={
            "alertname": name,
            "service": service,
            "slo": slo_name,
            "severity": "page",
            "tier": TIER,
        },
        annotations={
            "summary": f"{service}: {percent(found.share)} of requests {fail}",
            "description": f"{_sentence(found.sentence(failed))} {_sentence(next_step)}".strip(),
            "runbook_url": f"{console_url.rstrip('/')}/runbooks/{name}",
            "dashboard_url": f"{console_url.rstrip('/')}/slos",
        },
        starts_at=now,
    )


def resolved(alert: Alert, at: datetime) -> Alert:
    """The same alert, over. Its labels stay what they were: they are what Alertmanager knows it by."""
    return replace(alert, ends_at=at)


def _sentence(text: str) -> str:
    text = text.strip()
    return text if not text or text.endswith((".", "?")) else f"{text}."
