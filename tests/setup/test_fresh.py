"""The namespaces that `make fresh` works in: they show what was left running, and end with everything in them."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from deploy.local import fresh

pytestmark = [
    pytest.mark.stack,
    pytest.mark.skipif(
        os.geteuid() != 0 or not all(map(shutil.which, ("unshare", "nsenter", "setpriv"))),
        reason="make fresh needs root and util-linux",
    ),
]
A_FORGOTTEN_PROCESS = "setsid tail -f /dev/null >/dev/null 2>&1 &"


def processes_of(command: str) -> list[str]:
    return subprocess.run(["pgrep", "-fx", command], capture_output=True, text=True, check=False).stdout.split()


@pytest.fixture
def machine_is_possible() -> None:
    try:
        with fresh.running(Path("/")):
            pass
    except fresh.Failed as refused:
        pytest.skip(str(refused))


@pytest.mark.usefixtures("machine_is_possible")
def test_a_machine_at_rest_has_nothing_running() -> None:
    with fresh.running(Path("/")) as machine:
        assert machine.still_running() == []


@pytest.mark.usefixtures("machine_is_possible")
def test_a_process_that_outlives_its_command_is_seen_and_ends_with_the_machine() -> None:
    before = processes_of("tail -f /dev/null")
    with fresh.running(Path("/")) as machine:
        machine.run("root", A_FORGOTTEN_PROCESS)
        assert [line.partition(" ")[2].strip() for line in machine.still_running()] == ["tail -f /dev/null"]
        assert len(processes_of("tail -f /dev/null")) == len(before) + 1
    assert processes_of("tail -f /dev/null") == before


@pytest.mark.usefixtures("machine_is_possible")
def test_a_process_that_holds_on_to_the_output_of_its_command_is_a_broken_promise() -> None:
    with fresh.running(Path("/")) as machine, pytest.raises(fresh.Failed, match="still holds its output"):
        machine.run("root", "setsid sleep 60 &")


@pytest.mark.usefixtures("machine_is_possible")
def test_a_command_that_fails_is_a_broken_promise() -> None:
    with fresh.running(Path("/")) as machine, pytest.raises(fresh.Failed, match="exit code 3"):
        machine.run("root", "exit 3")


@pytest.mark.usefixtures("machine_is_possible")
def test_mounts_of_the_machine_are_not_seen_outside_of_it() -> None:
    before = Path("/proc/mounts").read_text()
    with fresh.running(Path("/")):
        assert Path("/proc/mounts").read_text() == before


def test_only_settings_of_the_network_are_carried_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not yours")
    carried = fresh.carried()
    assert carried["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert "AWS_SECRET_ACCESS_KEY" not in carried
