"""On the wire, and on the real Alertmanager with the configuration that `make up` runs."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.adapters.alertmanager import AlertmanagerAlerts
from control_plane.errors import ActuationRefused, SourceUnavailable
from control_plane.local import tools
from control_plane.local.relocation import ALERTMANAGER_DATA, runnable
from control_plane.ports import ActiveAlert, Alert
from control_plane.settings import REPOSITORY
from tests.adapters.trace_store.serving import free_port

CONFIG = REPOSITORY / "alerts" / "alertmanager.yml"
NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)


def an_alert(tier: str = "fast_path", **changes: Any) -> Alert:
    values: dict[str, Any] = {
        "labels": {
            "alertname": "IdentityErrors",
            "service": "identity-service",
            "slo": "identity-service-errors",
            "severity": "ticket" if tier.startswith("ticket") else "page",
            "tier": tier,
        },
        "annotations": {"summary": "20 % fail", "runbook_url": "http://console/runbooks/IdentityErrors"},
        "starts_at": NOON,
        **changes,
    }
    return Alert(**values)


def over_a_wire(answer: Callable[[httpx.Request], httpx.Response]) -> AlertmanagerAlerts:
    client = httpx.AsyncClient(transport=httpx.MockTransport(answer), base_url="http://alertmanager")
    return AlertmanagerAlerts(client)


async def test_an_alert_is_posted_with_its_times_and_no_end_while_it_fires() -> None:
    asked: list[httpx.Request] = []

    def answer(request: httpx.Request) -> httpx.Response:
        asked.append(request)
        return httpx.Response(200)

    await over_a_wire(answer).send([an_alert(), an_alert(ends_at=NOON + timedelta(minutes=1))])
    firing, over = json.loads(asked[0].content)
    assert (asked[0].method, asked[0].url.path) == ("POST", "/api/v2/alerts")
    assert firing["startsAt"] == "2026-11-24T12:00:00+00:00"
    assert "endsAt" not in firing
    assert over["endsAt"] == "2026-11-24T12:01:00+00:00"
    assert firing["labels"]["tier"] == "fast_path"


async def test_nothing_is_asked_when_there_is_nothing_to_send() -> None:
    def answer(request: httpx.Request) -> httpx.Response:
        raise AssertionError("nothing should be asked")

    await over_a_wire(answer).send([])


async def test_alerts_that_alertmanager_refuses_are_an_error_of_ours() -> None:
    with pytest.raises(ActuationRefused, match="bad label"):
        await over_a_wire(lambda _: httpx.Response(400, text="bad label")).send([an_alert()])


@pytest.mark.parametrize(
    "reply", [httpx.Response(503, text="starting"), httpx.Response(200, text="<html>"), httpx.Response(200, json=[{}])]
)
async def test_an_answer_that_is_none_is_unavailable(reply: httpx.Response) -> None:
    with pytest.raises(SourceUnavailable):
        await over_a_wire(lambda _: reply).active()


async def test_an_alertmanager_that_is_down_is_unavailable() -> None:
    def refuse(request: httpx.Request) -> httpx.Response:
        raise httpx.ConnectError("connection refused", request=request)

    with pytest.raises(SourceUnavailable, match="connection refused"):
        await over_a_wire(refuse).send([an_alert()])


@pytest.mark.stack
def test_the_configuration_passes_amtool() -> None:
    checked = subprocess.run(
        [tools.find("amtool"), "check-config", CONFIG], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr


@pytest.mark.stack
@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        (["severity=page", "alertname=IdentityErrors", "tier=fast_path"], "on-call"),
        (["severity=ticket", "alertname=IdentityErrors", "tier=ticket_slow"], "tickets"),
        (["severity=page", "alertname=BackstayBlind"], "on-call"),
        (["alertname=Watchdog", "severity=none"], "watchdog"),
        (["alertname=SomethingElse"], "tickets"),
    ],
)
def test_alerts_go_to_the_receiver_of_their_severity(labels: list[str], receiver: str) -> None:
    command = [str(tools.find("amtool")), "config", "routes", "test", f"--config.file={CONFIG}", *labels]
    routed = subprocess.run(command, capture_output=True, text=True, check=True)
    assert routed.stdout.strip() == receiver


@pytest.fixture(scope="module")
def alertmanager_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    port = free_port()
    alertmanager = runnable(tools.find("alertmanager"), ALERTMANAGER_DATA)
    folder: Path = tmp_path_factory.mktemp("alertmanager")
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                alertmanager.program,
                f"--config.file={CONFIG}",
                f"--storage.path={folder}",
                f"--web.listen-address=127.0.0.1:{port}",
                "--cluster.listen-address=",
            ],
            cwd=alertmanager.folder,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
        )
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(timeout=10)


@pytest.fixture
async def alerts(alertmanager_url: str) -> AsyncIterator[AlertmanagerAlerts]:
    async with httpx.AsyncClient(base_url=alertmanager_url, timeout=5) as client:
        source = AlertmanagerAlerts(client)
        for _ in range(100):
            try:
                await source.active()
                break
            except SourceUnavailable:
                await asyncio.sleep(0.1)
        yield source


async def seen(source: AlertmanagerAlerts, service: str, count: int) -> dict[str, ActiveAlert]:
    """Alerts of one service by tier, once there are `count` of them."""
    for _ in range(100):
        found = {a.labels["tier"]: a for a in await source.active() if a.labels["service"] == service}
        if len(found) == count:
            return found
        await asyncio.sleep(0.1)
    raise AssertionError(f"Alertmanager holds {sorted(found)} of {service}, not {count}")


def of(service: str, tier: str, **changes: Any) -> Alert:
    alert = an_alert(tier)
    return an_alert(tier, labels={**alert.labels, "service": service}, **{"starts_at": datetime.now(UTC), **changes})


@pytest.mark.stack
async def test_a_posted_alert_is_seen_with_all_it_carries_and_pages_on_call(alerts: AlertmanagerAlerts) -> None:
    await alerts.send([of("posted", "fast_path")])
    alert = (await seen(alerts, "posted", 1))["fast_path"]
    assert alert.annotations == an_alert().annotations
    assert alert.receivers == ("on-call",)
    assert alert.notifies


@pytest.mark.stack
async def test_the_fastest_tier_hides_all_slower_ones_of_the_same_slo(alerts: AlertmanagerAlerts) -> None:
    tiers = ["fast_path", "page_fast", "page_slow", "ticket_fast", "ticket_slow"]
    await alerts.send([of("tiers", tier) for tier in tiers])
    await alerts.send([of("other", "ticket_slow")])
    by_tier = await seen(alerts, "tiers", 5)
    for _ in range(50):
        if [tier for tier in tiers if by_tier[tier].notifies] == ["fast_path"]:
            break
        await asyncio.sleep(0.1)
        by_tier = await seen(alerts, "tiers", 5)
    assert [tier for tier in tiers if by_tier[tier].notifies] == ["fast_path"]
    assert by_tier["fast_path"].fingerprint in by_tier["ticket_slow"].inhibited_by
    assert (await seen(alerts, "other", 1))["ticket_slow"].notifies


@pytest.mark.stack
async def test_an_alert_that_ended_is_gone(alerts: AlertmanagerAlerts) -> None:
    await alerts.send([of("ended", "fast_path")])
    await seen(alerts, "ended", 1)
    now = datetime.now(UTC)
    await alerts.send([of("ended", "fast_path", starts_at=now - timedelta(seconds=5), ends_at=now)])
    assert await seen(alerts, "ended", 0) == {}
