"""`backstay drill`: break something on purpose, and see whether Backstay mends it."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from control_plane.cli.client import ControlPlaneClient
from control_plane.cli.output import DryRunOption, Format, FormatOption, ReasonOption, print_json, stdout
from control_plane.settings import Settings

POLL_SECONDS = 0.25


def drill(
    name: Annotated[str, typer.Argument(help="errors, latency, crash or saturation.")],
    service: Annotated[str | None, typer.Option("--service", help="Where; ai-gateway-service unless told.")] = None,
    reason: ReasonOption = "practice",
    dry_run: DryRunOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Inject a fault with a time limit, watch the engine, clean up, print the timeline.

    Exit 0 when the drill passed, 1 when it did not, 2 when it could not start.

    Example: backstay drill errors --service ai-gateway-service
    """
    client = ControlPlaneClient(Settings())
    started = client.post("/drills", {"name": name, "service": service, "reason": reason, "dry_run": dry_run})
    quiet = output is Format.JSON
    if dry_run:
        if quiet:
            print_json(started)
        else:
            for line in started["lines"]:
                stdout.print(line)
        return
    if not quiet:
        stdout.print(f"Drill {name} on {started['service']}; it ends by itself in at most {started['limit_s']:.0f} s.")
    result = _watch(client, started["drill_id"], quiet=quiet)
    if quiet:
        print_json(result)
    else:
        _tell(result)
    raise typer.Exit(0 if result["outcome"] == "passed" else 1)


def _watch(client: ControlPlaneClient, drill_id: str, *, quiet: bool) -> dict[str, Any]:
    shown = 0
    while True:
        state = client.follow(f"/drills/{drill_id}")
        if not quiet:
            for entry in state["timeline"][shown:]:
                stdout.print(f"{entry['after_s']:7.1f} s  {entry['event']:<16} {entry['detail']}")
            shown = len(state["timeline"])
        if state["finished"]:
            result: dict[str, Any] = state["result"]
            return result
        time.sleep(POLL_SECONDS)


def _tell(result: dict[str, Any]) -> None:
    requests = result["requests"]
    stdout.print()
    stdout.print(
        f"{result['outcome'].upper()}  {requests['sent']} requests sent, {requests['failed_by_fault']} failed by the "
        f"fault, {requests['lost_to_shift']} lost to the shift",
    )
    for problem in result["problems"]:
        stdout.print(f"  {problem}")
    if result["next_step"]:
        stdout.print(f"  {result['next_step']}")
