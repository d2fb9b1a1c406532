"""The only two readings of time."""

import time
from collections.abc import Callable
from datetime import UTC, datetime

Clock = Callable[[], datetime]
"""Wall clock, always in UTC. For stamps and windows."""

Monotonic = Callable[[], float]
"""Seconds that never jump. For deadlines and periods."""


def utc_now() -> datetime:
    """The wall clock; composition roots hand it on, nothing else reads it."""
    return datetime.now(UTC)


monotonic: Monotonic = time.monotonic
