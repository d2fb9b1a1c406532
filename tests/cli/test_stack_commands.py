"""`backstay up`, `down`, `status`, as far as they go without a stack."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.local.layout import Layout
from control_plane.local.lock import only_supervisor
from control_plane.situation import SourceHealth
from tests.cli.conftest import Backstay, Switchboard
from tests.console.console_builders import HostInMemory, a_situation

SEARCH = "search-service"


@pytest.fixture
def running(state_dir: Path) -> Iterator[int]:
    """A supervisor that holds the folder's lock: this process."""
    with only_supervisor(Layout(7000, state_dir)):
        yield os.getpid()


def test_status_says_that_nothing_runs_and_how_to_start_it(backstay: Backstay, state_dir: Path) -> None:
    ran = backstay("status")
    assert ran.code == 1
    assert ran.out == f"No stack runs in {state_dir}. Start it with `make up`.\n"


def test_status_says_so_to_programs_too(backstay: Backstay) -> None:
    ran = backstay("status", "--format", "json")
    assert (ran.code, ran.json) == (1, {"running": False})


def test_a_lock_that_a_dead_supervisor_left_behind_is_none(backstay: Backstay, state_dir: Path) -> None:
    (state_dir / "run" / "stack.lock").write_text("1")
    assert backstay("status").code == 1


def test_status_shows_what_runs_where_traffic_goes_and_who_answers(
    backstay: Backstay, running: int, board: Switchboard
) -> None:
    trouble = SourceHealth("runtime", False, "the cluster API did not answer")
    host = HostInMemory(a_situation(sources=(SourceHealth("Prometheus", True, "ok"), trouble)))
    board.show(host)
    ran = backstay("status")
    assert ran.code == 0
    assert ["search-service", "2/2", "100", "%", "12.0"] in [line.split() for line in ran.out.splitlines()]
    assert "ok      Prometheus: ok" in ran.out
    assert "TROUBLE runtime: the cluster API did not answer" in ran.out
    assert "Automatic: True" in ran.out


def test_status_for_programs_holds_urls_services_and_sources(backstay: Backstay, running: int) -> None:
    ran = backstay("status", "--format", "json")
    assert ran.code == 0
    body = ran.json
    assert body["running"] is True
    assert body["services"][SEARCH] == {
        "ready": 2,
        "desired": 2,
        "weights": {"service": 100, "monolith": 0},
        "requests_per_second": 12.0,
    }
    assert set(body["urls"]) == {"console", "gateway", "prometheus", "alertmanager", "traces"}
    assert body["sources"] == [{"name": "Prometheus", "ok": True, "detail": "ok"}]


def test_status_names_a_freeze_and_a_runtime_that_is_gone(backstay: Backstay, running: int, board: Switchboard) -> None:
    board.show(HostInMemory(a_situation(frozen="maintenance [all]", runtime=None)))
    ran = backstay("status")
    assert "Automatic: frozen, maintenance [all]" in ran.out
    assert "The runtime does not answer." in ran.out


def test_status_before_the_first_look_claims_nothing(backstay: Backstay, running: int, board: Switchboard) -> None:
    board.show(HostInMemory(None))
    ran = backstay("status")
    assert (ran.code, ran.out) == (0, "The control plane has not finished its first look yet.\n")


def test_up_where_it_runs_already_starts_nothing_and_says_where_it_is(backstay: Backstay, running: int) -> None:
    ran = backstay("up", "--detach")
    assert ran.code == 0
    assert f"It runs already (process {running})." in ran.out
    assert ".venv/bin/backstay drill errors --service ai-gateway-service" in ran.out
    assert "sign in as" not in ran.out  # its password was shown once


def test_up_where_it_runs_already_is_the_same_for_programs(backstay: Backstay, running: int) -> None:
    ran = backstay("up", "--detach", "--format", "json")
    assert ran.code == 0
    assert set(ran.json) == {"urls", "username", "password"}
    assert ran.json["password"] is None


def test_a_dry_run_of_up_tells_where_it_would_be(backstay: Backstay, state_dir: Path) -> None:
    ran = backstay("up", "--dry-run")
    assert ran.code == 0
    assert f"Would start in {state_dir}:" in ran.out
    assert not (state_dir / "logs").exists()


def test_down_where_nothing_runs_is_no_error(backstay: Backstay) -> None:
    assert (backstay("down").code, backstay("down").out) == (0, "Nothing runs.\n")
    assert backstay("down", "--format", "json").json == {"stopped": None}


def test_a_dry_run_of_down_stops_nothing(backstay: Backstay, running: int) -> None:
    ran = backstay("down", "--dry-run")
    assert (ran.code, ran.out) == (0, f"Would stop process {running}.\n")
    assert backstay("down", "--dry-run", "--format", "json").json == {"dry_run": True, "running": running}
