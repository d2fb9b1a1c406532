"""Something breaks for real, and users are pulled to safety: the promise of the whole product."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.stack.whole_stack import WholeStack, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(330)]
SERVICE = "ai-gateway-service"


def drilled(stack: WholeStack, name: str) -> dict[str, Any]:
    done = stack.run("drill", name, "--service", SERVICE, "--format", "json", timeout=300)
    assert done.stdout, done.stderr
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["outcome"] == "passed", json.dumps(result, indent=1)
    assert done.returncode == 0
    return result


def test_failing_requests_are_rolled_back_and_the_page_arrives_with_its_runbook(stack: WholeStack) -> None:
    drill = stack.start("drill", "errors", "--service", SERVICE, "--format", "json")

    def fast_page() -> dict[str, Any] | None:
        assert drill.poll() is None or drill.returncode == 0, drill.communicate()
        found = [a for a in stack.alerts() if a["labels"].get("tier") == "fast_path"]
        return next((a for a in found if a["labels"]["service"] == SERVICE), None)

    alert = until(fast_page, 60, "the fast-path page in Alertmanager")
    output, problems = drill.communicate(timeout=280)
    result = json.loads(output)
    assert result["outcome"] == "passed", f"{output}\n{problems}"
    assert result["action"] == {"kind": "roll_back", "target": SERVICE}
    assert result["requests"]["failed_by_fault"] > 0
    assert result["requests"]["lost_to_shift"] == 0
    assert result["detected_after_s"] <= 15
    assert result["moved_after_s"] <= 45

    assert alert["labels"]["alertname"] == "AiGatewayErrors"
    assert alert["labels"]["severity"] == "page"
    assert alert["annotations"]["summary"].startswith(f"{SERVICE}: ")
    assert alert["annotations"]["description"]
    page = httpx.get(alert["annotations"]["runbook_url"], follow_redirects=False, timeout=5)
    assert page.status_code == 303, "the runbook is a page of the console, behind its login"


def test_what_was_decided_in_the_drill_replays_to_the_same_decision(stack: WholeStack) -> None:
    listed = stack.json("decisions", "list", "--service", SERVICE, "--limit", "50")["decisions"]
    rollback = next(d for d in listed if d["action"] == "roll_back")
    assert stack.json("decisions", "replay", rollback["id"])["identical"] is True
    explained = stack.json("decisions", "explain", rollback["id"])
    assert all(guard["passed"] for guard in explained["guards"])


def test_the_drills_window_is_shown_with_and_without(stack: WholeStack) -> None:
    slo = stack.slos()[f"{SERVICE}-errors"]
    assert slo["sli_without_exclusions"]["estimate"] < 1
    assert slo["sli"]["estimate"] > slo["sli_without_exclusions"]["estimate"]


def test_crashing_replicas_are_rolled_back(stack: WholeStack) -> None:
    result = drilled(stack, "crash")
    assert result["action"] == {"kind": "roll_back", "target": SERVICE}
    assert result["requests"]["lost_to_shift"] == 0
    assert result["moved_after_s"] <= 45


def test_slow_answers_are_rolled_back(stack: WholeStack) -> None:
    result = drilled(stack, "latency")
    assert result["action"] == {"kind": "roll_back", "target": SERVICE}
    assert result["requests"]["lost_to_shift"] == 0


def test_too_much_load_gets_more_replicas_and_no_rollback(stack: WholeStack) -> None:
    result = drilled(stack, "saturation")
    assert result["action"] == {"kind": "scale", "target": SERVICE}
    assert result["requests"]["lost_to_shift"] == 0
    assert stack.status()["services"][SERVICE]["weights"] == {"service": 100, "monolith": 0}


def test_after_the_drills_everything_is_where_it_was(stack: WholeStack) -> None:
    cluster = stack.cluster()
    assert cluster["faults"] == {}
    assert cluster["weights"][SERVICE] == {"service": 100, "monolith": 0}
    assert cluster["deployments"][SERVICE]["desired"] == 2
    assert cluster["deployments"]["librechat-monolith"]["desired"] == 1


def test_a_drill_that_cannot_be_run_says_why_and_changes_nothing(stack: WholeStack) -> None:
    unknown = stack.run("drill", "gremlins")
    assert (unknown.returncode, unknown.stdout) == (2, "")
    assert "errors, latency, crash, saturation" in unknown.stderr
    frozen = stack.run("freeze", "--reason", "a test")
    assert frozen.returncode == 0
    try:
        until(lambda: stack.status()["frozen"], 15, "the freeze in the next tick")
        refused = stack.run("drill", "errors")
        assert refused.returncode == 2
        assert "frozen (a test)" in refused.stderr
    finally:
        assert stack.run("thaw", "--reason", "the test is over").returncode == 0
    until(lambda: stack.status()["frozen"] is None, 15, "the thaw in the next tick")
