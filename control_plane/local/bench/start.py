"""How long `backstay up` takes until all is ready."""

from __future__ import annotations

from control_plane.errors import SourceUnavailable
from control_plane.local.bench.page import Check, Result, Table
from control_plane.local.bench.stack_under_test import StackUnderTest
from control_plane.local.progress import STACK, Progress, Stage

LIMIT_SECONDS = 90.0


def measure(stack: StackUnderTest) -> Result:
    """A first start in an empty folder, a stop, and a second start, which is left running."""
    first = stack.up()
    stopped = stack.down()
    second = stack.up()
    return result(first, stopped, second, _parts(stack))


def result(first: float, stopped: float, second: float, parts: dict[str, float]) -> Result:
    """The part of the page; `parts` is when each part of the second start was ready, in seconds."""
    rows = tuple((part, f"{seconds:.1f} s") for part, seconds in sorted(parts.items(), key=lambda item: item[1]))
    return Result(
        "start",
        checks=(
            Check("second start, to ready", f"{second:.1f} s", f"< {LIMIT_SECONDS:.0f} s", second < LIMIT_SECONDS),
            Check(
                "first start in an empty folder", f"{first:.1f} s", f"< {LIMIT_SECONDS:.0f} s", first < LIMIT_SECONDS
            ),
        ),
        tables=(Table(("part, second start", "ready after"), rows),),
        notes=(
            "From the command to its return, the first tick of the control plane included; downloads and `.venv` are "
            f"there already. `backstay down` took {stopped:.1f} s.",
        ),
    )


def _parts(stack: StackUnderTest) -> dict[str, float]:
    """When each part was ready, from what the starting stack wrote down."""
    try:
        lines = (stack.layout.logs_dir / "start.jsonl").read_text().splitlines()
        steps = [Progress.from_line(line) for line in lines]
    except (OSError, ValueError, KeyError) as error:
        raise SourceUnavailable(f"the progress of the start cannot be read: {error}") from error
    return {step.part: step.after_seconds for step in steps if step.stage is Stage.READY and step.part != STACK}
