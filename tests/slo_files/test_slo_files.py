"""The SLO files that people edit: they keep the user's promises, for every service."""

from __future__ import annotations

import subprocess
from decimal import Decimal
from pathlib import Path

import pytest

from control_plane.adapters.slo_files import read_texts
from control_plane.errors import InvalidDefinition
from control_plane.local.tools import Shelf
from control_plane.slo.check import check
from control_plane.slo.engine import SloEngine
from control_plane.slo.fetch_plan import covering
from control_plane.slo.labels import matches
from control_plane.slo.loading import load
from control_plane.slo.rules import alert_names, rules_text
from control_plane.slo.spec import Budgeting, Catalogue, Slo
from control_plane.slo.state import Kind
from control_plane.topology import SERVICES

FOLDER = Path(__file__).resolve().parents[2] / "slos"
WAIT_FOR_A_MODEL = {"ai-gateway-service", "streaming-service"}


@pytest.fixture(scope="module")
def catalogue() -> Catalogue:
    return load(read_texts([FOLDER]))


def slo(catalogue: Catalogue, name: str) -> Slo:
    return next(slo for slo in catalogue.slos if slo.name == name)


def test_the_spec_doctor_finds_nothing() -> None:
    assert check(read_texts([FOLDER])) == ()


@pytest.mark.parametrize("service", SERVICES)
def test_every_service_keeps_the_documents_four_promises(catalogue: Catalogue, service: str) -> None:
    errors, up = slo(catalogue, f"{service}-errors"), slo(catalogue, f"{service}-availability")
    fast, capacity = slo(catalogue, f"{service}-latency"), slo(catalogue, f"{service}-throughput")
    kinds = [Kind.ERRORS, Kind.AVAILABILITY, Kind.LATENCY, Kind.THROUGHPUT]
    assert [each.kind for each in (errors, up, fast, capacity)] == kinds
    assert errors.objective.target == up.objective.target == Decimal("0.999")
    assert (up.budgeting, up.slices and up.slices.target) == (Budgeting.TIMESLICES, Decimal("0.95"))
    assert fast.objective.target == Decimal("0.95")
    assert fast.bucket is not None
    milliseconds = fast.bucket.metric.startswith("envoy_")
    assert fast.bucket.boundary == (200 if milliseconds else Decimal("0.2"))
    assert milliseconds is (service not in WAIT_FOR_A_MODEL)
    assert capacity.capacity_per_second == 1000
    assert not any(each.ours for each in (errors, up, fast, capacity))
    assert {each.service for each in (errors, up, fast, capacity)} == {service}


def test_the_first_token_is_our_own_promise(catalogue: Catalogue) -> None:
    ours = [each for each in catalogue.slos if each.ours]
    assert [each.name for each in ours] == ["ai-gateway-service-first-token"]
    assert ours[0].bucket is not None
    assert ours[0].objective.target == Decimal("0.95")
    assert ours[0].bucket.boundary == 2


def test_nothing_else_is_promised(catalogue: Catalogue) -> None:
    assert len(catalogue.slos) == 4 * len(SERVICES) + 1
    assert set(catalogue.services) == set(SERVICES)


def test_probes_and_smoke_tests_are_in_no_sli(catalogue: Catalogue) -> None:
    probe = {"__name__": "http_request_own_duration_seconds_count", "service": "ai-gateway-service"}
    smoke = {"__name__": "envoy_vhost_route_upstream_rq_completed", "envoy_virtual_host": "gateway"}
    mesh = {"__name__": "envoy_vhost_route_upstream_rq_completed", "envoy_virtual_host": "mesh"}
    selectors = [selector for each in catalogue.slos for selector in each.selectors]
    for labels in (
        *({**probe, "endpoint": path} for path in ("/health", "/ready", "/metrics")),
        {**smoke, "envoy_route": "smoke"},
        {**mesh, "envoy_route": "search-service"},
    ):
        assert not any(matches(selector, labels) for selector in selectors)


def test_all_slos_are_read_in_a_few_queries(catalogue: Catalogue) -> None:
    assert len(covering(SloEngine(catalogue.slos).selectors)) <= 10


def test_the_exported_rules_are_valid(catalogue: Catalogue, tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(rules_text(catalogue.slos, "http://127.0.0.1:7010"))
    run = subprocess.run([str(Shelf().find("promtool")), "check", "rules", str(file)], capture_output=True, text=True)
    assert run.returncode == 0, run.stdout + run.stderr


def test_each_alert_has_a_name_of_its_own(catalogue: Catalogue) -> None:
    names = alert_names(catalogue.slos)
    assert len(set(names)) == len(names) == 3 * len(SERVICES) + 1
    assert {"AiGatewayErrors", "IdentityLatency", "AiGatewayFirstToken"} <= set(names)


def test_files_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    for path, says in ((tmp_path, "holds no .yaml file"), (tmp_path / "none.yaml", "does not exist")):
        with pytest.raises(InvalidDefinition, match=says):
            read_texts([path])
    (tmp_path / "latin.yaml").write_bytes(b"\xe9")
    with pytest.raises(InvalidDefinition, match="not UTF-8"):
        read_texts([tmp_path])


def test_the_policy_beside_the_slos_is_not_taken_for_one(tmp_path: Path) -> None:
    (tmp_path / "policy.yaml").write_text("version: 1")
    (tmp_path / "a.yaml").write_text("")
    assert list(read_texts([tmp_path])) == [str(tmp_path / "a.yaml")]
