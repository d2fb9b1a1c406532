"""Memory and processor time of every process of the stack, while demo users are at work."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import psutil

from control_plane.clock import Monotonic
from control_plane.errors import SourceUnavailable
from control_plane.local.bench.machine import GIB, OtherLoad
from control_plane.local.bench.page import Check, Result, Table
from control_plane.local.bench.stack_under_test import StackUnderTest, rest

MIB = 1024**2
SETTLE_SECONDS = 60.0
"""After the start: imports, first requests and the first users cost more than what follows."""
WATCHED_SECONDS = 60.0
LOOKS = 6
"""Memory is looked at this often while the minute goes by; the largest sum counts."""

MEMORY_LIMIT_GIB = 2.5
CORES_LIMIT = 1.5
REQUESTS_LIMIT = 10.0
"""Least requests per second of each service for which the limits were set."""

OTHER = "not named"


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one process at one moment. `pss` counts shared pages in parts, so that sums are true; None: not known here."""

    name: str
    rss_bytes: int
    pss_bytes: int | None
    cpu_seconds: float


Costs = Mapping[int, Cost]
"""By process id."""


def measure(stack: StackUnderTest, monotonic: Monotonic, tell: Callable[[str], None]) -> Result:
    """One minute of demo traffic, after it has settled."""
    stack.ensure_up()
    tell(f"stack: {SETTLE_SECONDS:.0f} s to settle")
    rest(SETTLE_SECONDS, monotonic)
    tell(f"stack: {WATCHED_SECONDS:.0f} s of demo traffic")
    first = look(stack)
    ticks_before = tick_seconds(stack.own_metrics())
    others = OtherLoad(lambda: sum(cost.cpu_seconds for cost in look(stack, memory=False).values()), monotonic)
    began, looks = monotonic(), [first]
    for _ in range(LOOKS):
        rest(WATCHED_SECONDS / LOOKS, monotonic)
        looks.append(look(stack))
    took = monotonic() - began
    elsewhere = others.cores()
    ticks_after = tick_seconds(stack.own_metrics())
    return result(looks, took, rates(stack.status()), elsewhere, _mean_tick(ticks_before, ticks_after))


def look(stack: StackUnderTest, *, memory: bool = True) -> dict[int, Cost]:
    """Every process of the stack: the supervisor and all below it, named by the cluster API."""
    state = stack.cluster_state()
    names = names_of(state)
    top = psutil.Process(stack.supervisor())
    found = {}
    for process in [top, *top.children(recursive=True)]:
        try:
            with process.oneshot():
                times = process.cpu_times()
                rss = process.memory_info().rss
                pss = getattr(process.memory_full_info(), "pss", None) if memory else None
        except psutil.Error:
            continue  # it ended between the two
        found[process.pid] = Cost(names.get(process.pid, OTHER), rss, pss, times.user + times.system)
    return found


def names_of(state: Mapping[str, Any]) -> dict[int, str]:
    """Group of each process: replicas go by their deployment."""
    groups = {
        replica["pid"]: deployment
        for deployment, each in state["deployments"].items()
        for replica in each["replicas"]
        if replica["pid"] is not None
    }
    return {usage["pid"]: groups.get(usage["pid"], name) for name, usage in state["processes"].items()}


def rates(status: Mapping[str, Any]) -> dict[str, float]:
    """Requests per second at the gateway by service."""
    services = status.get("services") or {}
    return {
        name: each["requests_per_second"] for name, each in services.items() if each["requests_per_second"] is not None
    }


def tick_seconds(metrics: str) -> tuple[float, float]:
    """Ticks so far and the seconds that they took, from the control plane's own metrics."""
    found = {
        name: float(match[1])
        for name in ("backstay_tick_seconds_count", "backstay_tick_seconds_sum")
        if (match := re.search(rf"^{name} (\S+)$", metrics, re.MULTILINE)) is not None
    }
    if len(found) != 2:
        raise SourceUnavailable("the control plane exports no backstay_tick_seconds")
    return found["backstay_tick_seconds_count"], found["backstay_tick_seconds_sum"]


