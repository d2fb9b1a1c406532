"""The steps that plans are made of. Values only: what to do, until when, and what a failure means."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from control_plane.topology import MONOLITH, Backend, Weights


class OnFailure(StrEnum):
    """What a plan does when a step does not reach its postcondition in time."""

    HOLD = "hold"  # stop where it is and say which condition was not met
    REVERT = "revert"  # put back what this plan changed
    GO_ON = "go_on"  # the step only adds certainty; the next ones check for themselves


@dataclass(frozen=True, slots=True)
class Grow:
    """Have at least `replicas` of a deployment. Never takes one away."""

    deployment: str
    replicas: int
    was: int  # desired when the plan was made: what a revert puts back
    deadline: timedelta
    on_failure: OnFailure
    kind: Literal["grow"] = "grow"

    @property
    def name(self) -> str:
        return f"scale {self.deployment} to {self.replicas}"

    @property
    def sentence(self) -> str:
        if self.replicas == self.was:
            return f"see that {self.deployment} still runs {self.replicas} replicas"
        return f"scale {self.deployment} from {self.was} to {self.replicas} replicas"


@dataclass(frozen=True, slots=True)
class AwaitReady:
    """Wait until that many replicas of a deployment are ready."""

    deployment: str
    replicas: int
    deadline: timedelta
    on_failure: OnFailure
    kind: Literal["await_ready"] = "await_ready"

    @property
    def name(self) -> str:
        return f"{self.deployment} ready"

    @property
    def sentence(self) -> str:
        return f"wait until {self.replicas} replicas of {self.deployment} are ready"


@dataclass(frozen=True, slots=True)
class SmokeTest:
    """User journeys through the gateway, pinned to the backend that is about to get traffic; all must pass."""

    service: str
    backend: Backend
    journeys: int
    patience: timedelta  # longest time of one run of all journeys
    deadline: timedelta
    on_failure: OnFailure
    kind: Literal["smoke_test"] = "smoke_test"

    @property
    def name(self) -> str:
        return f"smoke test of {self.service} on {_place(self.service, self.backend)}"

    @property
    def sentence(self) -> str:
        where = _place(self.service, self.backend)
        return f"run {self.journeys} user journeys of {self.service} pinned to {where}; all must pass"


@dataclass(frozen=True, slots=True)
class Shift:
    """Set a service's weights. Refuses while the gaining backend lacks ready capacity or its smoke test."""

    service: str
    weights: Weights
    undo: Weights  # as they were when the plan was made
    safe: Weights  # where traffic goes when the plan is stopped between two shifts
    deadline: timedelta
    on_failure: OnFailure
    kind: Literal["shift"] = "shift"

    @property
    def gaining(self) -> Backend:
        """The backend that gets more than it had before the plan."""
        return Backend.MONOLITH if self.weights.monolith > self.undo.monolith else Backend.SERVICE

    @property
    def name(self) -> str:
        return f"weights of {self.service} {self.weights.service}/{self.weights.monolith}"

    @property
    def sentence(self) -> str:
        return (
            f"route {self.weights.service} % of {self.service} to itself and {self.weights.monolith} % to {MONOLITH}, "
            "and see the gateway acknowledge it"
        )


@dataclass(frozen=True, slots=True)
class Watch:
    """Look at what a backend answers since the last shift, before it gets more.

    Passes on `requests` without a bad one, or on as good evidence from more. Fails at once when the share of bad
    answers is surely too large. With `against_other` it fails only if it is also not better than the other backend.
    """

    service: str
    backend: Backend
    requests: int
    against_other: bool
    deadline: timedelta
    on_short: OnFailure  # when the deadline comes with too few requests and nothing against it
    on_failure: OnFailure
    kind: Literal["watch"] = "watch"

    @property
    def name(self) -> str:
        return f"gate of {self.service} on {_place(self.service, self.backend)}"

    @property
    def sentence(self) -> str:
        short = "go on if users are too quiet" if self.on_short is OnFailure.GO_ON else "else stop"
        where = _place(self.service, self.backend)
        return f"see {self.requests} clean answers to {self.service} from {where}, {short}"


@dataclass(frozen=True, slots=True)
class ProveMoved:
    """Counters of the data plane show it: the new backend answers, and the old one gets nothing any more."""

    service: str
    to: Backend
    requests: int  # answered by the new backend since the last shift
    journeys: int  # run when users are too quiet to prove it
    deadline: timedelta
    on_failure: OnFailure
    kind: Literal["prove_moved"] = "prove_moved"

    @property
    def name(self) -> str:
        return f"{self.service} moved to {_place(self.service, self.to)}"

    @property
    def sentence(self) -> str:
        where, left = _place(self.service, self.to), _place(self.service, _other(self.to))
        return f"prove that {where} answers {self.service} ({self.requests} requests) and that {left} gets none"


@dataclass(frozen=True, slots=True)
class Drain:
    """Wait until requests in flight on the backend that was left are finished."""

    service: str
    left: Backend
    deadline: timedelta
    on_failure: OnFailure
    kind: Literal["drain"] = "drain"

    @property
    def name(self) -> str:
        return f"{self.service} drained from {_place(self.service, self.left)}"

    @property
    def sentence(self) -> str:
        where = _place(self.service, self.left)
        return f"wait until {where} has finished its requests of {self.service}; streams resume after that"


@dataclass(frozen=True, slots=True)
class Verify:
    """Users are served well, on requests after the move only, and journeys are right by content."""

    service: str
    backend: Backend
    requests: int
    error_share_below: float  # ratio; its upper 95 % bound must lie below
    slow_share_below: float  # likewise; not asked where latency is not measured
    journeys: int
    patience: timedelta  # longest time of one run of all journeys
    deadline: timedelta
    on_failure: OnFailure
    kind: Literal["verify"] = "verify"

    @property
    def name(self) -> str:
        return f"{self.service} verified"

    @property
    def sentence(self) -> str:
        return (
            f"verify {self.service}: {self.requests} requests with errors surely below {self.error_share_below:.2%} "
            f"and slow ones below {self.slow_share_below:.0%}, and {self.journeys} journeys right by content"
        )


@dataclass(frozen=True, slots=True)
class Shrink:
    """Have at most `replicas` of a deployment.

    With `idle` nothing may be routed to it any more; otherwise what stays must hold what it gets.
    """

    deployment: str
    replicas: int
    was: int
    idle: bool
    deadline: timedelta
    on_failure: OnFailure
    kind: Literal["shrink"] = "shrink"

    @property
    def name(self) -> str:
        return f"scale {self.deployment} down to {self.replicas}"

    @property
    def sentence(self) -> str:
        return f"scale {self.deployment} down from {self.was} to {self.replicas} replicas; it drains before it stops"


Step = Annotated[
    Grow | AwaitReady | SmokeTest | Shift | Watch | ProveMoved | Drain | Verify | Shrink, Field(discriminator="kind")
]


MILESTONES = {
    "await_ready": "capacity ready",
    "prove_moved": "traffic moved",
    "drain": "drained",
    "verify": "recovered",
}
"""Kinds of steps that tell a reader how far a plan is, and what they mean; the others are in the plan itself."""


def _place(service: str, backend: Backend) -> str:
    return service if backend is Backend.SERVICE else MONOLITH


def _other(backend: Backend) -> Backend:
    return Backend.MONOLITH if backend is Backend.SERVICE else Backend.SERVICE
