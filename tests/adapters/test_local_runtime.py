"""The runtime adapter, over HTTP, against a live cluster; and against replies that are wrong."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from control_plane.adapters.local_runtime import LocalRuntime, local_client
from control_plane.errors import ActuationRefused, InvalidDefinition, SourceUnavailable
from control_plane.topology import MONOLITH, SERVICES, Backend, Weights
from tests.local.live_cluster import TOKEN, Live, live_api, live_cluster, until

FILES = "file-service"


@asynccontextmanager
async def a_live_runtime(folder: Path) -> AsyncIterator[tuple[LocalRuntime, Live]]:
    async with live_cluster(folder, {FILES: 1, MONOLITH: 1}) as live, live_api(live) as url:
        live.layout.token_file.write_text(TOKEN + "\n")
        async with local_client(url, live.layout.token_file) as http:
            yield LocalRuntime(http), live


@asynccontextmanager
async def a_live_client(folder: Path) -> AsyncIterator[tuple[httpx.AsyncClient, Live]]:
    """A client without a token."""
    async with live_cluster(folder, {FILES: 1}) as live, live_api(live) as url, httpx.AsyncClient(base_url=url) as http:
        yield http, live


@pytest.mark.stack
async def test_state_tells_replicas_weights_and_traffic_of_every_service(tmp_path: Path) -> None:
    async with a_live_runtime(tmp_path) as (runtime, live):
        await live.ask("/api/files/1?status=500")
        state = await runtime.state()
        files = state.deployments[FILES]
        assert (files.desired, files.ready, files.min_replicas, files.max_replicas) == (1, 1, 1, 6)
        assert (files.ready_slots, files.restarts, files.draining) == (16, 0, 0)
        assert set(state.weights) == set(state.traffic) == set(SERVICES)
        assert state.weights[FILES] == Weights(100, 0)
        traffic = state.traffic[FILES][Backend.SERVICE]
        assert (traffic.completed, traffic.server_errors, traffic.active) == (1, 1, 0)


@pytest.mark.stack
async def test_orders_take_effect_and_refusals_carry_their_reason(tmp_path: Path) -> None:
    async with a_live_runtime(tmp_path) as (runtime, live):
        await runtime.set_weights(FILES, Weights(0, 100), fence=3, by="test")
        assert await live.who("/api/files/1", 20) == {MONOLITH: 20}
        await runtime.scale(FILES, 0, fence=3, by="test")
        await until(lambda: not live.cluster.deployments[FILES].replicas)
        with pytest.raises(ActuationRefused, match="fence 2 is stale"):
            await runtime.scale(FILES, 1, fence=2, by="test")
        with pytest.raises(ActuationRefused, match="no ready replica"):
            await runtime.set_weights(FILES, Weights(100, 0), fence=3, by="test")
        with pytest.raises(InvalidDefinition, match="0 to 6 replicas, not 9"):
            await runtime.scale(FILES, 9, fence=3, by="test")
        with pytest.raises(InvalidDefinition, match="no service 'file'"):
            await runtime.set_weights("file", Weights(100, 0), fence=3, by="test")


@pytest.mark.stack
async def test_the_cluster_answers_only_who_has_the_token_and_says_what_is_wrong(tmp_path: Path) -> None:
    async with (
        live_cluster(tmp_path, {FILES: 1}) as live,
        live_api(live) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        assert (await http.get("/v1/state")).status_code == 401
        assert (await http.get("/v1/state", headers={"Authorization": "Bearer no"})).status_code == 401
        http.headers["Authorization"] = f"Bearer {TOKEN}"
        for path, body, said in (
            ("/v1/weights/file-service", {"service": 60, "monolith": 30, "fence": 1, "by": "t"}, "sum to 100"),
            ("/v1/weights/file-service", {"service": 50.5, "monolith": 49.5, "fence": 1, "by": "t"}, "service"),
            ("/v1/weights/file-service", {"service": 100, "monolith": 0, "fence": 1}, "by: Field required"),
            ("/v1/deployments/file-service/replicas", {"replicas": -1, "fence": 1, "by": "t"}, "replicas"),
            ("/v1/faults/file-service", {"kind": "meteor", "seconds": 5}, "kind"),
            ("/v1/faults/file-service", {"kind": "errors", "seconds": 4000}, "seconds"),
            ("/v1/faults/fil", {"kind": "errors", "seconds": 5}, "no deployment"),
        ):
            answer = await http.put(path, json=body)
            assert answer.status_code == 422, (path, body)
            assert said in answer.json()["error"]
        assert (await http.put("/v1/weights/file-service", content=b"{")).status_code == 422
        assert (await http.get("/nothing")).json() == {"error": "Not Found"}
        assert live.cluster.fence == 0


@pytest.mark.stack
async def test_processes_are_listed_with_what_they_cost(tmp_path: Path) -> None:
    async with (
        live_cluster(tmp_path, {FILES: 1}) as live,
        live_api(live) as url,
        httpx.AsyncClient(base_url=url) as http,
    ):
        body = (await http.get("/v1/state", headers={"Authorization": f"Bearer {TOKEN}"})).json()
        [replica] = live.cluster.deployments[FILES].replicas
        cost = body["processes"][replica.id]
        assert cost["pid"] == replica.pid
        assert 5e6 < cost["rss_bytes"] < 2e8
        assert cost["cpu_seconds"] > 0
        assert body["deployments"][FILES]["replicas"][0]["state"] == "ready"


@pytest.mark.stack
async def test_without_a_gateway_there_is_no_state_but_the_cluster_still_tells_its_replicas(tmp_path: Path) -> None:
    async with a_live_runtime(tmp_path) as (runtime, live):
        await live.envoy.stop()
        with pytest.raises(SourceUnavailable, match="no traffic counters"):
            await runtime.state()
        with pytest.raises(SourceUnavailable, match="did not"):
            await runtime.set_weights(FILES, Weights(0, 100), fence=1, by="test")


def a_runtime(answer: httpx.Response | Exception) -> LocalRuntime:
    """A runtime whose cluster answers so."""

    def reply(_: httpx.Request) -> httpx.Response:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return LocalRuntime(httpx.AsyncClient(base_url="http://cluster", transport=httpx.MockTransport(reply)))


A_STATE: dict[str, Any] = {
    "at": "2026-01-01T00:00:00+00:00",
    "deployments": {},
    "weights": {},
    "traffic": {
        service: {backend: {"completed": 1, "server_errors": 0, "active": 0} for backend in Backend}
        for service in SERVICES
    },
}


async def test_a_good_reply_is_read() -> None:
    assert (await a_runtime(httpx.Response(200, json=A_STATE)).state()).at.year == 2026


@pytest.mark.parametrize(
    "answer",
    [
        httpx.ConnectError("refused"),
        httpx.ReadTimeout("slow"),
        httpx.Response(500, text="boom"),
        httpx.Response(200, text="<html>"),
        httpx.Response(200, json={**A_STATE, "traffic": None, "traffic_problem": "Envoy is down"}),
        httpx.Response(200, json={**A_STATE, "traffic": {}}),
        httpx.Response(200, json={**A_STATE, "weights": {"file-service": {"service": 60, "monolith": 60}}}),
    ],
)
async def test_a_part_of_a_state_or_none_is_no_evidence(answer: httpx.Response | Exception) -> None:
    with pytest.raises(SourceUnavailable):
        await a_runtime(answer).state()


def test_without_a_token_one_is_told_that_no_stack_ran_here(tmp_path: Path) -> None:
    with pytest.raises(SourceUnavailable, match="no stack was started here"):
        local_client("http://127.0.0.1:1", tmp_path / "token")
