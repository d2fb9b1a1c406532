"""The policy as a value: the numbers that decisions rest on, and how far each kind of action may go by itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from control_plane.decisions.reasons import Autonomy, Move


@dataclass(frozen=True, slots=True)
class FastPathTerms:
    """When recent events prove that a service harms its users."""

    alpha: float = 1e-6  # probability of a false alarm in one look at a service that is just good enough
    windows_seconds: tuple[int, ...] = (10, 20, 30, 60)  # ascending
    bad_seconds: int = 4  # distinct seconds with bad events
    errors_times_budget: float = 5.0  # errors up to this multiple of the budget are still tolerated
    latency_times_budget: float = 2.0  # likewise slow requests


@dataclass(frozen=True, slots=True)
class ScaleTerms:
    """When replicas are added and taken away."""

    target_utilisation: float = 0.7  # of the scarcer kind of slot
    tolerance: float = 0.1  # relative distance from the target that changes nothing
    saturated_from: float = 0.9  # utilisation from which failing and slow requests are explained by lack of room
    busier_from: float = 1.25  # requests, as a multiple of the usual, from which full slots mean more demand
    stable_for: timedelta = timedelta(minutes=10)  # how long demand must have been low before a replica goes


@dataclass(frozen=True, slots=True)
class Limit:
    """How often one kind of action may be taken automatically. Drills are not counted."""

    cooldown: timedelta  # between two on the same target
    actions: int  # on all targets together
    per: timedelta


@dataclass(frozen=True, slots=True)
class Policy:
    """Everything that people can set about decisions. Without limits and autonomy nothing is done."""

    profile: str = "default"
    max_evidence_age: timedelta = timedelta(seconds=15)
    unknown_pages_after: timedelta = timedelta(seconds=60)
    fast_path: FastPathTerms = FastPathTerms()
    change_blamed_for: timedelta = timedelta(minutes=30)  # a breach that begins this long after a change is its fault
    min_culprit_confidence: float = 0.6
    crash_restarts: int = 2  # restarts within a minute that make a crash loop
    headroom: float = 1.2  # capacity of a destination, in multiples of what it will get
    full_rollback_culprits: int = 3
    full_rollback_within: timedelta = timedelta(minutes=10)
    scale: ScaleTerms = ScaleTerms()
    limits: Mapping[Move, Limit] = field(default_factory=dict)
    autonomy: Mapping[Move, Autonomy] = field(default_factory=dict)
    autonomy_by_service: Mapping[str, Mapping[Move, Autonomy]] = field(default_factory=dict)
    irreversible: tuple[str, ...] = ()  # services that must not be rolled back
    watch_only: tuple[str, ...] = ()  # SLOs whose breach a rollback would not mend
    digest: str = ""  # names exactly these terms in the audit log

    def autonomy_of(self, service: str, move: Move) -> Autonomy:
        """How far the move may go for the service; what is not said is only observed."""
        own = self.autonomy_by_service.get(service)
        if own is not None and move in own:
            return own[move]
        return self.autonomy.get(move, Autonomy.OBSERVE)

    @property
    def automatic(self) -> bool:
        """Whether anything at all may happen without a person."""
        levels = [*self.autonomy.values()]
        for own in self.autonomy_by_service.values():
            levels += own.values()
        return Autonomy.AUTO in levels
