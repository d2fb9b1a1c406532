"""Plans as values: what will be done, in which order, and on which numbers that rests."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from enum import StrEnum
from functools import cached_property
from typing import Any

from pydantic import TypeAdapter, ValidationError

from control_plane.actions.capacity import Demand
from control_plane.actions.steps import OnFailure, Step
from control_plane.errors import InvalidDefinition
from control_plane.topology import MONOLITH


class PlanKind(StrEnum):
    """What a plan is for."""

    ROLLBACK = "rollback"  # traffic to the monolith
    SCALE = "scale"  # replicas of one deployment
    CUTOVER = "cutover"  # traffic of one service to a percentage, gate by gate
    RESTORE = "restore"  # back to where things were before a drill


@dataclass(frozen=True, slots=True)
class PlanPolicy:
    """The numbers of plans. Defaults are those of the local stack; shares are ratios, percents whole numbers."""

    headroom: float = 1.2
    """Ready capacity that a destination must have, in multiples of what it will get."""

    keep_warm: int = 1
    """Replicas of a service that stay after a rollback, so that the way back is quick. The document says 0."""

    rollback_percents: tuple[int, ...] = (50, 100)
    """Percent of a service's requests on the monolith after each shift of a rollback."""

    cutover_percents: tuple[int, ...] = (5, 25, 50, 100)
    """Percent of a service's requests on its microservice after each shift of a cutover."""

    restore_percents: tuple[int, ...] = (50, 100)
    """Percent of a service's requests on its microservice after each shift back from a drill."""

    smoke_journeys: int = 12
    """User journeys that must pass on a destination before it gets traffic, and again after the move."""

    glance_requests: int = 20
    """Clean answers of the monolith that let a rollback go on at once after its first shift."""

    cutover_requests: int = 208
    """Clean answers that open the gate after each shift of a cutover."""

    restore_requests: int = 60
    """Clean answers that open the gate after each shift back from a drill."""

    moved_requests: int = 10
    """Answers of the destination that prove that traffic moved."""

    verify_requests: int = 208
    """Requests after convergence that a rollback is judged by. Without a bad one they rule out 1.44 %; 207 just do."""

    error_share_below: float = 0.0144
    """Upper 95 % bound of the share of failed requests must lie below this after a rollback."""

    slow_share_below: float = 0.10
    """Upper 95 % bound of the share of slow requests must lie below this: twice the budget of p95."""

    scale_deadline: timedelta = timedelta(seconds=15)
    ready_deadline: timedelta = timedelta(seconds=90)
    smoke_patience: timedelta = timedelta(seconds=15)
    smoke_deadline: timedelta = timedelta(seconds=40)
    shift_deadline: timedelta = timedelta(seconds=15)
    glance_deadline: timedelta = timedelta(seconds=2)
    cutover_gate_deadline: timedelta = timedelta(minutes=10)
    restore_gate_deadline: timedelta = timedelta(seconds=30)
    moved_deadline: timedelta = timedelta(seconds=30)
    drain_deadline: timedelta = timedelta(seconds=30)
    verify_deadline: timedelta = timedelta(seconds=120)

    def __post_init__(self) -> None:
        if self.headroom < 1:
            raise InvalidDefinition(f"headroom {self.headroom} is below 1: a destination must hold what it gets.")
        for name in ("rollback_percents", "cutover_percents", "restore_percents"):
            percents = getattr(self, name)
            if not percents or list(percents) != sorted(set(percents)) or percents[-1] != 100 or percents[0] < 1:
                raise InvalidDefinition(f"{name} {percents} must rise in whole percents from 1 or more to 100.")
        if self.keep_warm < 0 or min(self.smoke_journeys, self.moved_requests, self.verify_requests) < 1:
            raise InvalidDefinition("keep_warm must not be negative, and a check needs at least one request.")


@dataclass(frozen=True)
class Plan:
    """Steps in order. The value holds all that its execution needs, so that a restart goes on from the journal."""

    kind: PlanKind
    target: str  # a service, a deployment, or "all"
    services: tuple[str, ...]  # whose traffic it moves
    steps: tuple[Step, ...]
    demand: Mapping[str, Demand] = field(default_factory=dict)  # by service, as measured when the plan was made
    headroom: float = 1.2
    notes: tuple[str, ...] = ()  # assumptions and remarks, one sentence each

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON: an approval is given to exactly this plan."""
        return hashlib.sha256(canonical_json(plan_json(self)).encode()).hexdigest()

    @property
    def title(self) -> str:
        """One line: what this plan is."""
        match self.kind:
            case PlanKind.ROLLBACK:
                what = "all services" if self.target == "all" else self.target
                return f"roll {what} back to {MONOLITH}"
            case PlanKind.SCALE:
                return f"scale {self.target}"
            case PlanKind.CUTOVER:
                return f"move traffic of {self.target}"
            case PlanKind.RESTORE:
                return f"put {self.target} back as it was before the drill"

    @property
    def shared(self) -> frozenset[str]:
        """Deployments it counts on while it runs, and may share with other plans."""
        return frozenset({MONOLITH}) if self.services else frozenset()

    @property
    def exclusive(self) -> frozenset[str]:
        """Services and deployments that no other plan may touch while it runs."""
        owned = set(self.services)
        if self.kind is PlanKind.SCALE:
            owned.add(self.target)
        return frozenset(owned)

    def conflicts_with(self, other: Plan) -> bool:
        """Whether the two must not run at the same time."""
        return bool(self.exclusive & (other.exclusive | other.shared) or self.shared & other.exclusive)

    def lines(self) -> list[str]:
        """The plan as a person reads it, before it runs."""
        lines = [f"Plan {self.hash[:12]}: {self.title}"]
        if not self.steps:
            lines.append("  Nothing to do: it is so already.")
        for number, step in enumerate(self.steps, 1):
            otherwise = {
                OnFailure.HOLD: "else hold",
                OnFailure.REVERT: "else put everything back",
                OnFailure.GO_ON: "then go on",
            }[step.on_failure]
            seconds = step.deadline.total_seconds()
            lines.append(f"  {number:2}. {step.sentence} (at most {seconds:g} s, {otherwise})")
        lines += [f"  Note: {note}" for note in self.notes]
        return lines


_PLAN: TypeAdapter[Plan] = TypeAdapter(Plan)


def canonical_json(value: Any) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces. NaN has none and raises ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def plan_json(plan: Plan) -> dict[str, Any]:
    """The plan as JSON values; `plan_from_json` reads it back to an equal plan."""
    result: dict[str, Any] = _PLAN.dump_python(plan, mode="json")
    return result


def plan_from_json(value: Any) -> Plan:
    """The plan behind stored JSON; InvalidDefinition when it is none."""
    try:
        return _PLAN.validate_python(value)
    except ValidationError as error:
        raise InvalidDefinition(f"A stored plan cannot be read: {error}") from error
