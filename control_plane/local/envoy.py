"""Envoy's configuration as values: what it is started with, its routes by weight, and its endpoints. Pure.

Route and endpoint files carry a version made of their content, so writing the same twice changes nothing, and Envoy's
`version_text` tells which one is live.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from control_plane.local.layout import LOOPBACK, Layout
from control_plane.topology import SERVICES, Backend, Weights

Json = dict[str, Any]

GATEWAY = "gateway"
MESH = "mesh"
LISTENERS = (GATEWAY, MESH)

PREFIXES: Mapping[str, tuple[str, ...]] = {
    "identity-service": ("/api/auth", "/api/users"),
    "conversation-service": ("/api/conversations",),
    "ai-gateway-service": ("/v1/chat", "/v1/models"),
    "file-service": ("/api/files",),
    "search-service": ("/api/search",),
    "notification-service": ("/api/notifications",),
    "streaming-service": ("/api/streams",),
}
"""Public paths of each service."""

STREAM_PREFIXES = frozenset({"/v1/chat", "/api/streams"})
"""Paths whose answer may be a stream: no limit on its whole length, only on silence."""

OWN_PATHS = ("/health", "/ready", "/metrics")
"""What a replica tells its own cluster; never routed."""

PIN_BACKEND_HEADER = "x-backstay-backend"
PIN_TOKEN_HEADER = "x-backstay-token"  # noqa: S105  a header's name
FAULT_HEADER = "x-backstay-fault"
PINNED = "smoke"
"""Statistics name of pinned requests, so that they count in no objective."""

REQUEST_TIMEOUT = "30s"  # read_timeout of the migration document
STREAM_SILENCE_TIMEOUT = "120s"  # idle_timeout of the migration document

UPSTREAM_IDLE = "3s"
"""Below a replica's keep-alive (75 s): whoever closes an idle connection last never sends into a closed one."""

LATENCY_BUCKETS_MS = (5, 10, 25, 50, 100, 200, 250, 500, 1000, 2500, 5000, 10000, 30000)
"""The 200 is the objective's: without it no share of requests under 200 ms could be read."""

# The request never left in both cases, so repeating it is safe whatever the method.
RETRY_ALWAYS = "connect-failure,refused-stream"
# For methods that may be repeated: also answers in which the callee says that it did nothing (gRPC status).
RETRY_SAFE = f"{RETRY_ALWAYS},unavailable,cancelled"

TYPES = "type.googleapis.com/envoy"

KEPT_STATISTICS = (
    r"vhost\.(gateway|mesh)\.route\.[a-z-]+\.upstream_rq_(completed|[1-5]xx|time|timeout|retry|retry_success)",
    r"cluster\.[a-z-]+\.(service|monolith)\."
    r"(upstream_rq_(completed|[1-5]xx|active|retry|retry_success|timeout|pending_overflow|time|rx_reset)"
    r"|upstream_cx_(active|connect_fail)|membership_(total|healthy)|health_check\.failure"
    r"|outlier_detection\.ejections_(active|enforced_total)|update_(success|failure|rejected)|version_text)",
    r"http\.(gateway|mesh)\.(downstream_rq_([1-5]xx|active|total)|downstream_cx_active"
    r"|no_route|rds\.(gateway|mesh)\.(update_(success|failure|rejected)|config_reload|version_text))",
    r"server\.(live|uptime|memory_allocated|total_connections)",
)
"""All that is kept: a scrape each second stays cheap because the rest is never counted."""


def cluster_name(service: str, backend: Backend) -> str:
    return f"{service}.{backend}"


CLUSTERS: tuple[tuple[str, Backend], ...] = tuple((service, backend) for service in SERVICES for backend in Backend)
"""Every service with each backend that can answer for it."""


@dataclass(frozen=True, slots=True)
class Discovery:
    """One discovery file: its version and its text."""

    version: str
    text: str


def discovery(resource: Json) -> Discovery:
    """Wraps one resource as Envoy reads it from a file."""
    content = json.dumps(resource, sort_keys=True)
    version = hashlib.sha256(content.encode()).hexdigest()[:16]
    return Discovery(version, json.dumps({"version_info": version, "resources": [resource]}))


# --- routes


def routes(listener: str, weights: Mapping[str, Weights], token: str) -> Discovery:
    """Route table of a listener. The gateway goes by path, the mesh by the Host that the caller asks for."""
    own_paths = [
        {"match": {"path": path}, "direct_response": {"status": 404}, "name": "own-paths"} for path in OWN_PATHS
    ]
    rules: list[Json] = [*own_paths]
    for service in SERVICES:
        rules += _service_routes(listener, service, weights[service], token)
    return discovery(
        {
            "@type": f"{TYPES}.config.route.v3.RouteConfiguration",
            "name": listener,
            "virtual_hosts": [
                {
                    "name": listener,
                    "domains": ["*"],
                    "routes": rules,
                    "request_headers_to_remove": [PIN_BACKEND_HEADER, PIN_TOKEN_HEADER],
                }
            ],
        }
    )


