"""What is written for Envoy. That Envoy then does as meant is tested on a real one."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.local import envoy
from control_plane.local.layout import Layout
from control_plane.topology import SERVICES, Backend, Weights

LAYOUT = Layout(7000, Path("/state"))
ALL_OWN = dict.fromkeys(SERVICES, Weights(100, 0))


def routes_of(listener: str, weights: dict[str, Weights] | None = None) -> list[dict[str, Any]]:
    body = json.loads(envoy.routes(listener, weights or ALL_OWN, "a-token").text)
    [host] = body["resources"][0]["virtual_hosts"]
    found: list[dict[str, Any]] = host["routes"]
    return found


def clusters() -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = envoy.bootstrap(LAYOUT)["static_resources"]["clusters"]
    return found


def weighted(route: dict[str, Any]) -> dict[str, int] | None:
    """Weights of a route by cluster; None for one that goes by no weights."""
    shares = route.get("route", {}).get("weighted_clusters")
    return {entry["name"]: entry["weight"] for entry in shares["clusters"]} if shares else None


@given(st.integers(0, 100), st.sampled_from(SERVICES), st.sampled_from(envoy.LISTENERS))
def test_every_weighted_route_of_a_service_has_its_weights_and_they_sum_to_100(
    percent: int, service: str, listener: str
) -> None:
    found = [
        weights
        for route in routes_of(listener, {**ALL_OWN, service: Weights(percent, 100 - percent)})
        if route["name"] == service and (weights := weighted(route)) is not None
    ]
    assert found
    for weights in found:
        assert weights == {f"{service}.service": percent, f"{service}.monolith": 100 - percent}


def test_every_service_and_backend_has_a_cluster_of_its_own() -> None:
    names = [cluster["name"] for cluster in clusters()]
    assert sorted(names) == sorted(f"{service}.{backend}" for service in SERVICES for backend in Backend)


def test_every_route_counts_under_its_services_name_or_as_smoke() -> None:
    for listener in envoy.LISTENERS:
        for route in routes_of(listener):
            if "route" in route:
                assert route["stat_prefix"] in (route["name"], envoy.PINNED)
                assert "." not in route["stat_prefix"]


def test_only_routes_that_may_stream_have_no_limit_on_their_length_and_those_have_one_on_silence() -> None:
    for listener in envoy.LISTENERS:
        streaming = set()
        for route in routes_of(listener):
            action = route.get("route")
            if action is None:
                continue
            if action["timeout"] == "0s":
                assert action["idle_timeout"] == "120s"
                streaming.add(route["match"]["path_separated_prefix"])
            else:
                assert action["timeout"] == "30s"
        assert streaming == {"/v1/chat", "/api/streams"}


def test_other_methods_than_reads_are_sent_again_only_when_they_never_left() -> None:
    reads = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS"}}}
    for listener in envoy.LISTENERS:
        for route in routes_of(listener):
            if "route" not in route:
                continue
            retry_on = route["route"]["retry_policy"]["retry_on"]
            if reads in route["match"].get("headers", []):
                assert retry_on == "connect-failure,refused-stream,unavailable,cancelled"
            else:
                assert retry_on == "connect-failure,refused-stream"


def test_a_pin_wins_over_weights_only_at_the_gateway_and_with_the_token() -> None:
    pinned = [route for route in routes_of(envoy.GATEWAY) if route.get("stat_prefix") == envoy.PINNED]
    assert {route["route"]["cluster"] for route in pinned} == {cluster["name"] for cluster in clusters()}
    for route in pinned:
        assert {"name": "x-backstay-token", "string_match": {"exact": "a-token"}} in route["match"]["headers"]
    assert not [route for route in routes_of(envoy.MESH) if route.get("stat_prefix") == envoy.PINNED]


def test_versions_follow_the_content() -> None:
    first = envoy.routes(envoy.GATEWAY, ALL_OWN, "t")
    assert envoy.routes(envoy.GATEWAY, dict(reversed(ALL_OWN.items())), "t") == first
    assert envoy.routes(envoy.GATEWAY, {**ALL_OWN, "file-service": Weights(99, 1)}, "t").version != first.version
    assert envoy.endpoints("c", [2, 1]) == envoy.endpoints("c", [1, 2])


def test_a_cluster_without_members_has_an_empty_assignment() -> None:
    [assignment] = json.loads(envoy.endpoints("file-service.service", []).text)["resources"]
    assert assignment["cluster_name"] == "file-service.service"
    assert assignment["endpoints"] == [{"lb_endpoints": []}]


@pytest.mark.parametrize("cluster", clusters(), ids=lambda cluster: cluster["name"])
def test_every_cluster_follows_the_rules_of_removal_checks_and_ejection(cluster: dict[str, Any]) -> None:
    assert cluster["ignore_health_on_host_removal"] is True
    [check] = cluster["health_checks"]
    assert (check["http_health_check"]["path"], check["interval"], check["no_traffic_interval"]) == (
        "/ready",
        "1s",
        "1s",
    )
    outliers = cluster["outlier_detection"]
    assert (outliers["consecutive_gateway_failure"], outliers["interval"]) == (5, "10s")
    assert (outliers["base_ejection_time"], outliers["max_ejection_percent"]) == ("30s", 50)
    assert outliers["enforcing_consecutive_5xx"] == 0
    [protocol] = cluster["typed_extension_protocol_options"].values()
    assert protocol["common_http_protocol_options"]["idle_timeout"] == "3s"


def test_everything_listens_on_loopback() -> None:
    text = json.dumps(envoy.bootstrap(LAYOUT))
    assert "0.0.0.0" not in text
    addresses = [listener["address"] for listener in envoy.bootstrap(LAYOUT)["static_resources"]["listeners"]]
    assert [address["socket_address"]["port_value"] for address in addresses] == [7000, 7001]
    assert {address["socket_address"]["address"] for address in addresses} == {"127.0.0.1"}
