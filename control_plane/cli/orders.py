"""By hand: rollback, scale, cutover, freeze, thaw, deploys record, and what was decided."""

from __future__ import annotations

import time
from typing import Annotated, Any

import typer

from control_plane.cli.client import ControlPlaneClient
from control_plane.cli.output import (
    DryRunOption,
    Format,
    FormatOption,
    ReasonOption,
    print_json,
    print_table,
    stdout,
)
from control_plane.settings import Settings

POLL_SECONDS = 0.25
DONE_STATES = {"DONE": 0, "HELD": 1, "REVERTED": 1}


def _carry_out(kind: str, target: str, amount: int | None, reason: str, dry_run: bool, output: Format) -> None:
    client = ControlPlaneClient(Settings())
    body = {"kind": kind, "target": target, "amount": amount, "reason": reason, "dry_run": dry_run}
    answer = client.post("/plans", body)
    if dry_run:
        if output is Format.JSON:
            print_json(answer)
        else:
            for line in answer["plan"]["lines"]:
                stdout.print(line)
        return
    progress = follow(client, answer["saga_id"], quiet=output is Format.JSON)
    if output is Format.JSON:
        print_json({**answer, "progress": progress})
    else:
        stdout.print(f"{progress['state']}: {progress['outcome']}")
    raise typer.Exit(DONE_STATES.get(progress["state"], 1))


def follow(client: ControlPlaneClient, saga_id: str, *, quiet: bool) -> dict[str, Any]:
    """Prints each step as it ends; returns when the plan has ended."""
    shown: set[str] = set()
    while True:
        progress = client.follow(f"/plans/{saga_id}")
        for step in progress["steps"]:
            if step["state"] not in ("waiting", "running") and step["name"] not in shown:
                shown.add(step["name"])
                if not quiet:
                    stdout.print(f"  {step['name']}: {step['state']}  {step.get('detail') or ''}")
        if progress["state"] in DONE_STATES:
            return progress
        time.sleep(POLL_SECONDS)


