"""Ties a program of ours to the one that started it: at the end of standard input the parent is gone."""

from __future__ import annotations

import asyncio
import os
import stat
import sys
from collections.abc import Callable


async def end_with_parent(stop: Callable[[], None]) -> None:
    """Calls `stop` once the pipe on standard input ends. A terminal or /dev/null there ties us to nobody."""
    if not stat.S_ISFIFO(os.fstat(sys.stdin.fileno()).st_mode):
        return
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while await reader.read(4096):
        pass
    stop()
