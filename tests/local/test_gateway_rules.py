"""The gateway's rules, on a real Envoy with small real backends."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import time
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from control_plane.local.deployments import Phase
from control_plane.topology import MONOLITH, SERVICES, Weights
from tests.local.live_cluster import TOKEN, Live, live_cluster, until

pytestmark = pytest.mark.stack

FILES = "file-service"
BOTH = {FILES: 1, MONOLITH: 1}


async def weigh(live: Live, service: str, weights: Weights) -> None:
    await live.cluster.set_weights(service, weights, fence=1, by="test")


def a_pin(backend: str, token: str = TOKEN) -> dict[str, str]:
    return {"x-backstay-backend": backend, "x-backstay-token": token}


async def test_weights_hold_at_the_gateway_and_between_services_from_the_moment_they_are_acknowledged(
    tmp_path: Path,
) -> None:
    async with live_cluster(tmp_path, BOTH) as live:
        assert await live.who("/api/files/1", 30) == {FILES: 30}
        assert await live.who("/internal/check", 30, mesh=FILES) == {FILES: 30}

        await weigh(live, FILES, Weights(0, 100))
        assert await live.who("/api/files/1", 50) == {MONOLITH: 50}
        assert await live.who("/internal/check", 50, mesh=FILES) == {MONOLITH: 50}
        assert await live.who("/x", 5, mesh=f"{FILES}.librechat:7001") == {MONOLITH: 5}

        await weigh(live, FILES, Weights(75, 25))
        shares = await live.who("/api/files/1", 1000)
        assert 180 <= shares[MONOLITH] <= 320
        assert shares[FILES] + shares[MONOLITH] == 1000


async def test_a_change_of_weights_under_load_loses_nothing(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, BOTH) as live:
        bad: list[int] = []
        sent = 0
        stop = asyncio.Event()

        async def user() -> None:
            nonlocal sent
            while not stop.is_set():
                answer = await live.ask("/api/files/1", method="POST")
                sent += 1
                if answer.status != 200:
                    bad.append(answer.status)
                await asyncio.sleep(0.01)

        users = [asyncio.create_task(user()) for _ in range(8)]
        for step in range(20):
            await weigh(live, FILES, Weights(100 - 5 * step, 5 * step))
        stop.set()
        await asyncio.gather(*users)
        assert bad == []
        assert sent > 20


async def test_a_pinned_request_goes_where_it_says_and_counts_in_no_objective(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, BOTH) as live:
        answer = await live.ask("/api/files/1", headers=a_pin("monolith"))
        assert answer.body["service"] == MONOLITH
        assert not [name for name in answer.body["headers"] if name.startswith("x-backstay")]
        completed = 'envoy_vhost_route_upstream_rq_completed{envoy_virtual_host="gateway",envoy_route='
        assert await live.statistic(f'{completed}"smoke"}}') == 1
        assert not await live.statistic(f'{completed}"{FILES}"}}')  # Envoy makes it at the first request that counts


@pytest.mark.parametrize("token", ["", "wrong"])
async def test_a_pin_without_the_token_is_ignored_and_stripped(tmp_path: Path, token: str) -> None:
    async with live_cluster(tmp_path, BOTH) as live:
        answer = await live.ask("/api/files/1", headers=a_pin("monolith", token))
        assert answer.body["service"] == FILES
        assert not [name for name in answer.body["headers"] if name.startswith("x-backstay")]


async def test_what_a_replica_tells_its_cluster_is_not_reachable_through_the_gateway(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, BOTH) as live:
        for path in ("/health", "/ready", "/metrics", "/anything", "/api/filesystem"):
            assert (await live.ask(path)).status == 404
        assert (await live.ask("/metrics", mesh=FILES)).status == 404
        assert (await live.ask("/x", mesh="unknown-service")).status == 404


@pytest.mark.parametrize("status", [500, 502, 503])
@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_an_applications_own_error_is_never_retried(tmp_path: Path, status: int, method: str) -> None:
    async with live_cluster(tmp_path, {FILES: 2}) as live:
        answer = await live.ask(
            f"/api/files/1?status={status}",
            method=method,
            headers={"x-envoy-retry-on": "5xx", "x-envoy-max-retries": "3"},
        )
        assert answer.status == status
        assert answer.body["hits"] == 1
        assert await live.statistic(f'envoy_cluster_upstream_rq_retry{{envoy_cluster_name="{FILES}"') == 0


@pytest.mark.parametrize("method", ["GET", "POST"])
async def test_a_request_that_already_left_is_not_sent_again(tmp_path: Path, method: str) -> None:
    async with live_cluster(tmp_path, {FILES: 2}) as live:
        assert (await live.ask("/api/files/1?reset=1", method=method)).status == 503
        await until(lambda: len(live.replicas(FILES)) == 1)
        assert (await live.ask("/api/files/1")).body["hits"] == 1  # the other one never saw it


async def test_a_post_whose_connection_could_not_be_made_is_sent_to_another_replica(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 2}) as live:
        first, second = live.cluster.deployments[FILES].replicas
        live.gateway.write_endpoints(f"{FILES}.service", [first.port, second.port])
        live.cluster._publish = lambda deployment: None  # type: ignore[method-assign]
        live.cluster.deployments[FILES]._endpoints_changed = lambda deployment: None
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: first.pid is None)
        answers = await asyncio.gather(*(live.ask("/api/files/1", method="POST") for _ in range(20)))
        assert [answer.status for answer in answers] == [200] * 20


async def test_a_removed_replica_finishes_what_it_has_and_gets_nothing_new(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 3}) as live:
        bad: list[int] = []
        stop = asyncio.Event()

        async def user() -> None:
            while not stop.is_set():
                answer = await live.ask("/api/files/1?sleep=0.03", method="POST")
                if answer.status != 200:
                    bad.append(answer.status)

        users = [asyncio.create_task(user()) for _ in range(12)]
        slow = [asyncio.create_task(live.ask("/api/files/slow?sleep=2", method="POST")) for _ in range(9)]
        await asyncio.sleep(0.3)
        await live.cluster.scale(FILES, 1, fence=1, by="test")
        assert len(live.replicas(FILES, Phase.DRAINING)) == 2
        await asyncio.sleep(0.5)
        assert len(live.replicas(FILES, Phase.DRAINING)) == 2  # the slow ones are still there
        assert [answer.status for answer in await asyncio.gather(*slow)] == [200] * 9
        await until(lambda: len(live.cluster.deployments[FILES].replicas) == 1)
        await asyncio.sleep(0.2)
        stop.set()
        await asyncio.gather(*users)
        assert bad == []
        assert (await live.who("/api/files/1", 10)) == {FILES: 10}


async def test_a_stream_on_a_removed_replica_is_told_to_reconnect_and_finds_another(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {"streaming-service": 2}) as live:
        url = live.layout.url(live.layout.gateway_port) + "/api/streams/1?stream=-1"
        async with live.http.get(url) as first, live.http.get(url) as second:
            lines = [await asyncio.wait_for(stream.content.readline(), 2) for stream in (first, second)]
            assert lines == [b"data: 0\n"] * 2  # not held back until the end
            await live.cluster.scale("streaming-service", 1, fence=1, by="test")
            ended = [asyncio.create_task(stream.text()) for stream in (first, second)]
            done, going = await asyncio.wait(ended, timeout=5, return_when=asyncio.FIRST_COMPLETED)
            assert (await next(iter(done))).endswith("event: reconnect\n\n")
            for task in going:
                task.cancel()
            assert (await live.ask("/api/streams/1?stream=1")).status == 200


async def test_idle_connections_to_replicas_close_before_the_replica_would_close_them(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 1}) as live:
        line = f'envoy_cluster_upstream_cx_active{{envoy_cluster_name="{FILES}",envoy_backend="service"}}'
        await live.ask("/api/files/1")
        before = await live.statistic(line)
        assert before is not None
        assert before >= 1
        took = await until(lambda: _is_below(live, line, before), 6)
        assert took > 1.5


async def _is_below(live: Live, line: str, before: float) -> bool:
    now = await live.statistic(line)
    return now is not None and now < before


async def test_a_replica_that_answers_five_gateway_errors_in_a_row_is_ejected_and_one_with_its_own_500_is_not(
    tmp_path: Path,
) -> None:
    async with live_cluster(tmp_path, {FILES: 2, "search-service": 2}) as live:
        ejections = "envoy_cluster_outlier_detection_ejections_active{envoy_cluster_name="
        for service, path, status in (("search-service", "/api/search", 500), (FILES, "/api/files/1", 503)):
            bad = (await live.ask(f"{path}?bad={status}")).body["replica"]
            for _ in range(40):
                await live.ask(path)
            last = [(await live.ask(path)).body["replica"] for _ in range(10)]
            ejected = await live.statistic(f'{ejections}"{service}",envoy_backend="service"}}')
            assert ejected == (1 if status == 503 else 0)
            assert (bad in last) == (status == 500)
        await asyncio.sleep(2.5)  # passing readiness checks do not bring it back early
        assert await live.statistic(f'{ejections}"{FILES}",envoy_backend="service"}}') == 1


async def test_a_replica_that_hangs_is_left_out_within_seconds_and_returns_when_it_answers(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 2}) as live:
        pid = live.cluster.deployments[FILES].replicas[0].pid
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
        try:
            await until(lambda: len(live.replicas(FILES)) == 1, 12)
            assert (await live.who("/api/files/1", 5)) == {FILES: 5}
        finally:
            os.kill(pid, signal.SIGCONT)
        await until(lambda: len(live.replicas(FILES)) == 2)


async def test_statistics_have_the_contracts_names_and_the_objectives_bucket_and_stay_small(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, BOTH) as live:
        for path in ("/api/files/1", "/api/files/1?status=500"):
            await live.ask(path)
        text = await until_flushed(live, f'envoy_route="{FILES}",le="200"}} 2')
        route = f'envoy_virtual_host="gateway",envoy_route="{FILES}"'
        for line in (
            f"envoy_vhost_route_upstream_rq_completed{{{route}}} 2",
            f'envoy_vhost_route_upstream_rq_xx{{envoy_response_code_class="5",{route}}} 1',
            f'envoy_vhost_route_upstream_rq_time_bucket{{{route},le="200"}} 2',
            f'envoy_cluster_upstream_rq_completed{{envoy_cluster_name="{FILES}",envoy_backend="service"}} 2',
            f'envoy_cluster_upstream_rq_completed{{envoy_cluster_name="{FILES}",envoy_backend="monolith"}} 0',
        ):
            assert line in text.splitlines()
        assert len(text) < 100_000


async def until_flushed(live: Live, part: str) -> str:
    """Statistics that hold `part`: histograms are merged every few seconds."""
    await until(lambda: _has(live, part), 8)
    return await live.statistics()


async def _has(live: Live, part: str) -> bool:
    return part in await live.statistics()


async def test_traffic_counts_each_backend_and_what_is_in_flight(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, BOTH) as live:
        slow = asyncio.create_task(live.ask("/api/files/1?sleep=1"))
        for path in ("/api/files/1", "/api/files/1?status=500"):
            await live.ask(path)
        traffic = await live.gateway.traffic()
        assert set(traffic) == set(SERVICES)
        mine = traffic[FILES]
        assert [(b, c.completed, c.server_errors, c.active) for b, c in mine.items()] == [
            ("service", 2, 1, 1),
            ("monolith", 0, 0, 0),
        ]
        assert (await slow).status == 200


async def test_request_ids_pass_through_and_the_access_log_tells_each_request(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, BOTH) as live:
        request_id = "11111111-2222-4333-8444-555555555555"
        await live.cluster.set_fault(FILES, {"kind": "errors"}, limit=timedelta(seconds=5))
        before = time.time()
        answer = await live.ask("/api/files/1?q=secret", headers={"x-request-id": request_id, "user-agent": "a-user"})
        assert answer.body["headers"]["x-request-id"] == request_id
        assert answer.headers["x-request-id"] == request_id
        log = live.layout.gateway_access_log
        await until(lambda: log.exists() and request_id in log.read_text())
        [entry] = [json.loads(line) for line in log.read_text().splitlines() if request_id in line]
        assert entry["upstream_cluster"] == f"{FILES}.service"
        assert entry["upstream_host"].startswith("127.0.0.1:")
        assert (entry["route"], entry["response_code"], entry["fault"]) == (FILES, 200, "errors")
        assert (entry["path"], entry["user_agent"]) == ("/api/files/1", "a-user")
        assert abs(datetime.fromisoformat(entry["start_time"]).timestamp() - before) < 5


async def test_the_admin_port_shows_no_configuration_and_takes_no_orders(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {}) as live:
        admin = live.layout.url(live.layout.envoy_admin_port)
        for method, path in (("GET", "/config_dump"), ("POST", "/quitquitquit"), ("POST", "/logging?level=debug")):
            async with live.http.request(method, admin + path) as answer:
                assert answer.status == 403


async def test_a_gateway_that_died_is_back_with_the_same_weights_and_members(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, BOTH) as live:
        await weigh(live, FILES, Weights(0, 100))
        assert live.envoy.process is not None
        os.kill(live.envoy.process.pid, signal.SIGKILL)
        await until(lambda: not live.envoy.ready)
        await until(lambda: live.envoy.ready)
        await until(lambda: _answers(live), 5)
        assert await live.who("/api/files/1", 10) == {MONOLITH: 10}


async def _answers(live: Live) -> bool:
    return (await live.ask("/api/files/1")).status == 200
