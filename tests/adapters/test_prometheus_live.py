"""The adapter, the engine and the exported rules on a real Prometheus that scrapes a process of ours."""

from __future__ import annotations

import asyncio
import socket
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
import yaml

from control_plane.adapters.prometheus import PrometheusEvents
from control_plane.errors import SourceUnavailable, ToolMissing
from control_plane.local.tools import Shelf
from control_plane.slo.engine import SloEngine
from control_plane.slo.rules import rules_text
from control_plane.slo.spec import Slo
from control_plane.slo.state import Verdict
from tests.slo.slo_builders import a_latency_slo, an_slo

pytestmark = pytest.mark.stack


class Exporter:
    """A scraped process whose counters the test sets."""

    def __init__(self) -> None:
        self.counters: dict[str, float] = {"requests_total": 1000}

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        body = "".join(f"{name} {value}\n" for name, value in self.counters.items()).encode()
        head = (
            f"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {len(body)}\r\nConnection: close\r\n\r\n"
        )
        writer.write(head.encode() + body)
        await writer.drain()
        writer.close()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@asynccontextmanager
async def scraping(folder: Path, slos: list[Slo]) -> AsyncIterator[tuple[Exporter, str]]:
    """Prometheus on a free port that scrapes the exporter every second, with the exported rules."""
    try:
        binary = Shelf().find("prometheus")
    except ToolMissing as missing:
        pytest.skip(str(missing))
    exporter = Exporter()
    server = await asyncio.start_server(exporter.serve, "127.0.0.1", 0)
    port, prometheus_port = server.sockets[0].getsockname()[1], free_port()
    (folder / "rules.yaml").write_text(rules_text(slos, "http://127.0.0.1:7010"))
    config = {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": ["rules.yaml"],
        "scrape_configs": [{"job_name": "gateway", "static_configs": [{"targets": [f"127.0.0.1:{port}"]}]}],
    }
    (folder / "prometheus.yaml").write_text(yaml.safe_dump(config))
    process = subprocess.Popen(  # noqa: ASYNC220 - starts at once; the loop serves its scrapes meanwhile
        [
            str(binary),
            f"--config.file={folder / 'prometheus.yaml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address=127.0.0.1:{prometheus_port}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield exporter, f"http://127.0.0.1:{prometheus_port}"
    finally:
        process.terminate()
        await asyncio.to_thread(process.wait, 10)
        server.close()


async def test_events_that_really_happened_are_the_events_that_are_counted(tmp_path: Path) -> None:
    errors = an_slo()
    slow = a_latency_slo()
    engine = SloEngine([errors, slow])
    async with scraping(tmp_path, [errors, slow]) as (exporter, url), httpx.AsyncClient(base_url=url) as http:
        source = PrometheusEvents(http, timedelta(seconds=3))
        exporter.counters |= {'seconds_bucket{le="0.1"}': 50, 'seconds_bucket{le="0.25"}': 90, "seconds_count": 100}

        async def tick() -> None:
            now = datetime.now(UTC)
            engine.observe(await source.samples(engine.selectors, engine.reach(now), now), now)

        async with asyncio.timeout(30):
            while engine.feeds[0].first_seen is None or engine.feeds[1].first_seen is None:
                await asyncio.sleep(0.2)
                try:
                    await tick()
                except SourceUnavailable as starting:
                    engine.observe_failure(str(starting), datetime.now(UTC))
        await asyncio.sleep(2)
        await tick()
        for _ in range(5):
            exporter.counters["requests_total"] += 40
            exporter.counters["seconds_count"] += 10
            exporter.counters['seconds_bucket{le="0.1"}'] += 5
            exporter.counters['seconds_bucket{le="0.25"}'] += 8
            await asyncio.sleep(0.7)
            await tick()
        exporter.counters["errors_total"] = 7  # a new series: its first value is new events
        await asyncio.sleep(2.5)
        await tick()
        now = datetime.now(UTC)
        state, latency = engine.states(now)

        history = await source.history(engine.selectors, now - timedelta(minutes=2), now, timedelta(seconds=1))
    assert state.events is not None
    assert (state.events.total, state.events.bad) == (200, 7)
    assert state.verdict is not Verdict.UNKNOWN
    assert state.coverage_ratio == 1.0
    assert latency.sli is not None
    assert latency.sli.lower == pytest.approx(0.5)
    assert latency.sli.upper == pytest.approx(0.8)
    assert {series.labels["__name__"] for series in history} >= {"requests_total", "errors_total", "up"}