def _service_routes(listener: str, service: str, weights: Weights, token: str) -> Iterable[Json]:
    for match in _matches(listener, service):
        streams = match.pop("streams")
        headers = match.pop("headers", [])
        if listener == GATEWAY:
            for backend in Backend:
                pin = [_header(PIN_TOKEN_HEADER, token), _header(PIN_BACKEND_HEADER, backend)]
                action = {"cluster": cluster_name(service, backend)}
                yield _route(service, PINNED, {**match, "headers": [*headers, *pin]}, action, streams, RETRY_ALWAYS)
        shares = {
            "weighted_clusters": {
                "clusters": [
                    {"name": cluster_name(service, backend), "weight": weights.of(backend)} for backend in Backend
                ]
            }
        }
        repeatable = {"name": ":method", "string_match": {"safe_regex": {"regex": "GET|HEAD|OPTIONS"}}}
        yield _route(service, service, {**match, "headers": [*headers, repeatable]}, shares, streams, RETRY_SAFE)
        yield _route(service, service, {**match, "headers": headers}, shares, streams, RETRY_ALWAYS)


def _matches(listener: str, service: str) -> Iterable[Json]:
    if listener == GATEWAY:
        for prefix in PREFIXES[service]:
            yield {"path_separated_prefix": prefix, "streams": prefix in STREAM_PREFIXES}
        return
    asked_for = {
        "name": ":authority",
        "string_match": {"safe_regex": {"regex": rf"{re.escape(service)}(\.librechat[a-z.]*)?(:[0-9]+)?"}},
    }
    for prefix in PREFIXES[service]:
        if prefix in STREAM_PREFIXES:
            yield {"path_separated_prefix": prefix, "headers": [asked_for], "streams": True}
    yield {"prefix": "/", "headers": [asked_for], "streams": False}


def _header(name: str, value: str) -> Json:
    return {"name": name, "string_match": {"exact": value}}


def _route(service: str, counted_as: str, match: Json, action: Json, streams: bool, retry_on: str) -> Json:
    limits = {"timeout": "0s", "idle_timeout": STREAM_SILENCE_TIMEOUT} if streams else {"timeout": REQUEST_TIMEOUT}
    return {
        "name": service,
        "stat_prefix": counted_as,
        "match": match,
        "route": {
            **action,
            **limits,
            "retry_policy": {
                "retry_on": retry_on,
                "num_retries": 2,
                "retry_host_predicate": [
                    {
                        "name": "envoy.retry_host_predicates.previous_hosts",
                        "typed_config": {
                            "@type": f"{TYPES}.extensions.retry.host.previous_hosts.v3.PreviousHostsPredicate"
                        },
                    }
                ],
                "host_selection_retry_max_attempts": 3,
                "retry_back_off": {"base_interval": "0.025s", "max_interval": "0.25s"},
            },
        },
    }


# --- endpoints


def endpoints(cluster: str, ports: Iterable[int]) -> Discovery:
    """Endpoints of one cluster, by port on loopback. None at all is an empty assignment, not a missing file."""
    return discovery(
        {
            "@type": f"{TYPES}.config.endpoint.v3.ClusterLoadAssignment",
            "cluster_name": cluster,
            "endpoints": [{"lb_endpoints": [{"endpoint": {"address": _address(port)}} for port in sorted(ports)]}],
        }
    )


def _address(port: int) -> Json:
    return {"socket_address": {"address": LOOPBACK, "port_value": port}}


# --- what Envoy is started with


def bootstrap(layout: Layout) -> Json:
    """Listeners, clusters and statistics; routes and endpoints come from files that may change while it runs."""
    return {
        "node": {"id": "gateway", "cluster": "backstay"},
        "admin": {
            "address": _address(layout.envoy_admin_port),
            # A dump of the configuration would show the token, and /quitquitquit would stop the gateway.
            "allow_paths": [{"prefix": "/stats"}, {"exact": "/ready"}],
        },
        "stats_config": _statistics(),
        "stats_flush_interval": "0.5s",  # histograms are as old as the last flush, and the gateway is asked each second
        "static_resources": {
            "listeners": [
                _listener(layout, GATEWAY, layout.gateway_port, str(layout.gateway_access_log)),
                _listener(layout, MESH, layout.mesh_port, str(layout.mesh_access_log)),
            ],
            "clusters": [_cluster(layout, cluster_name(service, backend)) for service, backend in CLUSTERS],
        },
    }


def _statistics() -> Json:
    return {
        "use_all_default_tags": True,
        "stats_tags": [
            {"tag_name": "envoy.backend", "regex": r"^cluster\.[a-z-]+\.((service|monolith)\.)"},
        ],
        "stats_matcher": {
            "inclusion_list": {"patterns": [{"safe_regex": {"regex": pattern}} for pattern in KEPT_STATISTICS]}
        },
        "histogram_bucket_settings": [
            {"match": {"suffix": "upstream_rq_time"}, "buckets": list(LATENCY_BUCKETS_MS)},
        ],
    }


def _listener(layout: Layout, name: str, port: int, access_log: str) -> Json:
    return {
        "name": name,
        "address": _address(port),
        "filter_chains": [{"filters": [_connections(layout, name, access_log)]}],
    }


