"""Joins the commands."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import NoReturn

import typer
from pydantic import ValidationError

from control_plane.cli import admin, drills, orders, runbooks, slo, stack, trace
from control_plane.cli.output import stderr
from control_plane.errors import BackstayError
from control_plane.settings import Settings

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


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a command; what people can mend is one line on standard error and exit code 2."""
    try:
        app(args=arguments, prog_name="backstay")
    except BackstayError as error:
        _end_with(str(error))
    except ValidationError as error:
        if error.title != Settings.__name__:
            raise
        wrong = error.errors()[0]
        name = f"{Settings.model_config['env_prefix']}{wrong['loc'][0]}".upper() if wrong["loc"] else "A setting"
        _end_with(f"{name} is {wrong['input']!r}: {wrong['msg']}. docs/settings.md lists what it may be.")
    except KeyboardInterrupt:
        sys.exit(130)


def _end_with(sentence: str) -> NoReturn:
    stderr.print(f"backstay: {' '.join(sentence.split())}", style="red")
    sys.exit(2)
