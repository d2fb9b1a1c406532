"""A stack of small backends in the foreground: `python small_stack.py PORT_BASE STATE_DIR SPECIFICATION`."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from control_plane.errors import BackstayError
from control_plane.local.layout import Layout
from control_plane.local.progress import Progress
from control_plane.local.stack import StackOptions, run_stack


def show(step: Progress) -> None:
    print(step.as_line(), flush=True)


if __name__ == "__main__":
    options = StackOptions(
        Layout(int(sys.argv[1]), Path(sys.argv[2])),
        specification=Path(sys.argv[3]),
        launcher=(sys.executable, str(Path(__file__).with_name("small_backend.py"))),
        left_out=("load", "control-plane"),
        alertmanager_config=Path("no such file"),
    )
    try:
        asyncio.run(run_stack(options, show))
    except BackstayError as error:
        sys.exit(f"backstay: {error}")
