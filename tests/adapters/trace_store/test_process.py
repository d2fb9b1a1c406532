from __future__ import annotations

import signal

import httpx
import pytest

from tests.adapters.trace_store.serving import running_trace_store

pytestmark = pytest.mark.stack


def test_the_store_ends_when_whoever_started_it_lets_go_of_its_input() -> None:
    with running_trace_store() as (_, process):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(timeout=5) == 0


def test_the_store_stops_when_asked() -> None:
    with running_trace_store() as (url, process):
        assert httpx.get(f"{url}/api/services").json()["data"] == []
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=5) in (0, -signal.SIGTERM)
