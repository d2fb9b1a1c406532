"""Runs the local stack in the foreground: `python -m control_plane.local [--without NAME]...`."""

from __future__ import annotations

import argparse
import asyncio
import logging
import sys
from pathlib import Path

from control_plane.errors import BackstayError
from control_plane.local.layout import Layout
from control_plane.local.progress import Progress
from control_plane.local.stack import SPECIFICATION, StackOptions, run_stack
from control_plane.settings import Settings


def main(arguments: list[str] | None = None) -> int:
    """Serves until told to stop. Exit code 0 after an orderly stop, 1 with one line on standard error otherwise."""
    parser = argparse.ArgumentParser(prog="python -m control_plane.local", description="The local stack.")
    parser.add_argument("--without", action="append", default=[], metavar="NAME", help="a part not to start")
    parser.add_argument("--specification", type=Path, metavar="FILE", help="instead of deploy/local/stack.yaml")
    parser.add_argument("--progress", type=Path, metavar="FILE", help="JSON lines for a command that waits")
    chosen = parser.parse_args(arguments)
    settings = Settings()
    logging.basicConfig(
        level=settings.log_level, stream=sys.stdout, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    options = StackOptions(
        Layout(settings.port_base, settings.state_dir.absolute()),
        specification=chosen.specification or SPECIFICATION,
        slos=settings.slos_dir.absolute(),
        left_out=tuple(chosen.without),
        policy_profile=settings.policy_profile if "policy_profile" in settings.model_fields_set else "local",
        progress_file=chosen.progress,
    )
    try:
        asyncio.run(run_stack(options, _show))
    except BackstayError as error:
        print(f"backstay: {error}", file=sys.stderr)
        return 1
    return 0


def _show(step: Progress) -> None:
    print(f"{step.after_seconds:6.1f} s  {step.part:<24} {step.stage:<9} {step.detail}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
