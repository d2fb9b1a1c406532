"""What Prometheus is told: checked by us, and by its own tool."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from control_plane.errors import ToolMissing
from control_plane.local import tools
from control_plane.local.layout import Layout
from control_plane.local.prometheus_config import alertmanager_arguments, prometheus_arguments, prometheus_config
from control_plane.local.scrape_targets import scrape_targets


def jobs(layout: Layout) -> dict[str, dict[str, Any]]:
    config = yaml.safe_load(prometheus_config(layout))
    return {job["job_name"]: job for job in config["scrape_configs"]}


def test_the_gateway_is_read_each_second_with_a_shorter_time_out(tmp_path: Path) -> None:
    gateway = jobs(Layout(7000, tmp_path))["gateway"]
    assert (gateway["scrape_interval"], gateway["scrape_timeout"]) == ("1s", "900ms")
    assert gateway["static_configs"] == [{"targets": ["127.0.0.1:7002"]}]


def test_it_keeps_35_days_listens_on_loopback_and_repeats_alerts_at_once(tmp_path: Path) -> None:
    arguments = prometheus_arguments(Layout(7000, tmp_path))
    for argument in (
        "--storage.tsdb.retention.time=35d",
        "--web.listen-address=127.0.0.1:7090",
        "--rules.alert.resend-delay=1s",
    ):
        assert argument in arguments
    assert "--cluster.listen-address=" in alertmanager_arguments(Layout(7000, tmp_path), Path("a.yml"))


def test_targets_carry_deployment_replica_and_backend() -> None:
    text = scrape_targets([("librechat-monolith", "m-1", 7201), ("file-service", "f-1", 7200)])
    assert json.loads(text) == [
        {
            "targets": ["127.0.0.1:7200"],
            "labels": {"deployment": "file-service", "replica": "f-1", "backend": "service"},
        },
        {
            "targets": ["127.0.0.1:7201"],
            "labels": {"deployment": "librechat-monolith", "replica": "m-1", "backend": "monolith"},
        },
    ]


def test_prometheus_own_tool_finds_no_fault(tmp_path: Path) -> None:
    try:
        promtool = tools.find("promtool")
    except ToolMissing as missing:
        pytest.skip(str(missing))
    layout = Layout(7000, tmp_path)
    for folder in layout.folders:
        folder.mkdir(parents=True, exist_ok=True)
    layout.replica_targets_file.write_text(scrape_targets([("file-service", "f-1", 7200)]))
    config = tmp_path / "prometheus.yml"
    config.write_text(prometheus_config(layout))
    checked = subprocess.run((promtool, "check", "config", config), capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
