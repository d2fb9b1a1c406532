"""Who caused whom in a trace, whatever is missing, doubled or circular in it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass, replace

from control_plane.tracing.spans import Span, SpanKind, Trace


@dataclass(frozen=True, slots=True)
class SpanTree:
    """A trace as a forest: every span is reachable from exactly one root.

    `spans` holds each span once. `children[i]` and `roots` are indices into it. `remarks` says in plain words what was
    wrong with the trace and what was made of it; a clean trace has none.
    """

    spans: Sequence[Span]
    children: Sequence[Sequence[int]]
    roots: Sequence[int]
    remarks: Sequence[str]


def tree_of(trace: Trace) -> SpanTree:
    """The forest of a trace.

    A span whose parent is missing hangs below the root that had begun last when it started: in a trace with one root
    everything descends from it, so only the links between are lost. Where the root itself is missing, each such span
    is a root. A cycle is cut at its earliest span.
    """
    spans, remarks = _each_once(trace.spans)
    index = {span.span_id: position for position, span in enumerate(spans)}
    shared = _server_halves(spans)
    parents: list[int | None] = [_parent_of(position, span, index, shared) for position, span in enumerate(spans)]

    cut = _cut_cycles(spans, parents)
    if cut:
        remarks.append(f"{cut} circular parent link(s) were cut at the earliest span")

    entries = [position for position, parent in enumerate(parents) if parent is None]
    roots = [position for position in entries if spans[position].parent_id is None]
    orphans = [position for position in entries if spans[position].parent_id is not None]
    if orphans:
        remarks.append(f"{len(orphans)} span(s) name a parent that is not in the trace")
    roots = _adopt(spans, parents, roots, orphans)
    if len(roots) > 1:
        remarks.append(f"{len(roots)} spans have no parent")

    children: list[list[int]] = [[] for _ in spans]
    for position, parent in enumerate(parents):
        if parent is not None:
            children[parent].append(position)
    return SpanTree(spans, children, roots, remarks)


def _each_once(spans: Sequence[Span]) -> tuple[list[Span], list[str]]:
    """Every span id once; the first report of an id stands.

    Client and server halves of a call that share one id (Zipkin's habit) are both kept, the server's below.
    """
    kept: dict[str, Span] = {}
    dropped = 0
    for span in spans:
        first = kept.setdefault(span.span_id, span)
        if first is span:
            continue
        half = _half_id(span.span_id)
        if {first.kind, span.kind} == {SpanKind.CLIENT, SpanKind.SERVER} and half not in kept:
            client, server = (first, span) if first.kind is SpanKind.CLIENT else (span, first)
            kept[span.span_id] = client
            kept[half] = replace(server, span_id=half, parent_id=client.span_id, follows=False)
        else:
            dropped += 1
    remarks = [f"{dropped} span(s) repeat an id that was already taken; the first stands"] if dropped else []
    return list(kept.values()), remarks


def _half_id(span_id: str) -> str:
    return f"{span_id}/server"


def _server_halves(spans: Sequence[Span]) -> dict[str, int]:
    """By shared span id, where the server's half stands: what it called is its child, not the client's."""
    return {
        span.parent_id: position
        for position, span in enumerate(spans)
        if span.parent_id is not None and span.span_id == _half_id(span.parent_id)
    }


def _parent_of(position: int, span: Span, index: dict[str, int], shared: dict[str, int]) -> int | None:
    if span.parent_id is None:
        return None
    half = shared.get(span.parent_id)
    return half if half is not None and half != position else index.get(span.parent_id)


def _cut_cycles(spans: Sequence[Span], parents: list[int | None]) -> int:
    """Makes `parents` acyclic in place; returns how many links were cut. Each link is followed once."""
    unseen, open_, done = 0, 1, 2
    colour = [unseen] * len(spans)
    cut = 0
    for start in range(len(spans)):
        path: list[int] = []
        at: int | None = start
        while at is not None and colour[at] == unseen:
            colour[at] = open_
            path.append(at)
            at = parents[at]
        if at is not None and colour[at] == open_:
            cycle = path[path.index(at) :]
            parents[min(cycle, key=lambda position: spans[position].start_us)] = None
            cut += 1
        for position in path:
            colour[position] = done
    return cut


def _adopt(spans: Sequence[Span], parents: list[int | None], roots: list[int], orphans: Sequence[int]) -> list[int]:
    """Hangs orphans below the root that had begun last when they started, in place; returns the roots to use."""
    if not roots:
        return list(orphans)
    in_time = sorted(roots, key=lambda position: spans[position].start_us)
    starts = [spans[position].start_us for position in in_time]
    for orphan in orphans:
        parents[orphan] = in_time[max(0, bisect_right(starts, spans[orphan].start_us) - 1)]
    return roots
