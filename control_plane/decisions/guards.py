"""What must hold before anything is done. Each guard says what it looked at, whether it passed or stopped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from control_plane.decisions import phrases
from control_plane.decisions.capacity import Demand, replicas_for
from control_plane.decisions.evidence import NEVER, DestinationEvidence, RecentAction
from control_plane.decisions.reasons import Move, Reason
from control_plane.decisions.statistics import binomial_tail
from control_plane.decisions.terms import Policy
from control_plane.topology import MONOLITH

FUTURE_TOLERATED_SECONDS = 5.0
"""Evidence may be this much ahead of our clock; more means that one of the two clocks is wrong."""


@dataclass(frozen=True, slots=True)
class Guard:
    """One condition, and how it turned out. `reason` is what the decision says when it stopped."""

    name: str
    passed: bool
    detail: str
    reason: Reason | None = None


def kill_switch(reason: str | None) -> Guard:
    if reason is None:
        return Guard("kill switch", True, "automatic action is not frozen")
    return Guard("kill switch", False, f"frozen: {reason}", Reason.KILL_SWITCH)


def fresh(at: datetime, now: datetime, policy: Policy) -> Guard:
    if at == NEVER:
        return Guard("evidence fresh", False, "nothing has been measured yet", Reason.EVIDENCE_STALE)
    age = (now - at).total_seconds()
    most = policy.max_evidence_age.total_seconds()
    detail = f"evidence is {age:.0f} s old, at most {most:.0f} s are allowed"
    if age < -FUTURE_TOLERATED_SECONDS:
        return Guard("evidence fresh", False, f"evidence is {-age:.0f} s ahead of our clock", Reason.EVIDENCE_STALE)
    return Guard("evidence fresh", age <= most, detail, None if age <= most else Reason.EVIDENCE_STALE)


def reversible(service: str, policy: Policy) -> Guard:
    if service in policy.irreversible:
        return Guard("reversible", False, f"{service} is marked irreversible in the policy", Reason.IRREVERSIBLE)
    return Guard("reversible", True, "the monolith reads the same data")


@dataclass(slots=True)
class ActionMemory:
    """Automatic actions of the past, indexed once for a whole round, with those of this round added as they come."""

    newest: dict[tuple[Move, str], datetime] = field(default_factory=dict)
    taken: dict[Move, list[datetime]] = field(default_factory=dict)

    @classmethod
    def of(cls, actions: Sequence[RecentAction]) -> ActionMemory:
        """Drills are forgotten: they use up neither cooldown nor budget."""
        memory = cls()
        for action in actions:
            if not action.drill:
                memory.add(action.move, action.target, action.at)
        return memory

    def add(self, move: Move, target: str, at: datetime) -> None:
        self.taken.setdefault(move, []).append(at)
        key = (move, target)
        if key not in self.newest or self.newest[key] < at:
            self.newest[key] = at


def allowance(move: Move, target: str, memory: ActionMemory | None, policy: Policy, now: datetime) -> tuple[Guard, ...]:
    """Cooldown of the target and budget of all targets. What is missing denies."""
    limit = policy.limits.get(move)
    if memory is None:
        detail = "what was done before cannot be read"
        return (Guard("cooldown", False, detail, Reason.LIMIT_MISSING),)
    if limit is None:
        detail = f"the policy sets no limit for {move.value}"
        return (Guard("cooldown", False, detail, Reason.LIMIT_MISSING),)
    last = memory.newest.get((move, target))
    if last is None:
        cooled = Guard("cooldown", True, f"no {move.value} of {target} is remembered")
    else:
        since = now - last
        passed = since >= limit.cooldown
        detail = f"last {move.value} of {target} {phrases.length(since)} ago, cooldown {phrases.length(limit.cooldown)}"
        cooled = Guard("cooldown", passed, detail, None if passed else Reason.COOLDOWN)
    used = sum(1 for at in memory.taken.get(move, ()) if now - at < limit.per)
    detail = f"{used} of {limit.actions} automatic {move.value} in {phrases.length(limit.per)}"
    within = used < limit.actions
    return cooled, Guard("action budget", within, detail, None if within else Reason.ACTION_BUDGET_SPENT)


def no_recent_growth(target: str, memory: ActionMemory | None, policy: Policy, now: datetime) -> Guard:
    """Nothing is taken away soon after it was added."""
    grown = None if memory is None else memory.newest.get((Move.SCALE_OUT, target))
    if grown is not None and now - grown < policy.scale.stable_for:
        detail = f"a replica was added {phrases.length(now - grown)} ago"
        return Guard("stable", False, detail, Reason.COOLDOWN)
    return Guard("stable", True, f"no replica was added in {phrases.length(policy.scale.stable_for)}")


def destination_healthy(monolith: DestinationEvidence | None, policy: Policy, null_share: float) -> Guard:
    """The monolith runs, does not restart all the time, and does not fail what it is asked already."""
    name = "destination healthy"
    if monolith is None or monolith.deployment is None:
        return Guard(name, False, f"the runtime says nothing of {MONOLITH}", Reason.DESTINATION_UNHEALTHY)
    deployment = monolith.deployment
    if monolith.restarts_recently >= policy.crash_restarts:
        detail = f"{MONOLITH} restarted {monolith.restarts_recently} times within a minute"
        return Guard(name, False, detail, Reason.DESTINATION_UNHEALTHY)
    if deployment.desired > 0 and deployment.ready == 0:
        return Guard(
            name, False, f"0 of {deployment.desired} {MONOLITH} replicas are ready", Reason.DESTINATION_UNHEALTHY
        )
    if binomial_tail(monolith.failed, monolith.answered, null_share) <= policy.fast_path.alpha:
        detail = f"{MONOLITH} fails itself: {monolith.failed:.0f} of {monolith.answered:.0f} answers"
        return Guard(name, False, detail, Reason.DESTINATION_UNHEALTHY)
    if deployment.desired == 0:
        return Guard(name, True, f"{MONOLITH} is scaled to zero on purpose; the plan starts it and tests it first")
    return Guard(name, True, f"{deployment.ready} of {deployment.desired} {MONOLITH} replicas are ready")


def destination_capacity(monolith: DestinationEvidence | None, coming: Demand, policy: Policy) -> tuple[Guard, int]:
    """Room for what comes on top of what is there; the guard, and the replicas that this needs."""
    name = "destination capacity"
    if monolith is None or monolith.deployment is None:
        return Guard(name, False, "the monolith is not known", Reason.DESTINATION_WITHOUT_CAPACITY), 0
    deployment = monolith.deployment
    load = monolith.load
    if load is None:
        if deployment.desired > 0:
            detail = f"how full {MONOLITH} is, is not known"
            return Guard(name, False, detail, Reason.DESTINATION_WITHOUT_CAPACITY), 0
        load = Demand(0.0)
    needed = replicas_for(load + coming, deployment, policy.headroom)
    detail = (
        f"{(load + coming).requests:.1f} slots of demand x {policy.headroom:g} need {needed} {MONOLITH} replicas "
        f"of {deployment.slots_per_replica} slots; {deployment.desired} run, {deployment.max_replicas} may"
    )
    fits = needed <= deployment.max_replicas
    guard = Guard(name, fits, detail, None if fits else Reason.DESTINATION_WITHOUT_CAPACITY)
    return guard, max(needed, deployment.desired)


def stopped_by(guards: Sequence[Guard]) -> Guard | None:
    """The first guard that did not pass."""
    return next((guard for guard in guards if not guard.passed), None)
