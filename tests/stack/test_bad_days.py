"""Parts die, ports are taken, people do things twice: clear words, no harm, nothing lost."""

from __future__ import annotations

import os
import shutil
import signal
import socket
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from control_plane.local.layout import Layout
from tests.stack.whole_stack import REPOSITORY, WholeStack, free_port_base, now, until

pytestmark = [pytest.mark.stack, pytest.mark.timeout(240)]


def test_up_says_where_everything_is_and_what_to_try_next(first_words: tuple[WholeStack, str]) -> None:
    stack, said = first_words
    assert stack.layout.url(stack.layout.console_port) in said
    assert "sign in as    admin" in said
    assert ".venv/bin/backstay drill errors --service ai-gateway-service" in said


def test_a_second_up_says_that_it_runs_and_starts_nothing(stack: WholeStack) -> None:
    again = stack.run("up", "--detach")
    assert again.returncode == 0
    assert "It runs already" in again.stdout
    foreground = stack.run("up")
    assert foreground.returncode == 1
    assert "A stack already runs" in foreground.stderr


def test_a_taken_port_is_named_with_its_process(tmp_path: Path) -> None:
    stack = WholeStack(Layout(free_port_base(), tmp_path / "state"))
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", stack.layout.prometheus_port))
        taken.listen()
        refused = stack.run("up", "--detach")
    assert refused.returncode == 2
    assert str(stack.layout.prometheus_port) in refused.stderr
    assert str(os.getpid()) in refused.stderr


def test_a_malformed_slo_file_is_named_with_line_and_field_before_anything_starts(tmp_path: Path) -> None:
    bad = tmp_path / "slos"
    shutil.copytree(REPOSITORY / "slos", bad)
    broken = bad / "file-service.yaml"
    broken.write_text(broken.read_text().replace("targetPercent: 99.9", "targetPercent: 100", 1))
    stack = WholeStack(Layout(free_port_base(), tmp_path / "state"))
    refused = stack.run("up", "--detach", BACKSTAY_SLOS_DIR=str(bad))
    assert refused.returncode == 2
    assert "file-service.yaml:" in refused.stderr
    assert "objectives[0].targetPercent" in refused.stderr
    assert stack.run("status").returncode == 1


def test_every_server_listens_on_loopback_only(stack: WholeStack) -> None:
    supervisor = psutil.Process(stack.pid("stack"))
    for process in [supervisor, *supervisor.children(recursive=True)]:
        for connection in process.net_connections(kind="inet"):
            if connection.status == psutil.CONN_LISTEN:
                assert connection.laddr.ip in ("127.0.0.1", "::1"), f"{process.name()} listens on {connection.laddr}"


def test_secrets_are_in_no_log(stack: WholeStack) -> None:
    token = stack.layout.token_file.read_text().strip()
    assert stack.layout.token_file.stat().st_mode & 0o077 == 0
    for log in stack.layout.logs_dir.iterdir():
        assert token not in log.read_text(errors="replace"), log.name


def test_a_blind_backstay_says_unknown_and_does_nothing(stack: WholeStack) -> None:
    prometheus = psutil.Process(stack.pid("prometheus"))
    decisions = stack.json("decisions", "list", "--limit", "1000")["decisions"]
    acted = [d["id"] for d in decisions if d["action"] != "hold"]
    prometheus.suspend()
    try:
        down = until(
            lambda: [each["name"] for each in stack.status()["sources"] if not each["ok"]], 30, "a source shown as down"
        )
        assert down == ["Prometheus"]
        verdicts = {slo["verdict"] for slo in stack.slos().values()}
        assert verdicts == {"unknown"}
    finally:
        prometheus.resume()
    stack.await_calm()
    decisions = stack.json("decisions", "list", "--limit", "1000")["decisions"]
    assert [d["id"] for d in decisions if d["action"] != "hold"] == acted


def test_without_traces_everything_else_goes_on(stack: WholeStack) -> None:
    began = now()
    psutil.Process(stack.pid("traces")).suspend()
    try:
        down = until(
            lambda: [each["name"] for each in stack.status()["sources"] if not each["ok"]], 30, "a source shown as down"
        )
        assert down == ["traces"]
        first = stack.status()["as_of"]
        until(lambda: stack.status()["as_of"] > first, 20, "the next tick")
    finally:
        psutil.Process(stack.pid("traces")).resume()
    assert stack.failures(began) == []


def test_a_control_plane_that_is_killed_in_the_middle_of_a_rollback_finishes_it(stack: WholeStack) -> None:
    began = now()
    body = {"kind": "rollback", "target": "file-service", "reason": "a test of the journal"}
    console = stack.layout.url(stack.layout.console_port)
    saga = httpx.post(f"{console}/api/v1/plans", json=body, headers=stack.token, timeout=10).json()["saga_id"]

    def progress() -> dict[str, Any]:
        try:
            answer = httpx.get(f"{console}/api/v1/plans/{saga}", headers=stack.token, timeout=5)
        except httpx.HTTPError:  # the control plane is being started again
            return {"state": "RUNNING", "steps": []}
        return dict(answer.json()) if answer.is_success else {"state": "RUNNING", "steps": []}

    def in_the_middle() -> bool:
        return any(step["name"].startswith("weights of") and step["state"] == "done" for step in progress()["steps"])

    def end() -> dict[str, Any] | None:
        found = progress()
        return found if found["state"] != "RUNNING" else None

    until(in_the_middle, 60, "the first shift of weights")
    killed = stack.pid("control-plane")
    os.kill(killed, signal.SIGKILL)
    ended = until(end, 150, "the end of the plan")
    assert ended["state"] == "DONE", ended
    assert stack.pid("control-plane") != killed
    assert stack.cluster()["weights"]["file-service"] == {"service": 0, "monolith": 100}
    assert stack.failures(began) == [], "the shift of a healthy service loses nothing"


def test_killing_the_supervisor_leaves_no_orphan_and_down_nothing_running(tmp_path: Path) -> None:
    stack = WholeStack(Layout(free_port_base(), tmp_path / "state"))
    assert stack.run("up", "--detach", timeout=180).returncode == 0
    supervisor = psutil.Process(stack.pid("stack"))
    family = [supervisor, *supervisor.children(recursive=True)]
    assert len(family) > 14
    supervisor.kill()
    _, alive = psutil.wait_procs(family, timeout=15)
    assert alive == []
    assert stack.run("down").stdout == "Nothing runs.\n"
