"""`backstay trace`: what a request waited for."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from control_plane.cli.output import Format, FormatOption, print_json, print_table, stdout
from control_plane.errors import InvalidDefinition
from control_plane.tracing.critical_path_report import critical_path_report

trace = typer.Typer(no_args_is_help=True, help="Traces: what a request waited for.")


@trace.callback()
def _group() -> None:
    """Keeps `trace critical-path` two words while it is the only command."""


@trace.command("critical-path")
def critical_path(
    file: Annotated[Path, typer.Argument(help="Jaeger JSON, as its query API or its interface gives it.")],
    output: FormatOption = Format.TEXT,
) -> None:
    """Per trace and operation the exclusive microseconds on the critical path.

    Example: backstay trace critical-path trace.json
    """
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InvalidDefinition(f"{file} cannot be read: {error.strerror}.") from error
    report = critical_path_report(data)
    if output is Format.JSON:
        print_json(report)
        return
    for each in report["traces"]:
        stdout.print(f"trace {each['trace_id']}: {each['duration_us']} microseconds")
        rows = [_row(operation, each["duration_us"]) for operation in each["operations"]]
        print_table(["service", "operation", "exclusive us", "share"], rows, "It has no spans.")


def _row(operation: dict[str, Any], duration_us: int) -> list[str]:
    share = operation["exclusive_us"] / duration_us if duration_us else 0.0
    return [operation["service"], operation["operation"], str(operation["exclusive_us"]), f"{share:.1%}"]
