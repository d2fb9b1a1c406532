"""The command `backstay`."""

from control_plane.cli.main import main

__all__ = ["main"]
