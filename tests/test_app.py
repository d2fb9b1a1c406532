"""Everything joined, over a stack that does not answer: it starts, says what it cannot see, and does nothing."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from control_plane.app import ControlPlane, running
from control_plane.errors import InvalidDefinition, SourceUnavailable
from control_plane.settings import Settings
from control_plane.slo.state import Kind, Verdict


def silent_ports() -> int:
    """A base from which nobody listens where the stack's parts would be."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return min(port, 60_000)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "token").write_text("secret\n")
    return Settings(_env_file=None, state_dir=tmp_path, port_base=silent_ports(), policy_profile="local")


async def first_look(plane: ControlPlane) -> None:
    for _ in range(1000):
        if plane.ticker.situation is not None:
            return
        await asyncio.sleep(0.02)
    raise AssertionError("the first tick never ended")


@pytest.fixture
async def control_plane(settings: Settings) -> AsyncIterator[ControlPlane]:
    """After its first look."""
    async with running(settings) as plane:
        await first_look(plane)
        yield plane


async def test_without_a_stack_it_starts_and_everything_is_unknown(control_plane: ControlPlane) -> None:
    situation = control_plane.ticker.situation
    assert situation is not None
    judged = {state.verdict for state in situation.states if state.kind is not Kind.THROUGHPUT}
    assert judged == {Verdict.UNKNOWN}
    health = {source.name: source.ok for source in situation.sources}
    assert health == {"Prometheus": False, "runtime": False, "traces": False, "Alertmanager": True, "database": True}
    assert (situation.runtime, situation.plans, situation.automatic) == (None, (), True)


async def test_the_console_serves_what_the_loop_found(control_plane: ControlPlane) -> None:
    transport = httpx.ASGITransport(control_plane.console)
    headers = {"Authorization": "Bearer secret"}
    async with httpx.AsyncClient(transport=transport, base_url="http://console", headers=headers) as http:
        assert (await http.get("/ready")).status_code == 200
        status = (await http.get("/api/v1/status")).json()
        assert (status["ready"], status["services"]) == (True, None)
        decisions = (await http.get("/api/v1/decisions")).json()["decisions"]
        assert {item["action"] for item in decisions} == {"hold"}
        replayed = (await http.get(f"/api/v1/decisions/{decisions[0]['id']}/replay")).json()
        assert replayed["identical"]
        refused = await http.post("/api/v1/drills", json={"name": "errors"})
        assert refused.status_code == 503  # the runtime is not there
        order = await http.post("/api/v1/admin/password", json={"username": "admin"})
        assert order.json()["password"]
        assert "backstay_source_errors_total" in (await http.get("/metrics")).text


async def test_a_second_start_goes_on_with_what_the_first_one_kept(settings: Settings) -> None:
    for _ in range(2):
        async with running(settings) as plane:
            await first_look(plane)


async def test_a_policy_that_is_not_there_is_named_before_anything_is_touched(settings: Settings) -> None:
    gone = settings.state_dir / "policy.yaml"
    with pytest.raises(InvalidDefinition, match=r"policy\.yaml cannot be read"):
        async with running(settings.model_copy(update={"policy_file": gone})):
            pass
    assert not (settings.state_dir / "backstay.db").exists()


async def test_without_a_token_no_stack_was_started_here(settings: Settings) -> None:
    settings.token_file.unlink()
    with pytest.raises(SourceUnavailable, match="no stack was started here"):
        async with running(settings):
            pass
