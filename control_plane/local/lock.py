"""One supervisor a state folder."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager

from control_plane.errors import ActuationRefused
from control_plane.local.layout import Layout


@contextmanager
def only_supervisor(layout: Layout) -> Iterator[None]:
    """Holds the folder's lock; the kernel lets go of it however we end. Raises ActuationRefused when taken."""
    handle = os.open(layout.lock_file, os.O_RDWR | os.O_CREAT, 0o600)  # not inherited: children must not hold it
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ActuationRefused(
                f"A stack already runs in {layout.state_dir} (process {supervisor_pid(layout) or 'unknown'}). "
                "`backstay status` shows it, `backstay down` stops it."
            ) from None
        os.ftruncate(handle, 0)
        os.write(handle, str(os.getpid()).encode())
        yield
        os.ftruncate(handle, 0)
    finally:
        os.close(handle)


def supervisor_pid(layout: Layout) -> int | None:
    """Process id of the running supervisor; None when none runs."""
    try:
        handle = os.open(layout.lock_file, os.O_RDWR)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.pread(handle, 32, 0).decode(errors="replace").strip()
        return int(text) if text.isdigit() else None
    else:
        return None  # nobody holds it: what is written there is of a supervisor that died
    finally:
        os.close(handle)
