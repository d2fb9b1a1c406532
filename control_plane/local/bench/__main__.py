"""Measures, and writes docs/benchmarks.md: `python -m control_plane.local.bench [--only tick,stack] [--drills N]`."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path

from control_plane.clock import monotonic, utc_now
from control_plane.errors import BackstayError, InvalidDefinition
from control_plane.local.bench import drills, footprint, start, ticks, trivial_route
from control_plane.local.bench.machine import REPOSITORY, commit, machine
from control_plane.local.bench.page import Result, page, section
from control_plane.local.bench.stack_under_test import a_stack

PAGE = REPOSITORY / "docs" / "benchmarks.md"
PORT_BASE = 27000
"""Far from the user's stack, and below the ports that the system hands out."""

PARTS = ("requests", "tick", "start", "stack", "drills")


def main(arguments: Sequence[str] | None = None) -> int:
    """Exit code 0 when every limit was kept, 1 when one was not or a part could not be measured, 2 for a wrong word."""
    chosen = _arguments().parse_args(arguments)
    try:
        parts = wanted(chosen.only, chosen.skip, chosen.drills)
    except InvalidDefinition as error:
        print(f"bench: {error}", file=sys.stderr)
        return 2
    line = command_line(chosen)
    sections: dict[str, str] = {}
    all_kept = True
    with ExitStack() as ending:
        stack = ending.enter_context(a_stack(chosen.port_base, monotonic, _tell))
        work: dict[str, Callable[[], Result]] = {
            "requests": lambda: trivial_route.measure(monotonic),
            "start": lambda: start.measure(stack),
            "stack": lambda: footprint.measure(stack, monotonic, _tell),
            "tick": lambda: ticks.measure(tell=_tell),
            "drills": lambda: drills.measure(stack, monotonic, _tell),
            "repeats": lambda: drills.measure_again_and_again(chosen.drills, stack, monotonic, _tell),
        }
        for part in parts:
            _tell(f"{part} ...")
            # Before it begins: the code that runs is the code of now, whatever is committed meanwhile.
            made = f"{utc_now():%Y-%m-%d %H:%M} UTC, {commit()}, `{line}`. {machine()}."
            try:
                result = work[part]()
            except BackstayError as error:
                result = Result(part, problem=str(error))
            all_kept &= result.kept
            sections[part] = section(result, made)
            _write(chosen.out, sections)  # after each part: what is measured stays, whatever happens to the next
            print(sections[part])
    _tell(f"written to {chosen.out}")
    return 0 if all_kept else 1


def command_line(chosen: argparse.Namespace) -> str:
    """What to type for the same measurement; ports and the page's place change nothing about it."""
    words = ["python -m control_plane.local.bench"]
    words += [
        f"--{name} {shlex.quote(str(value))}" for name in ("only", "skip", "drills") if (value := vars(chosen)[name])
    ]
    return " ".join(words)


def wanted(only: str | None, skip: str | None, repeats: int = 0) -> tuple[str, ...]:
    """Parts to measure: those that want no stack first. With `repeats` one drill stands for all."""
    named = (_names(only) if only else set(PARTS)) - _names(skip or "")
    return tuple("repeats" if part == "drills" and repeats else part for part in PARTS if part in named)


def _names(text: str) -> set[str]:
    names = {name.strip() for name in text.split(",") if name.strip()}
    if unknown := sorted(names - set(PARTS)):
        raise InvalidDefinition(f"there is no part {unknown[0]!r}. There are: {', '.join(PARTS)}.")
    return names


def _arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m control_plane.local.bench", description=__doc__)
    parser.add_argument("--only", metavar="PARTS", help=f"with commas between: {', '.join(PARTS)}")
    parser.add_argument("--skip", metavar="PARTS", help="parts to leave out")
    parser.add_argument(
        "--drills", type=int, default=0, metavar="N", help="N runs of `drill errors`, instead of each once"
    )
    parser.add_argument("--port-base", type=int, default=PORT_BASE, metavar="PORT", help="first port of the stack")
    parser.add_argument("--out", type=Path, default=PAGE, metavar="FILE", help="default: docs/benchmarks.md")
    return parser


def _write(path: Path, sections: dict[str, str]) -> None:
    before = path.read_text() if path.exists() else ""
    path.write_text(page(sections, before))


def _tell(what: str) -> None:
    print(f"bench: {what}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
