"""How long to wait before a process that ended is started again. Pure."""

from __future__ import annotations

from dataclasses import dataclass

FIRST_SECONDS = 0.5
LONGEST_SECONDS = 30.0
HEALTHY_SECONDS = 30.0
"""A process that was ready this long is taken to be well: its next failure starts from the shortest wait."""


@dataclass(slots=True)
class BackOff:
    """Waits that double with each failure in a row."""

    failures: int = 0

    def next_delay(self, ready_seconds: float) -> float:
        """Seconds to wait after a run that was ready for `ready_seconds` (0 if it never was)."""
        if ready_seconds >= HEALTHY_SECONDS:
            self.failures = 0
        delay = min(LONGEST_SECONDS, FIRST_SECONDS * float(2 ** min(self.failures, 16)))
        self.failures += 1
        return delay

    def reset(self) -> None:
        """The cause is known to be gone."""
        self.failures = 0