def rollback(
    service: Annotated[str, typer.Argument(help="A service, e.g. ai-gateway-service, or all.")],
    reason: ReasonOption = "by hand",
    dry_run: DryRunOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Move a service's traffic to the monolith, make-before-break.

    Example: backstay rollback ai-gateway-service --reason "wrong answers since 14:20"
    """
    _carry_out("rollback", service, None, reason, dry_run, output)


def scale(
    service: Annotated[str, typer.Argument(help="A deployment, e.g. search-service or librechat-monolith.")],
    replicas: Annotated[int, typer.Argument(min=0, max=1000)],
    reason: ReasonOption = "by hand",
    dry_run: DryRunOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Set the replicas of a deployment.

    Example: backstay scale search-service 3 --reason "launch at noon"
    """
    _carry_out("scale", service, replicas, reason, dry_run, output)


def cutover(
    service: Annotated[str, typer.Argument(help="A service, e.g. search-service.")],
    to: Annotated[int, typer.Option("--to", min=0, max=100, help="Percent of its requests for the microservice.")],
    reason: ReasonOption = "by hand",
    dry_run: DryRunOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Move a service's traffic forward to its microservice, in gated steps.

    Example: backstay cutover search-service --to 50
    """
    _carry_out("cutover", service, to, reason, dry_run, output)


def freeze(reason: ReasonOption = "by hand", dry_run: DryRunOption = False, output: FormatOption = Format.TEXT) -> None:
    """The kill switch: no automatic action from the next tick on, and running plans stop on a healthy copy.

    Example: backstay freeze --reason "database maintenance"
    """
    _switch("freeze", f"Frozen: {reason}", reason, dry_run, output)


def thaw(reason: ReasonOption = "by hand", dry_run: DryRunOption = False, output: FormatOption = Format.TEXT) -> None:
    """Allow automatic action again.

    Example: backstay thaw --reason "maintenance is over"
    """
    _switch("thaw", "Automatic action is allowed again.", reason, dry_run, output)


def _switch(word: str, done: str, reason: str, dry_run: bool, output: Format) -> None:
    client = ControlPlaneClient(Settings())
    if dry_run:
        frozen = client.get("/status").get("frozen")
        answer = {"dry_run": True, "frozen": frozen}
        now = f"frozen ({frozen})" if frozen else "not frozen"
        done = f"Automatic action is {now}; this would {word} it."
    else:
        answer = client.post(f"/{word}", {"reason": reason})
    print_json(answer) if output is Format.JSON else stdout.print(done)


deploys = typer.Typer(no_args_is_help=True, help="Tell Backstay of changes, so that it can tell them from the rest.")


@deploys.callback()
def _group() -> None:
    """Keeps `deploys record` two words while it is the only command."""


@deploys.command("record")
def record_deploy(
    service: Annotated[str, typer.Argument()],
    version: Annotated[str, typer.Argument()],
    reason: ReasonOption = "by hand",
    dry_run: DryRunOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Record that a version of a service went out.

    Example: backstay deploys record ai-gateway-service v1.4.2
    """
    change = {"service": service, "version": version, "reason": reason, "dry_run": dry_run}
    answer = ControlPlaneClient(Settings()).post("/deploys", change)
    said = f"{'Would record' if dry_run else 'Recorded'} {service} {version}."
    print_json(answer) if output is Format.JSON else stdout.print(said)


decisions = typer.Typer(no_args_is_help=True, help="What was decided, and why or why not.")


@decisions.command("list")
def list_decisions(
    limit: Annotated[int, typer.Option(min=1, max=1000)] = 20,
    service: Annotated[str | None, typer.Option()] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """The newest decisions.

    Example: backstay decisions list --service ai-gateway-service
    """
    answer = ControlPlaneClient(Settings()).get("/decisions", limit=limit, service=service)
    if output is Format.JSON:
        print_json(answer)
        return
    rows = [
        [item["id"][:12], item["at"][:19], item["service"], item["action"], item["reason"], item["state"]]
        for item in answer["decisions"]
    ]
    print_table(["id", "at (UTC)", "service", "action", "reason", "state"], rows, "No decision has been stored yet.")


@decisions.command("show")
def show_decision(decision_id: Annotated[str, typer.Argument()], output: FormatOption = Format.JSON) -> None:
    """One decision with its evidence.

    Example: backstay decisions show 3f2a9c
    """
    item = ControlPlaneClient(Settings()).get(f"/decisions/{decision_id}")
    if output is Format.JSON:
        print_json(item)
    else:
        _explain(item)


@decisions.command("explain")
def explain_decision(decision_id: Annotated[str, typer.Argument()], output: FormatOption = Format.TEXT) -> None:
    """Why, and why not something else: the guards that passed and those that stopped it.

    Example: backstay decisions explain 3f2a9c
    """
    item = ControlPlaneClient(Settings()).get(f"/decisions/{decision_id}")
    if output is Format.JSON:
        print_json({key: item[key] for key in ("id", "action", "target", "reason", "sentence", "guards")})
    else:
        _explain(item)


@decisions.command("replay")
def replay_decision(decision_id: Annotated[str, typer.Argument()], output: FormatOption = Format.TEXT) -> None:
    """Decide again from the stored evidence; exit 1 unless the decision is the same byte for byte.

    Example: backstay decisions replay 3f2a9c
    """
    answer = ControlPlaneClient(Settings()).get(f"/decisions/{decision_id}/replay")
    if output is Format.JSON:
        print_json(answer)
    else:
        stdout.print(
            "The same decision." if answer["identical"] else "A different decision: the policy's code changed."
        )
    raise typer.Exit(0 if answer["identical"] else 1)


def _explain(item: dict[str, Any]) -> None:
    stdout.print(f"{item['action']} {item['target']}: {item['reason']}")
    stdout.print(item["sentence"])
    for guard in item["guards"]:
        stdout.print(f"  {'passed ' if guard['passed'] else 'STOPPED'} {guard['name']}: {guard['detail']}")
