"""The four drills on the real stack: their timelines, and every request accounted for."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from control_plane.clock import Monotonic
from control_plane.errors import SourceUnavailable
from control_plane.local.bench.page import Check, Result, Table
from control_plane.local.bench.stack_under_test import StackUnderTest, rest

NAMES = ("errors", "latency", "crash", "saturation")
SERVICE = "ai-gateway-service"
DETECTED_SECONDS = 15.0
MOVED_SECONDS = 45.0
FIRST_WAIT_SECONDS = 75.0
"""After a start: Backstay learns what is usual before anything is broken."""
BETWEEN_SECONDS = 15.0
PATIENCE_SECONDS = 240.0
"""Longest wait until a drill may start: one that finds users hurt is refused."""
PASSED, FAILED, REFUSED = 0, 1, 2

Drilled = dict[str, Any]
"""The JSON of one drill, as `backstay drill --format json` prints it."""


@dataclass(frozen=True, slots=True)
class Unfit:
    """A drill that could not be started at all."""

    name: str
    why: str


def measure(stack: StackUnderTest, monotonic: Monotonic, tell: Callable[[str], None]) -> Result:
    """Each drill once."""
    return result("drills", *_run(NAMES, stack, monotonic, tell), wanted=len(NAMES))


def measure_again_and_again(
    times: int, stack: StackUnderTest, monotonic: Monotonic, tell: Callable[[str], None]
) -> Result:
    """The drill `errors`, so many times on the same stack."""
    return result("repeats", *_run(["errors"] * times, stack, monotonic, tell), wanted=times)


def _run(
    names: Sequence[str], stack: StackUnderTest, monotonic: Monotonic, tell: Callable[[str], None]
) -> tuple[list[Drilled], list[str]]:
    """Drills in turn, put right by hand where a drill could not put things back itself; and notes about that."""
    started = not stack.running
    stack.ensure_up()
    if started:
        tell(f"drills: {FIRST_WAIT_SECONDS:.0f} s of ordinary traffic first")
        rest(FIRST_WAIT_SECONDS, monotonic)
    done: list[Drilled] = []
    notes: list[str] = []
    for number, name in enumerate(names):
        tell(f"drill {name} ({number + 1} of {len(names)})")
        found = drill(stack, name, monotonic)
        if isinstance(found, Unfit):
            notes.append(f"The drill `{name}` could not be started: {found.why}")
            continue
        tell(f"drill {name}: {found['outcome']}")
        done.append(found)
        if found["next_step"]:
            notes.append(f"After `{name}`: {found['next_step']} (done here, before the next drill)")
            stack.run("cutover", SERVICE, "--to", "100", "--reason", "bench", allowed=(0, 1, 2))
        rest(BETWEEN_SECONDS, monotonic)
    return done, notes


def drill(stack: StackUnderTest, name: str, monotonic: Monotonic) -> Drilled | Unfit:
    """One drill; a refusal is tried again for a while, since the last one may still be felt."""
    until = monotonic() + PATIENCE_SECONDS
    while True:
        answer = stack.run("drill", name, "--service", SERVICE, "--format", "json", allowed=(PASSED, FAILED, REFUSED))
        if answer.returncode != REFUSED:
            try:
                found: Drilled = json.loads(answer.stdout)
            except ValueError as error:
                raise SourceUnavailable(f"the drill {name} printed no JSON: {answer.stdout[:200]!r}") from error
            return found
        if monotonic() > until:
            return Unfit(name, answer.stderr.strip()[-300:])
        rest(5.0, monotonic)


def result(part: str, done: Sequence[Drilled], notes: Sequence[str], *, wanted: int) -> Result:
    """The part of the page."""
    errors = [each for each in done if each["drill"] == "errors"]
    passed = sum(1 for each in done if each["outcome"] == "passed")
    lost = sum(each["requests"]["lost_to_shift"] for each in done)
    checks = [
        Check("drills passed", f"{passed} of {wanted}", "all", passed == wanted),
        Check("requests lost to the shift, all drills", str(lost), "0", lost == 0 and len(done) == wanted),
    ]
    if errors:
        checks += [
            _slowest("errors: detected", errors, "detected_after_s", DETECTED_SECONDS),
            _slowest("errors: traffic on the monolith", errors, "moved_after_s", MOVED_SECONDS),
        ]
    rows = tuple(_row(each) for each in done)
    headings = (
        "drill", "outcome", "action", "detected", "decided", "capacity ready", "moved", "recovered", "sent",
        "failed by the fault", "lost to the shift",
    )  # fmt: skip
    problems = [f"`{each['drill']}`: {' '.join(each['problems'])}" for each in done if each["problems"]]
    about = (
        f"Each on `{SERVICE}`, at demo traffic. Seconds count from the first request that the fault harmed (from the "
        "injection, where none failed: `latency` fails none). A rollback has moved when the gateway's counters prove "
        "it, a scale-out when its replicas are ready."
    )
    return Result(part, tuple(checks), (Table(headings, rows),), (about, *problems, *notes))


def _slowest(what: str, done: Sequence[Drilled], field: str, limit: float) -> Check:
    seconds = [each[field] for each in done]
    missing = any(value is None for value in seconds)
    worst = max((value for value in seconds if value is not None), default=None)
    among = "" if len(done) == 1 else f", slowest of {len(done)}"
    value = "not in every run" if missing or worst is None else f"{worst:.1f} s{among}"
    return Check(what, value, f"<= {limit:.0f} s", not missing and worst is not None and worst <= limit)


def _row(each: Drilled) -> tuple[str, ...]:
    action, requests = each["action"], each["requests"]
    return (
        each["drill"],
        each["outcome"],
        "none" if action is None else f"{action['kind'].replace('_', ' ')} {action['target']}",
        *(
            _seconds(each[f"{moment}_after_s"])
            for moment in ("detected", "decided", "capacity_ready", "moved", "recovered")
        ),
        str(requests["sent"]),
        str(requests["failed_by_fault"]),
        str(requests["lost_to_shift"]),
    )


def _seconds(value: float | None) -> str:
    return "never" if value is None else f"{value:.1f} s"
