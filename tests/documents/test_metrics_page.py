"""docs/metrics.md names exactly what is exported: each metric with its type and its labels."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import httpx
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.parser import text_string_to_metric_families

from control_plane.adapters.trace_store.store import Limits, TraceStore
from control_plane.adapters.trace_store.web import trace_store_app
from control_plane.clock import monotonic, utc_now
from control_plane.runners.metrics import Metrics
from control_plane.topology import MONOLITH
from services.app import build_app
from services.settings import SuiteSettings
from services.wiring import wire

PAGE = Path(__file__).resolve().parents[2] / "docs" / "metrics.md"
Described = Mapping[str, tuple[str, tuple[str, ...]]]
"""Type and labels by name."""


def on_the_page(*sections: str) -> Described:
    found = {}
    for block in re.split(r"^## ", PAGE.read_text(), flags=re.MULTILINE)[1:]:
        if block.splitlines()[0] in sections:
            for name, kind, labels in re.findall(r"^\| `([a-z_]+)` \| (\w+) \| (.*?) \|", block, re.MULTILINE):
                assert name not in found, f"{name} is described twice"
                found[name] = (kind, tuple(re.findall(r"`([a-z_]+)`", labels)))
    return found


def exported(registry: CollectorRegistry) -> Described:
    """What a registry holds, labels in their order, whether or not anything was counted yet."""
    found = {}
    for collector in registry._collector_to_names:
        labels = tuple(getattr(collector, "_labelnames", ()))
        for family in collector.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found[name] = (family.type, labels)
    return found


@pytest.fixture
async def suite_registry(tmp_path: Path) -> CollectorRegistry:
    """Of the monolith: it serves every domain, so it exports what any service does."""
    wired = wire(MONOLITH, SuiteSettings(data_dir=tmp_path, otlp_url=None))
    build_app(MONOLITH, wired.contexts)
    await wired.closing.aclose()
    return wired.metrics.registry


def test_every_metric_of_backstay_is_described() -> None:
    assert on_the_page("Backstay") == exported(Metrics().registry)


async def test_every_metric_of_the_trace_store_is_described() -> None:
    store = TraceStore(Limits(8 * 1024 * 1024, 60.0), monotonic)
    transport = httpx.ASGITransport(trace_store_app(store, utc_now))
    async with httpx.AsyncClient(transport=transport, base_url="http://traces") as client:
        text = (await client.get("/metrics")).text
    found = {
        f"{family.name}_total" if family.type == "counter" else family.name: family.type
        for family in text_string_to_metric_families(text)
    }
    assert {name: kind for name, (kind, _) in on_the_page("The trace store").items()} == found


async def test_every_metric_of_the_suite_is_described(suite_registry: CollectorRegistry) -> None:
    page = on_the_page("The suite: every service", "The suite: what the services do")
    found = exported(suite_registry)
    process = {name for name in page if name.startswith("process_")}
    assert {n: d for n, d in page.items() if n not in process} == {
        n: d for n, d in found.items() if not n.startswith("process_")
    }
    assert {name for name in found if name.startswith("process_")} <= process  # elsewhere than on Linux there are none
