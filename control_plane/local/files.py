"""Files that other programs read while we write them."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path


def write_atomically(path: Path, text: str, *, durable: bool = False) -> None:
    """Replaces a file in one step, mode 0600: a reader sees the old or the new text, never a part.

    Envoy and Prometheus notice a rename at once, and a write in place not at all. `durable` also waits for the disk,
    so that the text outlives a power cut. Raises OSError.
    """
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as draft:
            draft.write(text)
            if durable:
                draft.flush()
                os.fsync(draft.fileno())
        os.replace(name, path)
    except BaseException:
        os.unlink(name)
        raise
    if durable:
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)