def _connections(layout: Layout, name: str, access_log: str) -> Json:
    return {
        "name": "envoy.filters.network.http_connection_manager",
        "typed_config": {
            "@type": f"{TYPES}.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager",
            "stat_prefix": name,
            "codec_type": "AUTO",
            "rds": {
                "route_config_name": name,
                "config_source": _file_source(str(layout.routes_file(name))),
            },
            "http_filters": [
                {
                    "name": "envoy.filters.http.router",
                    "typed_config": {"@type": f"{TYPES}.extensions.filters.http.router.v3.Router"},
                }
            ],
            # Callers may not steer retries and time-outs by x-envoy-* headers, though they are on loopback.
            "use_remote_address": name == GATEWAY,
            "internal_address_config": {"cidr_ranges": [{"address_prefix": "255.255.255.255", "prefix_len": 32}]},
            "preserve_external_request_id": True,
            "request_id_extension": {
                "typed_config": {
                    "@type": f"{TYPES}.extensions.request_id.uuid.v3.UuidRequestIdConfig",
                    "pack_trace_reason": False,
                }
            },
            "always_set_request_id_in_response": True,
            "normalize_path": True,
            "merge_slashes": True,
            "common_http_protocol_options": {"idle_timeout": "3600s"},
            "stream_idle_timeout": "300s",
            "access_log": [_access_log(access_log)],
        },
    }


def _access_log(path: str) -> Json:
    return {
        "name": "envoy.access_loggers.file",
        "typed_config": {
            "@type": f"{TYPES}.extensions.access_loggers.file.v3.FileAccessLog",
            "path": path,
            "log_format": {
                "json_format": {
                    "start_time": "%START_TIME(%Y-%m-%dT%H:%M:%S.%3fZ)%",
                    "request_id": "%REQ(X-REQUEST-ID)%",
                    "route": "%ROUTE_NAME%",
                    "method": "%REQ(:METHOD)%",
                    "path": "%PATH(NQ:PATH)%",  # a query may hold what a user searched for
                    "authority": "%REQ(:AUTHORITY)%",
                    "upstream_cluster": "%UPSTREAM_CLUSTER_RAW%",
                    "upstream_host": "%UPSTREAM_HOST%",
                    "attempts": "%UPSTREAM_REQUEST_ATTEMPT_COUNT%",
                    "response_code": "%RESPONSE_CODE%",
                    "response_flags": "%RESPONSE_FLAGS%",
                    "response_code_details": "%RESPONSE_CODE_DETAILS%",
                    "duration": "%DURATION%",
                    "fault": f"%RESP({FAULT_HEADER})%",
                    "user_agent": "%REQ(USER-AGENT)%",
                    "traceparent": "%REQ(TRACEPARENT)%",
                }
            },
        },
    }


def _file_source(path: str) -> Json:
    return {"path_config_source": {"path": path}, "resource_api_version": "V3"}


def _cluster(layout: Layout, name: str) -> Json:
    return {
        "name": name,
        "type": "EDS",
        "eds_cluster_config": {"eds_config": _file_source(str(layout.endpoints_file(name)))},
        "connect_timeout": "1s",
        "lb_policy": "LEAST_REQUEST",
        "common_lb_config": {
            # Never send to a replica that fails its checks while another passes them. When none passes, on a machine
            # that is short of processor time, try all the same: those that died are no members any more.
            "healthy_panic_threshold": {"value": 1},
            # By default workers hear of health changes up to a second late: a new replica, already healthy by Envoy's
            # own counters, would meanwhile be answered for with 503.
            "update_merge_window": "0s",
        },
        # A removed endpoint that still passes its checks would keep its share of the traffic.
        "ignore_health_on_host_removal": True,
        "health_checks": [
            {
                "timeout": "2s",  # a busy replica is no dead one
                "interval": "1s",
                "no_traffic_interval": "1s",
                "unhealthy_threshold": 3,
                "healthy_threshold": 1,
                "http_health_check": {"path": "/ready"},
            }
        ],
        "outlier_detection": {
            "consecutive_gateway_failure": 5,
            "enforcing_consecutive_gateway_failure": 100,
            "interval": "10s",
            "base_ejection_time": "30s",
            "max_ejection_percent": 50,
            # An application's own 500 says nothing about the replica that spoke it.
            "enforcing_consecutive_5xx": 0,
            "enforcing_success_rate": 0,
            "enforcing_failure_percentage": 0,
            # A check that passes right after the ejection would end it at once.
            "successful_active_health_check_uneject_host": False,
        },
        "circuit_breakers": {
            "thresholds": [
                {"max_connections": 4096, "max_pending_requests": 4096, "max_requests": 4096, "max_retries": 64}
            ]
        },
        "typed_extension_protocol_options": {
            "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
                "@type": f"{TYPES}.extensions.upstreams.http.v3.HttpProtocolOptions",
                "common_http_protocol_options": {"idle_timeout": UPSTREAM_IDLE},
                "explicit_http_config": {"http_protocol_options": {}},
            }
        },
    }
