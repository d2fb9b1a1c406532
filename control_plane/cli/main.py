"""Joins the commands."""

from __future__ import annotations

import sys

import typer

from control_plane.cli import admin, drills, orders, runbooks, slo, stack, trace
from control_plane.cli.output import stderr
from control_plane.errors import BackstayError

app = typer.Typer(
    name="backstay",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    help="Watches every SLO of LibreChat's migration and pulls traffic back before users are hurt.",
)
for command in (
    stack.up,
    stack.down,
    stack.status,
    orders.rollback,
    orders.scale,
    orders.cutover,
    orders.freeze,
    orders.thaw,
    drills.drill,
):
    app.command()(command)
app.add_typer(orders.decisions, name="decisions")
app.add_typer(orders.deploys, name="deploys")
app.add_typer(slo.slo, name="slo")
app.add_typer(trace.trace, name="trace")
app.add_typer(runbooks.runbooks, name="runbooks")
app.add_typer(admin.admin, name="admin")


def main() -> None:
    """Runs a command; what people can mend is one line on standard error and exit code 2."""
    try:
        app()
    except BackstayError as error:
        stderr.print(f"backstay: {error}", style="red", markup=False)
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)
