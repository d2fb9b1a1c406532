"""One whole stack for all tests of this folder."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from control_plane.local.layout import Layout
from tests.stack.whole_stack import WholeStack, free_port_base


@pytest.fixture(scope="session")
def first_words(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[WholeStack, str]]:
    """The stack, and what `backstay up --detach` printed."""
    state = tmp_path_factory.mktemp("whole-stack") / "state"
    stack = WholeStack(Layout(free_port_base(), state))
    done = stack.run("up", "--detach", timeout=180)
    try:
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}\n{_logs(state)}"
        stack.await_calm()
        yield stack, done.stdout
    finally:
        stack.run("down")
        shutil.rmtree(state / "prometheus", ignore_errors=True)  # the logs stay for whoever looks into a failure


@pytest.fixture
def stack(first_words: tuple[WholeStack, str]) -> WholeStack:
    """The running stack, calm."""
    first_words[0].await_calm()
    return first_words[0]


def _logs(state: Path) -> str:
    found = sorted((state / "logs").glob("*.log")) if (state / "logs").exists() else []
    return "\n".join(f"--- {path.name}\n{path.read_text(errors='replace')[-1500:]}" for path in found)
