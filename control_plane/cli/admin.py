"""`backstay admin`: keep it running."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.client import ControlPlaneClient
from control_plane.cli.output import DryRunOption, Format, FormatOption, ReasonOption, print_json, stdout
from control_plane.settings import Settings

admin = typer.Typer(no_args_is_help=True, help="Keep Backstay running.")


@admin.callback()
def _group() -> None:
    """Keeps `admin reset-password` two words while it is the only command."""


@admin.command("reset-password")
def reset_password(
    username: Annotated[str, typer.Argument()] = "admin",
    reason: ReasonOption = "by hand",
    dry_run: DryRunOption = False,
    output: FormatOption = Format.TEXT,
) -> None:
    """Set a new random password, end the user's sessions, and print the password once.

    Example: backstay admin reset-password
    """
    order = {"username": username, "reason": reason, "dry_run": dry_run}
    answer = ControlPlaneClient(Settings()).post("/admin/password", order)
    if output is Format.JSON:
        print_json(answer)
    elif dry_run:
        stdout.print(f"Would set a new password for {username}, and end its sessions.")
    else:
        stdout.print(f"{answer['username']}  {answer['password']}")
