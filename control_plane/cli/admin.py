"""`backstay admin`: keep it running."""

from __future__ import annotations

from typing import Annotated

import typer

from control_plane.cli.client import ControlPlaneClient
from control_plane.cli.output import Format, FormatOption, print_json, stdout
from control_plane.settings import Settings

admin = typer.Typer(no_args_is_help=True, help="Keep Backstay running.")


@admin.command("reset-password")
def reset_password(username: Annotated[str, typer.Argument()] = "admin", output: FormatOption = Format.TEXT) -> None:
    """Set a new random password, end the user's sessions, and print the password once.

    Example: backstay admin reset-password
    """
    answer = ControlPlaneClient(Settings()).post("/admin/password", {"username": username})
    if output is Format.JSON:
        print_json(answer)
    else:
        stdout.print(f"{answer['username']}  {answer['password']}", markup=False)
