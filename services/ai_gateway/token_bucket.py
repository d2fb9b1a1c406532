"""How many chats a replica accepts."""

from __future__ import annotations

from control_plane.clock import Monotonic


class TokenBucket:
    """Fills by `rate` tokens a second up to `burst`; each request takes one. Starts full."""

    def __init__(self, rate: float, burst: int, monotonic: Monotonic) -> None:
        self._rate = rate
        self._burst = burst
        self._monotonic = monotonic
        self._tokens = float(burst)
        self._filled_at = monotonic()

    def take(self) -> float | None:
        """None when a token was taken, else the seconds until there is one again."""
        now = self._monotonic()
        self._tokens = min(self._burst, self._tokens + (now - self._filled_at) * self._rate)
        self._filled_at = now
        if self._tokens >= 1:
            self._tokens -= 1
            return None
        return (1 - self._tokens) / self._rate
