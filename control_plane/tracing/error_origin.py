"""Where a failed request failed first: the span whose error came from no other span."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control_plane.tracing.spans import Span, SpanKind, TagValue, Trace
from control_plane.tracing.tree import SpanTree, tree_of

# Statuses with which a server says that the fault is its own. Source: OpenTelemetry semantic conventions for gRPC.
GRPC_SERVER_FAULTS = frozenset({2, 4, 12, 13, 14, 15})
_HTTP_STATUS = ("http.response.status_code", "http.status_code")
_GRPC_STATUS = ("rpc.grpc.status_code", "grpc.status_code", "rpc.response.status_code")

_PEER = ("url.full", "http.url", "peer.service", "server.address", "net.peer.name")

_Call = tuple[str, str, str]  # service, operation, peer


@dataclass(frozen=True, slots=True)
class ErrorOrigin:
    """The span that a root's error began in, and the way down to it."""

    span: Span
    path: Sequence[Span]  # from the root to `span`, both included


def is_error(span: Span) -> bool:
    """Whether the span says of itself that it failed through a fault on the serving side.

    An OpenTelemetry status of OK, set on purpose, outranks everything. A status code outranks ERROR and the `error`
    tag, which tracers also set on the calling side for a caller's own mistake (4xx).
    """
    status = str(span.tags.get("otel.status_code", "")).upper()
    if status == "OK":
        return False
    http = _number(span, _HTTP_STATUS)
    if http is not None and http >= 400:
        return http >= 500
    grpc = _number(span, _GRPC_STATUS)
    if grpc:
        return grpc in GRPC_SERVER_FAULTS
    return status == "ERROR" or _is_true(span.tags.get("error"))


def error_origins(trace: Trace) -> Sequence[ErrorOrigin]:
    """One origin for each root that failed, in no particular order; empty when no root did.

    An error that a caller got over (a retry that succeeded, a fallback) leaves the caller without error and is none.
    """
    tree = tree_of(trace)
    failed = [is_error(span) for span in tree.spans]
    return [_descend(tree, failed, root) for root in tree.roots if failed[root]]


def _descend(tree: SpanTree, failed: Sequence[bool], root: int) -> ErrorOrigin:
    path = [root]
    while (cause := _inherited_from(tree, failed, path[-1])) is not None:
        path += cause
    spans = [tree.spans[position] for position in path]
    return ErrorOrigin(spans[-1], spans)


def _inherited_from(tree: SpanTree, failed: Sequence[bool], position: int) -> list[int] | None:
    """The way to the child whose error reached `position`: the failed one that ended last. None when there is none.

    A client span that is not marked as failed hands on the failure of the server that it called.
    """
    causes: list[list[int]] = []
    for child in tree.children[position]:
        if failed[child]:
            causes.append([child])
        elif tree.spans[child].kind is SpanKind.CLIENT:
            causes += [
                [child, server]
                for server in tree.children[child]
                if failed[server] and tree.spans[server].kind is SpanKind.SERVER
            ]
    good = _latest_success(tree, position) if causes else {}
    lasting = [way for way in causes if tree.spans[way[0]].end_us > good.get(_call(tree, way[0]), -1)]
    return max(lasting, key=lambda way: tree.spans[way[0]].end_us, default=None)


def _latest_success(tree: SpanTree, parent: int) -> Mapping[_Call, int]:
    """When each call that `parent` made last began and then succeeded: failed attempts before that were got over."""
    latest: dict[_Call, int] = {}
    for child in tree.children[parent]:
        if not is_error(tree.spans[child]):
            call = _call(tree, child)
            latest[call] = max(latest.get(call, 0), tree.spans[child].start_us)
    return latest


def _call(tree: SpanTree, position: int) -> _Call:
    """What two attempts at the same thing share: client spans are often named "POST", so whom they asked counts."""
    span = tree.spans[position]
    asked = [tree.spans[child].service for child in tree.children[position]] if span.kind is SpanKind.CLIENT else []
    peer = next((str(span.tags[name]) for name in _PEER if name in span.tags), asked[0] if asked else "")
    return (span.service, span.operation, peer)


def _number(span: Span, names: Sequence[str]) -> int | None:
    for name in names:
        value = span.tags.get(name)
        if isinstance(value, str) and value.strip().isdecimal():
            return int(value)
        if isinstance(value, int | float) and not isinstance(value, bool) and value == value // 1:
            return int(value)
    return None


def _is_true(value: TagValue | None) -> bool:
    return value is not None and str(value).strip().lower() in {"true", "1"}
