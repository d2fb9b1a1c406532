"""A circuit breaker: who keeps failing is left alone for a while, so callers do not wait for what will not come."""

from __future__ import annotations

from enum import StrEnum

from control_plane.clock import Monotonic


class CircuitState(StrEnum):
    CLOSED = "closed"  # asked as usual
    OPEN = "open"  # not asked
    HALF_OPEN = "half_open"  # one request tries whether it works again


class Circuit:
    """Opens after `open_after` failures in a row; after `open_for` seconds one request may try, and its end decides.

    A trial that is never answered for (its caller left) does not block the circuit: after another `open_for` seconds
    the next request may try.
    """

    def __init__(self, open_after: int, open_for: float, monotonic: Monotonic) -> None:
        self._open_after = open_after
        self._open_for = open_for
        self._monotonic = monotonic
        self._failures = 0
        self._trial_at: float | None = None  # monotonic seconds at which the next trial may start; None: closed

    @property
    def state(self) -> CircuitState:
        if self._trial_at is None:
            return CircuitState.CLOSED
        return CircuitState.HALF_OPEN if self._monotonic() >= self._trial_at else CircuitState.OPEN

    def admit(self) -> bool:
        """Whether to ask now. In the half-open state the first to ask is the trial, and the others wait for it."""
        state = self.state
        if state is CircuitState.HALF_OPEN:
            self._trial_at = self._monotonic() + self._open_for
            return True
        return state is CircuitState.CLOSED

    def succeeded(self) -> None:
        self._failures = 0
        self._trial_at = None

    def failed(self) -> None:
        self._failures += 1
        if self._trial_at is not None or self._failures >= self._open_after:
            self._trial_at = self._monotonic() + self._open_for