def result(
    looks: Sequence[Costs], seconds: float, requests: Mapping[str, float], others: float, tick: float | None
) -> Result:
    """The part of the page."""
    largest = max(looks, key=lambda costs: _memory(costs.values()))
    exact = all(cost.pss_bytes is not None for cost in largest.values())
    memory, cores = _memory(largest.values()) / GIB, cpu_seconds(looks[0], looks[-1]) / seconds
    slowest = min(requests.values(), default=0.0)
    word = "PSS" if exact else "RSS"
    total_rss = sum(cost.rss_bytes for cost in largest.values()) / GIB
    return Result(
        "stack",
        checks=(
            Check(
                f"memory ({word}, all processes)",
                f"{memory:.2f} GiB",
                f"< {MEMORY_LIMIT_GIB} GiB",
                memory < MEMORY_LIMIT_GIB,
            ),
            Check("processor", f"{cores:.2f} cores", f"< {CORES_LIMIT} cores", cores < CORES_LIMIT),
            Check(
                "demo traffic of the quietest service",
                f"{slowest:.1f} requests/s",
                f">= {REQUESTS_LIMIT:.0f}/s",
                slowest >= REQUESTS_LIMIT,
            ),
        ),
        tables=(Table(("processes", "number", word, "RSS", "cores"), _rows(looks[0], largest, looks[-1], seconds)),),
        notes=(
            f"{seconds:.0f} s at {sum(requests.values()):.0f} requests/s in all at the gateway, after "
            f"{SETTLE_SECONDS:.0f} s to settle; memory is the largest of {len(looks)} looks. "
            + (
                "PSS counts a page that several processes share in parts, so that the sum is what the stack takes; "
                f"RSS counts it in each, {total_rss:.2f} GiB in all. "
                if exact
                else "RSS counts a page that several processes share in each of them: the true sum is smaller. "
            )
            + f"Other programs used {others:.1f} cores meanwhile.",
            "A few minutes after a start. In hours the trace store grows to its limit (128 MiB of traces by default) "
            "and Prometheus with the series of its last two hours.",
            *(() if tick is None else (f"A whole tick of the control plane took {tick * 1000:.0f} ms on average.",)),
        ),
    )


def cpu_seconds(first: Costs, last: Costs) -> float:
    """Processor time between two looks. A process that began in between counts from its start."""
    return sum(
        max(0.0, cost.cpu_seconds - (first[pid].cpu_seconds if pid in first else 0.0)) for pid, cost in last.items()
    )


def _rows(first: Costs, largest: Costs, last: Costs, seconds: float) -> tuple[tuple[str, ...], ...]:
    groups: dict[str, list[Cost]] = defaultdict(list)
    for cost in largest.values():
        groups[cost.name].append(cost)
    used: dict[str, float] = defaultdict(float)
    for pid, cost in last.items():
        used[cost.name] += cpu_seconds({pid: first[pid]} if pid in first else {}, {pid: cost}) / seconds
    rows = [
        (
            name,
            str(len(costs)),
            f"{_memory(costs) / MIB:.0f} MiB",
            f"{sum(cost.rss_bytes for cost in costs) / MIB:.0f} MiB",
            f"{used[name]:.2f}",
        )
        for name, costs in sorted(groups.items(), key=lambda item: -_memory(item[1]))
    ]
    everything = list(largest.values())
    total_rss = sum(cost.rss_bytes for cost in everything) / MIB
    total_cores = f"{cpu_seconds(first, last) / seconds:.2f}"
    return (
        *rows,
        ("all", str(len(everything)), f"{_memory(everything) / MIB:.0f} MiB", f"{total_rss:.0f} MiB", total_cores),
    )


def _memory(costs: Iterable[Cost]) -> int:
    return sum(cost.rss_bytes if cost.pss_bytes is None else cost.pss_bytes for cost in costs)


def _mean_tick(before: tuple[float, float], after: tuple[float, float]) -> float | None:
    ticks = after[0] - before[0]
    return None if ticks <= 0 else (after[1] - before[1]) / ticks
