"""The supervisor as its users meet it: a process that starts everything and leaves nothing behind."""

from __future__ import annotations

import http.server
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
import yaml

from control_plane.clock import monotonic
from control_plane.local.layout import Layout
from control_plane.local.lock import supervisor_pid
from control_plane.local.progress import STACK, Progress, Stage
from control_plane.local.specification import DEPLOYMENTS
from control_plane.topology import MONOLITH
from tests.local.live_cluster import a_free_base

pytestmark = pytest.mark.stack

FILES = "file-service"
SCRIPT = Path(__file__).with_name("small_stack.py")


def a_specification(folder: Path, replicas: Mapping[str, int]) -> Path:
    path = folder / "stack.yaml"
    path.write_text(
        yaml.safe_dump({"deployments": {name: {"replicas": replicas.get(name, 0)} for name in DEPLOYMENTS}})
    )
    return path


@pytest.fixture
def specification(tmp_path: Path) -> Path:
    return a_specification(tmp_path, {FILES: 1, MONOLITH: 1})


class RunningStack:
    """A supervisor process and what it said."""

    def __init__(self, layout: Layout, specification: Path) -> None:
        self.layout = layout
        self.process = subprocess.Popen(
            (sys.executable, str(SCRIPT), str(layout.port_base), str(layout.state_dir), str(specification)),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.steps: list[Progress] = []

    def until_ready(self) -> RunningStack:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.steps.append(Progress.from_line(line))
            if self.steps[-1].ends_start:
                break
        assert self.steps[-1].stage is Stage.READY, self.steps[-1]
        return self

    def processes(self) -> list[psutil.Process]:
        return psutil.Process(self.process.pid).children(recursive=True)

    @property
    def api(self) -> httpx.Client:
        token = self.layout.token_file.read_text()
        return httpx.Client(
            base_url=self.layout.url(self.layout.cluster_port), headers={"Authorization": f"Bearer {token}"}
        )

    def put_weights(self, service: int) -> None:
        body = {"service": service, "monolith": 100 - service, "fence": 7, "by": "test"}
        assert self.api.put(f"/v1/weights/{FILES}", json=body).status_code == 200

    def ends(self) -> int:
        return self.process.wait(30)


@contextmanager
def a_stack(layout: Layout, specification: Path) -> Iterator[RunningStack]:
    stack = RunningStack(layout, specification)
    try:
        yield stack.until_ready()
    finally:
        stack.process.terminate()
        stack.process.communicate(timeout=30)


@pytest.fixture
def layout(tmp_path: Path) -> Layout:
    return Layout(a_free_base(), tmp_path / "state")


def until(condition: Callable[[], bool], within_seconds: float) -> None:
    deadline = monotonic() + within_seconds
    while not condition():
        assert monotonic() < deadline
        time.sleep(0.05)


def test_one_command_brings_everything_up_and_an_order_brings_it_down(layout: Layout, specification: Path) -> None:
    with a_stack(layout, specification) as stack:
        ready = [step.part for step in stack.steps if step.stage is Stage.READY]
        assert set(ready) == {"envoy", "traces", "alertmanager", "prometheus", *DEPLOYMENTS, STACK}
        assert ready[-1] == STACK
        assert httpx.get(layout.url(layout.gateway_port) + "/api/files/1").json()["service"] == FILES
        state = stack.api.get("/v1/state").json()
        assert {"stack", "envoy", "prometheus", "alertmanager", "traces", f"{FILES}-1"} <= set(state["processes"])
        assert layout.token_file.stat().st_mode & 0o777 == 0o600
        assert layout.state_dir.stat().st_mode & 0o777 == 0o700

        children = stack.processes()
        assert stack.api.post("/v1/down").status_code == 202
        assert stack.ends() == 0
        assert not [child for child in children if child.is_running()]
        assert supervisor_pid(layout) is None


def test_prometheus_sees_the_gateway_each_second_and_every_replica_with_its_labels(
    layout: Layout, specification: Path
) -> None:
    def query(expression: str) -> list[dict[str, Any]]:
        answer = httpx.get(layout.url(layout.prometheus_port) + "/api/v1/query", params={"query": expression})
        found: list[dict[str, Any]] = answer.json()["data"]["result"]
        return found

    with a_stack(layout, specification):
        httpx.get(layout.url(layout.gateway_port) + "/api/files/1")
        until(lambda: len(query('up{job="suite"} == 1')) == 2, 20)
        labels = {entry["metric"]["deployment"]: entry["metric"] for entry in query('up{job="suite"}')}
        assert (labels[FILES]["backend"], labels[FILES]["replica"]) == ("service", f"{FILES}-1")
        assert labels[MONOLITH]["backend"] == "monolith"
        assert query(f'envoy_vhost_route_upstream_rq_completed{{envoy_route="{FILES}"}}')
        until(lambda: int(query('count_over_time(up{job="gateway"}[5s])')[0]["value"][1]) >= 4, 10)
        alertmanagers = httpx.get(layout.url(layout.prometheus_port) + "/api/v1/alertmanagers").json()
        assert len(alertmanagers["data"]["activeAlertmanagers"]) == 1


def test_nothing_outlives_a_supervisor_that_is_killed(layout: Layout, specification: Path) -> None:
    with a_stack(layout, specification) as stack:
        children = stack.processes()
        assert len(children) >= 6
        replica = stack.api.get("/v1/state").json()["deployments"][FILES]["replicas"][0]["pid"]
        os.kill(replica, signal.SIGSTOP)  # not even one that cannot hear
        stack.process.kill()
        stack.ends()
        _, alive = psutil.wait_procs(children, timeout=5)
        assert alive == []
    with a_stack(layout, specification):  # and nothing is in the way of the next
        pass


def test_weights_replicas_and_fence_survive_a_restart(layout: Layout, specification: Path) -> None:
    with a_stack(layout, specification) as stack:
        stack.put_weights(30)
        body = {"replicas": 2, "fence": 7, "by": "test"}
        assert stack.api.put(f"/v1/deployments/{FILES}/replicas", json=body).status_code == 200
    with a_stack(layout, specification) as stack:
        state = stack.api.get("/v1/state").json()
        assert state["weights"][FILES] == {"service": 30, "monolith": 70}
        assert (state["deployments"][FILES]["ready"], state["fence"]) == (2, 7)


def test_a_part_that_dies_is_started_again(layout: Layout, specification: Path) -> None:
    with a_stack(layout, specification) as stack:
        first = stack.api.get("/v1/state").json()["processes"]["prometheus"]["pid"]
        os.kill(first, signal.SIGKILL)

        def is_back() -> bool:
            now = stack.api.get("/v1/state").json()["processes"].get("prometheus")
            return now is not None and now["pid"] != first

        until(is_back, 10)


def test_a_second_stack_in_the_same_folder_is_refused_and_the_first_lives_on(
    layout: Layout, specification: Path
) -> None:
    with a_stack(layout, specification) as stack:
        second = RunningStack(layout, specification)
        _, said = second.process.communicate(timeout=20)
        assert second.process.returncode == 1
        assert f"already runs in {layout.state_dir} (process {stack.process.pid})" in said
        assert stack.api.get("/v1/state").status_code == 200


def test_a_taken_port_is_named_with_the_process_that_has_it_before_anything_starts(
    layout: Layout, specification: Path
) -> None:
    with http.server.HTTPServer(("127.0.0.1", layout.prometheus_port), http.server.BaseHTTPRequestHandler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        stack = RunningStack(layout, specification)
        _, said = stack.process.communicate(timeout=20)
        server.shutdown()
    assert stack.process.returncode == 1
    assert f"Port {layout.prometheus_port} (Prometheus) is taken by" in said
    assert f"(process {os.getpid()})" in said
    assert "BACKSTAY_PORT_BASE" in said
    assert not layout.gateway_access_log.exists()


def test_a_part_that_cannot_start_is_reported_in_its_own_words_and_the_rest_is_stopped(
    layout: Layout, tmp_path: Path
) -> None:
    specification = a_specification(tmp_path, {FILES: 1})
    layout.state_dir.mkdir()
    (layout.state_dir / "prometheus").mkdir()
    (layout.state_dir / "prometheus" / "data").write_text("not a folder")
    stack = RunningStack(layout, specification)
    _, said = stack.process.communicate(timeout=40)
    assert stack.process.returncode == 1
    assert "prometheus exits as soon as it starts" in said
    assert f"(log: {layout.logs_dir / 'prometheus.log'})" in said
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", layout.gateway_port)) != 0


def test_ctrl_c_while_starting_stops_what_had_started(layout: Layout, specification: Path) -> None:
    stack = RunningStack(layout, specification)
    until(lambda: layout.bootstrap_file.exists(), 10)
    time.sleep(0.3)
    children = stack.processes()
    stack.process.send_signal(signal.SIGINT)
    out, _ = stack.process.communicate(timeout=20)
    assert stack.process.returncode == 0
    assert '"part": "stack", "stage": "stopped"' in out
    assert not [child for child in children if child.is_running()]


def test_the_real_suite_comes_up_and_its_progress_is_written_for_who_waits(layout: Layout, tmp_path: Path) -> None:
    specification = a_specification(tmp_path, {"identity-service": 1, MONOLITH: 1})
    progress = tmp_path / "progress.jsonl"
    options = ["--specification", str(specification), "--progress", str(progress)]
    left_out = [word for name in ("load", "control-plane") for word in ("--without", name)]
    process = subprocess.Popen(
        (sys.executable, "-m", "control_plane.local", *options, *left_out),
        stdout=subprocess.DEVNULL,
        env={
            **os.environ,
            "BACKSTAY_PORT_BASE": str(layout.port_base),
            "BACKSTAY_STATE_DIR": str(layout.state_dir),
        },
    )

    def steps() -> list[Progress]:
        return [Progress.from_line(line) for line in progress.read_text().splitlines()] if progress.exists() else []

    try:
        until(lambda: any(step.ends_start for step in steps()), 60)
        assert (steps()[-1].part, steps()[-1].stage) == (STACK, Stage.READY)
        assert supervisor_pid(layout) == process.pid
        children = psutil.Process(process.pid).children(recursive=True)
        for backend in ("service", "monolith"):
            pin = {"x-backstay-backend": backend, "x-backstay-token": layout.token_file.read_text()}
            answer = httpx.get(layout.url(layout.gateway_port) + "/api/users/me", headers=pin)
            assert answer.status_code == 401
    finally:
        process.terminate()
        assert process.wait(30) == 0
    assert not [child for child in children if child.is_running()]
    assert steps()[-1].stage is Stage.STOPPED
