"""Pages and API over a control plane held in memory: who gets what, and what hostile text becomes."""

from __future__ import annotations

import httpx
import pytest

from control_plane.console.web import build_console
from control_plane.slo.state import Verdict
from tests.console.console_builders import TOKEN, HostInMemory, a_moment, a_situation, with_state

HOSTILE = '<script>alert(1)</script>" onload="x'
PAGES = ["/", "/slos", "/decisions", f"/decisions/{'d' * 12}", "/runbooks", "/runbooks/AiGatewayErrors"]
READS = ["/api/v1/status", "/api/v1/slos", "/api/v1/decisions", f"/api/v1/decisions/{'d' * 12}", "/api/v1/plans/s1"]
WRITES = [
    ("/api/v1/plans", {"kind": "rollback", "target": "search-service", "reason": "test"}),
    ("/api/v1/freeze", {"reason": "test"}),
    ("/api/v1/thaw", {"reason": "test"}),
    ("/api/v1/deploys", {"service": "search-service", "version": "v1"}),
    ("/api/v1/drills", {"name": "errors"}),
    ("/api/v1/admin/password", {}),
]


def a_browser(host: HostInMemory) -> httpx.AsyncClient:
    return httpx.AsyncClient(transport=httpx.ASGITransport(build_console(host)), base_url="http://console")


async def signed_in(host: HostInMemory) -> httpx.AsyncClient:
    browser = a_browser(host)
    await browser.post("/login", data={"username": "ada", "password": "right"})
    return browser


@pytest.mark.parametrize("path", [*PAGES, "/events"])
async def test_no_page_opens_without_a_login(path: str) -> None:
    answer = await a_browser(HostInMemory(a_situation())).get(path)
    assert answer.status_code == (401 if path == "/events" else 303)
    assert "identity-service" not in answer.text


@pytest.mark.parametrize("path", PAGES)
async def test_every_page_opens_for_a_person_with_a_strict_policy(path: str) -> None:
    answer = await (await signed_in(HostInMemory(a_situation()))).get(path)
    assert answer.status_code == 200
    assert "script-src 'self'" in answer.headers["content-security-policy"]
    assert answer.headers["cache-control"] == "no-store"
    assert " style=" not in answer.text  # the policy would drop it


@pytest.mark.parametrize("path", PAGES)
async def test_empty_states_have_pages_too(path: str) -> None:
    assert (await (await signed_in(HostInMemory(None))).get(path)).status_code == 200


async def test_a_login_leads_back_to_the_page_asked_for() -> None:
    browser = a_browser(HostInMemory(a_situation()))
    first = await browser.get("/slos")
    assert first.headers["location"] == "/login?next=/slos"
    answer = await browser.post("/login", data={"username": "ada", "password": "right", "next": "/slos"})
    assert answer.headers["location"] == "/slos"
    cookie = answer.headers["set-cookie"].lower()
    assert "httponly" in cookie
    assert "samesite=strict" in cookie


async def test_wrong_passwords_are_refused_and_then_slowed_down() -> None:
    browser = a_browser(HostInMemory(a_situation()))
    codes = [
        (await browser.post("/login", data={"username": "ada", "password": "wrong"})).status_code for _ in range(6)
    ]
    assert codes == [401] * 5 + [429]


async def test_signing_out_needs_the_forms_own_token_and_ends_the_session() -> None:
    host = HostInMemory(a_situation())
    browser = await signed_in(host)
    assert (await browser.post("/logout", data={"csrf": "guessed"})).status_code == 403
    (login,) = host.accounts.sessions.values()
    assert (await browser.post("/logout", data={"csrf": login.csrf})).status_code == 303
    assert (await browser.get("/")).status_code == 303


async def test_hostile_text_stays_text_on_every_page() -> None:
    situation = with_state(a_situation(frozen=HOSTILE), verdict=Verdict.PAGE, reason=HOSTILE)
    host = HostInMemory(situation, [a_moment(title=HOSTILE, text=HOSTILE)])
    browser = await signed_in(host)
    for path in PAGES:
        assert "<script>alert(1)" not in (await browser.get(path)).text


async def test_the_stream_sends_the_first_picture_at_once() -> None:
    browser = await signed_in(HostInMemory(a_situation()))
    answer = await browser.get("/events")
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.startswith("event: now\ndata: ")
    assert "All services keep their promises." in answer.text


@pytest.mark.parametrize("path", READS)
async def test_programs_read_with_the_token_of_the_state_folder(path: str) -> None:
    browser = a_browser(HostInMemory(a_situation()))
    assert (await browser.get(path)).status_code == 401
    assert (await browser.get(path, headers={"Authorization": "Bearer wrong"})).status_code == 401
    assert (await browser.get(path, headers={"Authorization": f"Bearer {TOKEN}"})).status_code == 200


@pytest.mark.parametrize(("path", "body"), WRITES)
async def test_changes_need_that_token_and_a_persons_cookie_is_not_enough(path: str, body: dict[str, str]) -> None:
    browser = await signed_in(HostInMemory(a_situation()))
    assert (await browser.post(path, json=body)).status_code == 401
    answer = await browser.post(path, json=body, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.is_success


async def test_without_a_local_stack_no_token_opens_anything() -> None:
    host = HostInMemory(a_situation())
    host.local_token = None
    assert (await a_browser(host).get("/api/v1/slos", headers={"Authorization": "Bearer None"})).status_code == 401


async def test_a_refused_order_says_why_and_is_a_conflict() -> None:
    browser = a_browser(HostInMemory(a_situation()))
    body = {"kind": "rollback", "target": "billing-service", "reason": "test"}
    answer = await browser.post("/api/v1/plans", json=body, headers={"Authorization": f"Bearer {TOKEN}"})
    assert answer.status_code == 409
    assert answer.json()["detail"] == "There is no billing-service."


async def test_slo_status_has_the_shape_that_programs_rely_on() -> None:
    browser = a_browser(HostInMemory(a_situation()))
    body = (await browser.get("/api/v1/slos", headers={"Authorization": f"Bearer {TOKEN}"})).json()
    fixed = {"name", "service", "verdict", "sli", "budget_remaining_ratio", "coverage_ratio", "measured_ratio"}
    assert fixed | {"burn_rates", "as_of"} <= set(body["slos"][0])
    assert set(body["slos"][0]["sli"]) == {"lower", "estimate", "upper"}


async def test_health_and_metrics_are_open_and_readiness_waits_for_the_first_tick() -> None:
    browser = a_browser(HostInMemory(None))
    assert (await browser.get("/health")).status_code == 200
    assert (await browser.get("/ready")).status_code == 503
    assert (await browser.get("/metrics")).text.startswith("backstay_ticks_total")
