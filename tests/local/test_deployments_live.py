"""Replicas as real processes: started, watched, started again, told of faults, and let go."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
from datetime import timedelta
from pathlib import Path

import pytest

from control_plane.errors import ActuationRefused, InvalidDefinition
from control_plane.local.deployments import Phase
from control_plane.topology import MONOLITH, Weights
from tests.local.live_cluster import Live, live_cluster, until

pytestmark = pytest.mark.stack

FILES = "file-service"


def members(live: Live, cluster: str = f"{FILES}.service") -> list[int]:
    """Ports that Envoy is given for a cluster."""
    body = json.loads(live.layout.endpoints_file(cluster).read_text())
    found = body["resources"][0]["endpoints"][0]["lb_endpoints"]
    return [entry["endpoint"]["address"]["socket_address"]["port_value"] for entry in found]


async def test_a_new_replica_is_a_member_once_it_is_ready_and_not_before(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 1}) as live:
        await live.cluster.scale(FILES, 2, fence=1, by="test")
        assert len(members(live)) == 1
        await until(lambda: len(live.replicas(FILES)) == 2)
        assert len(members(live)) == 2
        targets = json.loads(live.layout.replica_targets_file.read_text())
        assert [target["labels"] for target in targets] == [
            {"deployment": FILES, "replica": f"{FILES}-{n}", "backend": "service"} for n in (1, 2)
        ]


async def test_the_monolith_is_a_member_for_every_service(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {MONOLITH: 1}) as live:
        [port] = [replica.port for replica in live.cluster.deployments[MONOLITH].replicas]
        assert members(live, "identity-service.monolith") == members(live, "search-service.monolith") == [port]
        assert members(live, "identity-service.service") == []


async def test_a_replica_that_died_leaves_at_once_and_returns_after_waits_that_double(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 2}) as live:
        replica = live.cluster.deployments[FILES].replicas[0]
        waits = []
        for _ in range(2):
            assert replica.pid is not None
            os.kill(replica.pid, signal.SIGKILL)
            assert await until(lambda: replica.port not in members(live)) < 0.3
            waits.append(await until(lambda: replica.phase is Phase.STARTING))
            assert await live.who("/api/files/1", 5) == {FILES: 5}
            await until(lambda: replica.phase is Phase.READY)
        assert 0.3 < waits[0] < 0.8 < waits[1] < 1.5
        assert live.cluster.deployments[FILES].restarts == 2


async def test_a_taken_port_is_left_to_who_has_it(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 1}) as live:
        with socket.socket() as other:
            other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            other.bind(("127.0.0.1", live.layout.replica_ports.start + 1))
            other.listen()
            await live.cluster.scale(FILES, 2, fence=1, by="test")
            await until(lambda: len(live.replicas(FILES)) == 2)
            ports = [replica.port for replica in live.cluster.deployments[FILES].replicas]
            assert ports == [live.layout.replica_ports.start, live.layout.replica_ports.start + 2]


async def test_a_fault_reaches_replicas_now_and_later_and_ends_by_its_limit(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 1}) as live:
        await live.cluster.set_fault(FILES, {"kind": "errors", "share": 0.2}, timedelta(seconds=3))
        with pytest.raises(ActuationRefused, match="already has the fault 'errors'"):
            await live.cluster.set_fault(FILES, {"kind": "latency"}, timedelta(seconds=3))
        await live.cluster.scale(FILES, 2, fence=1, by="test")
        await until(lambda: len(live.replicas(FILES)) == 2)
        await asyncio.sleep(0.1)
        answers = [await live.ask("/api/files/1") for _ in range(10)]
        assert {answer.body["replica"] for answer in answers} == {f"{FILES}-1", f"{FILES}-2"}
        assert {answer.body["fault"]["share"] for answer in answers} == {0.2}
        assert {answer.headers["x-backstay-fault"] for answer in answers} == {"errors"}
        await until(lambda: live.cluster.faults == {}, 4)
        await asyncio.sleep(0.1)
        assert [(await live.ask("/api/files/1")).body["fault"] for _ in range(4)] == [None] * 4


async def test_replicas_that_crash_return_at_once_when_the_fault_is_taken_away(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 2}) as live:
        await live.cluster.set_fault(FILES, {"kind": "crash"}, timedelta(seconds=60))
        await until(lambda: live.cluster.deployments[FILES].restarts >= 4, 20)
        await until(lambda: len(live.replicas(FILES, Phase.BACKOFF)) == 2)
        await live.cluster.clear_fault(FILES)
        assert await until(lambda: len(live.replicas(FILES)) == 2) < 3
        await live.cluster.clear_fault(FILES)  # nothing there any more, and no error


async def test_scaling_to_nothing_is_refused_while_requests_come_and_done_when_they_do_not(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 1, MONOLITH: 1}) as live:
        with pytest.raises(ActuationRefused, match="still gets requests"):
            await live.cluster.scale(FILES, 0, fence=1, by="test")
        await live.cluster.set_weights(FILES, Weights(0, 100), fence=1, by="test")
        await live.cluster.scale(FILES, 0, fence=1, by="test")
        await until(lambda: not live.cluster.deployments[FILES].replicas)
        assert members(live) == []
        with pytest.raises(ActuationRefused, match="no ready replica"):
            await live.cluster.set_weights(FILES, Weights(100, 0), fence=1, by="test")
        assert live.cluster.weights[FILES] == Weights(0, 100)
        assert await live.who("/api/files/1", 5) == {MONOLITH: 5}


async def test_scaling_down_takes_the_replica_that_is_not_ready_before_one_that_serves(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 2}) as live:
        first, second = live.cluster.deployments[FILES].replicas
        assert first.pid is not None
        os.kill(first.pid, signal.SIGKILL)
        await until(lambda: first.phase is Phase.BACKOFF)
        await live.cluster.scale(FILES, 1, fence=1, by="test")
        await until(lambda: len(live.cluster.deployments[FILES].replicas) == 1)
        assert live.cluster.deployments[FILES].replicas == (second,)


async def test_more_replicas_than_allowed_or_of_nothing_we_know_are_refused(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {}) as live:
        with pytest.raises(InvalidDefinition, match="0 to 6"):
            await live.cluster.scale(FILES, 7, fence=1, by="test")
        with pytest.raises(InvalidDefinition, match="no deployment 'fil'"):
            await live.cluster.scale("fil", 1, fence=1, by="test")
        assert live.cluster.fence == 0


async def test_an_actor_whose_fence_is_behind_changes_nothing(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 1, MONOLITH: 1}) as live:
        await live.cluster.scale(FILES, 2, fence=5, by="new leader")
        with pytest.raises(ActuationRefused, match="fence 4 is stale"):
            await live.cluster.scale(FILES, 1, fence=4, by="old leader")
        with pytest.raises(ActuationRefused, match="fence 4 is stale"):
            await live.cluster.set_weights(FILES, Weights(0, 100), fence=4, by="old leader")
        assert live.cluster.deployments[FILES].desired == 2
        assert live.cluster.weights[FILES] == Weights(100, 0)


async def test_a_removal_that_its_requests_hold_up_ends_at_its_deadline(tmp_path: Path) -> None:
    async with live_cluster(tmp_path, {FILES: 2}, drain_seconds=0.5, stop_seconds=0.5) as live:
        slow = [asyncio.create_task(live.ask("/api/files/1?sleep=15")) for _ in range(4)]
        await asyncio.sleep(0.2)
        await live.cluster.scale(FILES, 1, fence=1, by="test")
        assert await until(lambda: len(live.cluster.deployments[FILES].replicas) == 1) < 4
        for task in slow:
            task.cancel()
