"""`backstay slo`: check the files, export rules, read the state."""

from __future__ import annotations

import sys
from dataclasses import asdict
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from control_plane.adapters.slo_files import read_texts
from control_plane.cli.client import ControlPlaneClient
from control_plane.cli.output import Format, FormatOption, print_json, print_table, stdout
from control_plane.console import words
from control_plane.settings import Settings
from control_plane.slo import check as spec_doctor
from control_plane.slo import loading
from control_plane.slo.rules import rules_text

slo = typer.Typer(no_args_is_help=True, help="Service level objectives: check, export, status.")


@slo.command()
def check(paths: Annotated[list[Path], typer.Argument()], output: FormatOption = Format.TEXT) -> None:
    """The spec doctor, offline. Exit 1 on findings, each as `file:line: CODE message`.

    Example: backstay slo check slos/
    """
    files = read_texts(paths)
    findings = spec_doctor.check(files)
    if output is Format.JSON:
        print_json({"findings": [{**asdict(finding), "severity": finding.severity.value} for finding in findings]})
    else:
        for finding in findings:
            stdout.print(str(finding))
        if not findings:
            stdout.print(f"{len(loading.load(files).slos)} SLOs, no findings.")
    raise typer.Exit(1 if findings else 0)


class RuleFormat(StrEnum):
    PROMETHEUS = "prometheus"


@slo.command()
def export(
    path: Annotated[Path, typer.Argument()],
    rule_format: Annotated[RuleFormat, typer.Option("--as")] = RuleFormat.PROMETHEUS,
    console_url: Annotated[str | None, typer.Option(help="Where the runbooks of the alerts are.")] = None,
    output: FormatOption = Format.TEXT,
) -> None:
    """Recording and alerting rules that keep paging while Backstay is down.

    Example: backstay slo export slos/ --as prometheus > rules.yml
    """
    rules = rules_text(loading.load(read_texts([path])).slos, console_url or Settings().console_at)
    if output is Format.JSON:
        print_json({"format": rule_format.value, "rules": rules})
    else:
        sys.stdout.write(rules)


@slo.command()
def status(
    service: Annotated[str | None, typer.Option(help="Only this service.")] = None, output: FormatOption = Format.TEXT
) -> None:
    """Every SLO: SLI, burn rates, budget left, coverage, verdict.

    Example: backstay slo status --service ai-gateway-service
    """
    answer = ControlPlaneClient(Settings()).get("/slos")
    states = [state for state in answer["slos"] if service in (None, state["service"])]
    if output is Format.JSON:
        print_json({"slos": states})
        return
    rows = [
        [
            state["name"],
            state["verdict"].replace("_", " "),
            words.percent(state["sli"]["estimate"], 3) if state["sli"] else "unknown",
            words.percent(state["budget_remaining_ratio"]),
            words.burn(state["burn_rates"].get("5m")),
            words.burn(state["burn_rates"].get("1h")),
            words.percent(state["coverage_ratio"]),
            state["reason"],
        ]
        for state in states
    ]
    columns = ["slo", "verdict", "sli", "budget left", "burn 5m", "burn 1h", "coverage", "why"]
    print_table(columns, rows, "No SLO has been evaluated yet: the first tick comes a few seconds after start.")
