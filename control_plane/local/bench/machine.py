"""Which machine, which Python, which code: what a number is worth nothing without."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

GIB = 1024**3
REPOSITORY = Path(__file__).resolve().parents[3]


def machine() -> str:
    """`2 cores (Intel Xeon ...), 23.5 GiB, Linux 5.10, CPython 3.11.7`."""
    memory = psutil.virtual_memory().total / GIB
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return (
        f"{cores()} cores ({_processor()}), {memory:.1f} GiB, {platform.system()} {platform.release()}, "
        f"{platform.machine()}, {python}"
    )


def cores() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str:
    """Short hash of what runs, and whether files differ from it; a plain word where there is no repository."""
    try:
        head = _git("rev-parse", "--short=10", "HEAD")
        changed = _git(
            "status", "--porcelain", "--untracked-files=no", "--", "control_plane", "services", "deploy", "slos"
        )
    except (OSError, subprocess.CalledProcessError):
        return "an unknown commit"
    return f"commit {head}" + (" with changes that are not committed" if changed else "")


class OtherLoad:
    """How busy the rest of the machine was between two moments: numbers of a shared machine need that beside them."""

    def __init__(self, own_cpu_seconds: Callable[[], float], now: Callable[[], float]) -> None:
        self._own = own_cpu_seconds
        self._now = now
        self._from = (now(), _busy_seconds(), own_cpu_seconds())

    def cores(self) -> float:
        """Cores that other programs used on average since this was made."""
        at, busy, own = self._from
        seconds = max(0.001, self._now() - at)
        return max(0.0, (_busy_seconds() - busy - (self._own() - own)) / seconds)


def own_and_children_cpu_seconds() -> float:
    """Processor time of this process and of the children that have ended."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def _busy_seconds() -> float:
    times = psutil.cpu_times()
    idle = times.idle + getattr(times, "iowait", 0.0)
    counted_twice = getattr(times, "guest", 0.0) + getattr(times, "guest_nice", 0.0)
    return float(sum(times) - idle - counted_twice)


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return " ".join(line.partition(":")[2].split())
    except OSError:
        pass
    return platform.processor() or "processor not named"


def _git(*arguments: str) -> str:
    command = ["git", "-C", str(REPOSITORY), *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()
