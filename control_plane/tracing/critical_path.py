"""Which operations a request really waited for, and for how long each.

Method: from the end of a span back to its start, time belongs to the child that finished last; what no child covers is
the span's own. Source: Zhang et al., "CRISP: Critical Path Analysis of Large-Scale Microservice Architectures", 2022.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from control_plane.tracing.spans import Span, SpanKind, Trace
from control_plane.tracing.tree import SpanTree, tree_of

OVERLAP_ALLOWANCE_PERCENT = 1
"""Siblings that overlap by up to this share of their parent count as one after the other: clocks are coarse."""


@dataclass(frozen=True, slots=True)
class OperationTime:
    """Microseconds of the critical path that one operation spent itself, its children's time excluded."""

    service: str
    operation: str
    exclusive_us: int


@dataclass(frozen=True, slots=True)
class CriticalPath:
    """The critical path of one trace. The times of `operations` (largest first) sum to `duration_us` exactly."""

    trace_id: str
    duration_us: int  # of the root; of all roots together where a trace has several
    operations: Sequence[OperationTime]
    remarks: Sequence[str]  # what was wrong with the trace, in plain words; empty when nothing was


def critical_path(trace: Trace) -> CriticalPath:
    """Exclusive time per operation on the critical path of `trace`."""
    tree = tree_of(trace)
    exclusive: dict[tuple[str, str], int] = {}
    for root in tree.roots:
        for position, exclusive_us in _walk(tree, root):
            span = tree.spans[position]
            key = (span.service, span.operation)
            exclusive[key] = exclusive.get(key, 0) + exclusive_us
    operations = [OperationTime(*key, time) for key, time in exclusive.items()]
    operations.sort(key=lambda each: (-each.exclusive_us, each.service, each.operation))
    duration = sum(tree.spans[root].duration_us for root in tree.roots)
    return CriticalPath(trace.trace_id, duration, operations, tree.remarks)


def exclusive_by_span(trace: Trace) -> Mapping[str, int]:
    """Exclusive microseconds per span id on the critical path; spans that are not on it are absent."""
    tree = tree_of(trace)
    return {tree.spans[at].span_id: time for root in tree.roots for at, time in _walk(tree, root)}


def _walk(tree: SpanTree, root: int) -> list[tuple[int, int]]:
    """(span, exclusive microseconds) of every span on the critical path below `root`, the root first.

    A visit is a span, the window in which it counts, and the correction of its clock.
    """
    path: list[tuple[int, int]] = []
    top = tree.spans[root]
    visits = [(root, top.start_us, top.end_us, 0)]
    while visits:
        position, low, high, shift = visits.pop()
        own = high - low
        allowance = own * OVERLAP_ALLOWANCE_PERCENT // 100
        frontier = high  # everything from here to `high` has its owner
        for child, start, end, child_shift in _last_finishing_first(tree, position, low, high, shift):
            if end > frontier + allowance:  # it ran beside what already owns this time
                continue
            end = min(end, frontier)
            if start >= end:
                continue
            visits.append((child, start, end, child_shift))
            own -= end - start
            frontier = start
        path.append((position, own))
    return path


def _last_finishing_first(
    tree: SpanTree, position: int, low: int, high: int, shift: int
) -> list[tuple[int, int, int, int]]:
    """What `position` waited for as (child, start, end, shift), clipped to its window; the longest first on a tie."""
    parent = tree.spans[position]
    awaited = []
    for child in tree.children[position]:
        span = tree.spans[child]
        if not waits_for(parent, span):
            continue
        child_shift = shift + _skew(parent, span)
        start = max(span.start_us + child_shift, low)
        end = min(span.end_us + child_shift, high)
        if start < end:
            awaited.append((child, start, end, child_shift))
    # The id settles what clipping made equal, so that the order in which spans arrive decides nothing.
    awaited.sort(key=lambda each: (-each[2], each[1], tree.spans[each[0]].span_id))
    return awaited


def waits_for(parent: Span, child: Span) -> bool:
    """Whether `parent` needs `child` to finish.

    Not when the tracer says so (FOLLOWS_FROM), not across a message queue, and not when work in the same process, on
    the same clock, outlives the request that started it by more than the overlap allowance (fire and forget). The time
    of handing over a message stays with whoever hands it over: tracers disagree on when a producer's span ends.
    """
    if child.follows or child.kind in _QUEUED:
        return False
    return not (
        parent.kind is SpanKind.SERVER
        and child.kind in _OUTGOING
        and child.process == parent.process != ""
        and (child.end_us - parent.end_us) * 100 > parent.duration_us * OVERLAP_ALLOWANCE_PERCENT
    )


_QUEUED = (SpanKind.PRODUCER, SpanKind.CONSUMER)
_OUTGOING = (SpanKind.INTERNAL, SpanKind.CLIENT)


def _skew(client: Span, server: Span) -> int:
    """Microseconds to add to the server's clock so that its span lies within its client's, as it did in truth.

    0 when it lies there already, when the two share a clock, or when the pair is not the two sides of one call. The
    span is centred, as if the way there and back took equally long; a longer one (the client gave up) starts together.
    """
    if client.kind is not SpanKind.CLIENT or server.kind is not SpanKind.SERVER:
        return 0
    if client.process == server.process != "":
        return 0
    if client.start_us <= server.start_us and server.end_us <= client.end_us:
        return 0
    slack = client.duration_us - server.duration_us
    if slack < 0:
        return max(0, client.start_us - server.start_us)
    return client.start_us + slack // 2 - server.start_us
