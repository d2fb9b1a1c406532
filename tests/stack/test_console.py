"""The console as people see it: in a real browser, on the running stack."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from playwright.sync_api import Page, expect, sync_playwright

from tests.stack.whole_stack import WholeStack, until

pytestmark = [pytest.mark.stack, pytest.mark.browser, pytest.mark.timeout(180)]
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
SENTENCES = r"keep their promises|held on the monolith|being|failing|ticket|cannot be judged"


@contextmanager
def a_page(chromium: Path, stack: WholeStack, *, javascript: bool = True, phone: bool = False) -> Iterator[Page]:
    """A browser at the console; fails at the end when the page complained about anything."""
    complaints: list[str] = []
    size = {"width": 390, "height": 844} if phone else {"width": 1440, "height": 900}
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(chromium), args=FLAGS)
        context = browser.new_context(
            viewport=size,  # type: ignore[arg-type]
            java_script_enabled=javascript,
            base_url=stack.layout.url(stack.layout.console_port),
        )
        page = context.new_page()
        page.on("console", lambda message: complaints.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: complaints.append(str(error)))
        try:
            yield page
        finally:
            browser.close()
    assert complaints == []


@pytest.fixture(scope="module")
def password(first_words: tuple[WholeStack, str]) -> str:
    answer: str = first_words[0].json("admin", "reset-password")["password"]
    return answer


def sign_in(page: Page, password: str, path: str = "/") -> None:
    page.goto(path)
    page.get_by_label("Name").fill("admin")
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()


def test_a_person_signs_in_and_reads_how_things_are(chromium: Path, stack: WholeStack, password: str) -> None:
    with a_page(chromium, stack) as page:
        sign_in(page, password)
        heading = page.get_by_role("heading", level=1)
        expect(heading).to_have_text(re.compile(SENTENCES))
        expect(page.locator("tbody tr")).to_have_count(7)
        before = page.locator(".now").get_attribute("data-as-of")
        assert before is not None
        expect(page.locator(".now")).not_to_have_attribute(
            "data-as-of", before, timeout=15_000
        )  # live, without a reload
        expect(page.locator("#age")).to_contain_text("s old")


def test_the_pages_behind_the_first_one_open(chromium: Path, stack: WholeStack, password: str) -> None:
    with a_page(chromium, stack) as page:
        sign_in(page, password, "/slos")
        expect(page.get_by_role("heading", level=1)).to_have_text("Service level objectives")
        expect(page.locator("#ai-gateway-service-errors")).to_be_visible()
        page.goto("/decisions")
        page.locator("tbody a").first.click()
        expect(page.get_by_role("heading", name="Guards")).to_be_visible()
        page.goto("/runbooks/AiGatewayErrors")
        for section in ("Meaning", "Impact", "Diagnosis", "Mitigation"):
            expect(page.get_by_role("heading", name=section)).to_be_visible()


def test_everything_is_readable_without_javascript(chromium: Path, stack: WholeStack, password: str) -> None:
    with a_page(chromium, stack, javascript=False) as page:
        sign_in(page, password)
        expect(page.locator("tbody tr")).to_have_count(7)
        expect(page.locator("#age")).to_contain_text("data as of")


def test_a_phone_needs_no_sideways_scrolling(chromium: Path, stack: WholeStack, password: str) -> None:
    with a_page(chromium, stack, phone=True) as page:
        sign_in(page, password)
        expect(page.locator("tbody tr").first).to_be_visible()
        width = page.evaluate("document.documentElement.scrollWidth")
        assert width <= 390


def test_a_wrong_password_opens_nothing(chromium: Path, stack: WholeStack) -> None:
    base = stack.layout.url(stack.layout.console_port)
    answer = httpx.post(f"{base}/login", data={"username": "admin", "password": "wrong"}, timeout=10)
    assert answer.status_code == 401
    assert "do not match" in answer.text


def test_signing_out_ends_the_open_page_too(chromium: Path, stack: WholeStack, password: str) -> None:
    with a_page(chromium, stack) as page:
        sign_in(page, password)
        other = page.context.new_page()
        other.goto("/slos")
        other.get_by_role("button", name="sign out").click()
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible(timeout=20_000)


def test_alerts_of_prometheus_are_loaded_and_reach_alertmanager(stack: WholeStack) -> None:
    prometheus = stack.layout.url(stack.layout.prometheus_port)
    groups = httpx.get(f"{prometheus}/api/v1/rules", timeout=5).json()["data"]["groups"]
    rules = {rule["name"]: rule for group in groups for rule in group["rules"]}
    assert {"AiGatewayErrors", "IdentityLatency", "Watchdog", "BackstayBlind"} <= set(rules)
    assert all(rule["health"] != "err" for rule in rules.values()), rules
    watchdog = until(
        lambda: [a for a in stack.alerts() if a["labels"]["alertname"] == "Watchdog"], 60, "Watchdog in Alertmanager"
    )
    console = stack.layout.url(stack.layout.console_port)
    assert watchdog[0]["annotations"]["runbook_url"] == f"{console}/runbooks/Watchdog"


def test_a_chat_is_one_trace_through_the_services_it_touched(stack: WholeStack) -> None:
    traces = stack.layout.url(stack.layout.traces_port)
    operation = "POST /v1/chat/completions"
    query: dict[str, str | int] = {"service": "ai-gateway-service", "operation": operation, "limit": 50}

    def through_many() -> set[str] | None:
        found = httpx.get(f"{traces}/api/traces", params=query, timeout=10).json()["data"]
        names = [{process["serviceName"] for process in trace["processes"].values()} for trace in found]
        return max(names, key=len, default=set()) if any(len(each) >= 4 for each in names) else None

    services = until(through_many, 30, "a chat's trace through four services")
    assert {"ai-gateway-service", "identity-service", "notification-service"} <= services


def test_backstay_exports_its_own_metrics(stack: WholeStack) -> None:
    prometheus = stack.layout.url(stack.layout.prometheus_port)
    query = 'sum by (outcome) (backstay_ticks_total{outcome="ok"})'
    result = httpx.get(f"{prometheus}/api/v1/query", params={"query": query}, timeout=5).json()["data"]["result"]
    assert float(result[0]["value"][1]) > 0
