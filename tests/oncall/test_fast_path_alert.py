from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from control_plane.decisions.statistics import FastPathResult, Outcome
from control_plane.oncall.fast_path_alert import fast_path_alert, resolved
from control_plane.oncall.own_alerts import backstay_blind, rollback_held
from control_plane.ports import Alert
from control_plane.slo.alert_names import alert_name
from control_plane.slo.state import Kind

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
FOUND = FastPathResult(Outcome.FIRED, 0.005, window_seconds=10, total=200, bad=41, p_value=1e-30, bad_scrapes=10)


def an_alert(**changes: object) -> Alert:
    values: dict[str, object] = {
        "service": "ai-gateway-service",
        "slo_name": "ai-gateway-service-errors",
        "kind": Kind.ERRORS,
        "found": FOUND,
        "console_url": "http://127.0.0.1:7010/",
        "next_step": "Backstay rolls it back",
        "now": NOON,
        **changes,
    }
    return fast_path_alert(**values)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("slo", "name"),
    [
        ("identity-service-errors", "IdentityErrors"),
        ("ai-gateway-service-latency", "AiGatewayLatency"),
        ("ai-gateway-service-first-token", "AiGatewayFirstToken"),
        ("checkout-availability", "CheckoutAvailability"),
    ],
)
def test_all_alerts_of_an_slo_share_one_name(slo: str, name: str) -> None:
    assert alert_name(slo) == name


def test_the_alert_carries_what_alertmanager_groups_and_inhibits_by() -> None:
    assert an_alert().labels == {
        "alertname": "AiGatewayErrors",
        "service": "ai-gateway-service",
        "slo": "ai-gateway-service-errors",
        "severity": "page",
        "tier": "fast_path",
    }


def test_the_alert_says_what_happens_with_its_numbers_and_what_is_done() -> None:
    annotations = an_alert().annotations
    assert annotations["summary"] == "ai-gateway-service: 20 % of requests fail"
    assert "41 of 200 requests failed in the last 10 s" in annotations["description"]
    assert annotations["description"].endswith("Backstay rolls it back.")
    assert annotations["runbook_url"] == "http://127.0.0.1:7010/runbooks/AiGatewayErrors"


def test_slow_requests_are_said_to_be_slow() -> None:
    annotations = an_alert(slo_name="ai-gateway-service-latency", kind=Kind.LATENCY).annotations
    assert "are slow" in annotations["summary"]
    assert "were slow" in annotations["description"]


def test_an_alert_that_is_over_keeps_its_labels() -> None:
    alert = an_alert()
    over = resolved(alert, NOON + timedelta(minutes=2))
    assert (over.labels, over.ends_at) == (alert.labels, NOON + timedelta(minutes=2))


def test_missing_data_pages_after_a_minute_and_not_before() -> None:
    def blind_for(seconds: int) -> Alert | None:
        since = NOON - timedelta(seconds=seconds)
        return backstay_blind(["Prometheus"], since, why="It is down.", console_url="http://c", now=NOON)

    assert blind_for(60) is None
    alert = blind_for(90)
    assert alert is not None
    assert alert.labels["alertname"] == "BackstayBlind"
    assert "Prometheus for 90 s" in alert.annotations["summary"]


def test_nothing_unknown_is_no_alert() -> None:
    assert backstay_blind([], NOON - timedelta(hours=1), why="", console_url="http://c", now=NOON) is None


def test_a_plan_that_stopped_names_its_step_and_its_runbook() -> None:
    alert = rollback_held(
        "file-service", "s1", step="smoke test", why="The monolith failed it.", console_url="http://c", since=NOON
    )
    assert "smoke test" in alert.annotations["summary"]
    assert alert.annotations["runbook_url"] == "http://c/runbooks/RollbackHeld"
