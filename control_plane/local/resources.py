"""What processes cost."""

from __future__ import annotations

from dataclasses import dataclass

import psutil


@dataclass(frozen=True, slots=True)
class Usage:
    """Cost of one process since it started."""

    pid: int
    rss_bytes: int  # shared pages count in every process that maps them
    cpu_seconds: float  # user and system


def usage(pid: int) -> Usage | None:
    """Cost of a process now; None when it is gone or cannot be seen."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            times = process.cpu_times()
            return Usage(pid, process.memory_info().rss, times.user + times.system)
    except psutil.Error:
        return None
