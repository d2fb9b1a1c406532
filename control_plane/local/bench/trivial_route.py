"""Requests a second that one core answers on a trivial route, with all telemetry and without any."""

from __future__ import annotations

import json
import shutil
import statistics
import subprocess
import sys
from collections.abc import Sequence

from control_plane.clock import Monotonic
from control_plane.errors import SourceUnavailable
from control_plane.local.bench.machine import REPOSITORY, OtherLoad, cores, own_and_children_cpu_seconds
from control_plane.local.bench.page import Check, Result, Table

NAMES = {
    "bare": "the route alone in FastAPI",
    "0.1": "slots, metrics and spans, a tenth of the traces recorded",
    "1.0": "slots, metrics and spans, every trace recorded",
}
WHOLE = "1.0"
LIMIT = 2000.0


def measure(monotonic: Monotonic, rounds: int = 3, seconds: int = 3) -> Result:
    """Runs the suite's own bench, which knows how a replica is put together."""
    if shutil.which("wrk") is None:
        return Result("requests", problem="`wrk` is not installed (Debian: `apt-get install wrk`).")
    command = [sys.executable, "-m", "services.bench_trivial_route", f"--rounds={rounds}", f"--seconds={seconds}"]
    others = OtherLoad(own_and_children_cpu_seconds, monotonic)
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise SourceUnavailable(f"the trivial route could not be measured: {(done.stderr.strip() or 'no word')[-300:]}")
    return result(json.loads(done.stdout)["trivial_route_requests_per_second"], others.cores(), rounds, seconds)


def result(found: dict[str, list[int]], others: float, rounds: int, seconds: int) -> Result:
    """The part of the page, from requests a second by variant and round."""
    bare = statistics.median(found["bare"])
    rows = [
        (
            NAMES[variant],
            _span(rates),
            f"{statistics.median(rates) / bare:.0%}",
        )
        for variant, rates in found.items()
    ]
    whole = statistics.median(found[WHOLE])
    pinned = "the server on one core and wrk on another" if cores() > 1 else "server and wrk on the same core"
    return Result(
        "requests",
        checks=(Check("requests/s, everything on", f"{whole:.0f}", f"> {LIMIT:.0f}", whole > LIMIT),),
        tables=(Table(("what answers", "requests/s: median (lowest to highest)", "of the bare route"), tuple(rows)),),
        notes=(
            f"`GET /api/users/{{user_id}}/trivial` on Uvicorn, 32 connections, {pinned}. {rounds} rounds of {seconds} "
            "s in which the variants take turns, so that the shares compare like with like. Other programs used "
            f"{others:.1f} cores meanwhile.",
        ),
    )


def _span(rates: Sequence[int]) -> str:
    return f"{statistics.median(rates):.0f} ({min(rates)} to {max(rates)})"
