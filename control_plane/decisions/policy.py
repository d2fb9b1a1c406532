"""What to do about each service: a pure function of evidence, policy and time."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from datetime import datetime

from control_plane.decisions import guards as guard
from control_plane.decisions import phrases
from control_plane.decisions.capacity import NO_DEMAND, Demand, all_slots, recommend
from control_plane.decisions.evidence import ALL_SERVICES, Evidence, ServiceEvidence
from control_plane.decisions.guards import ActionMemory, Guard
from control_plane.decisions.reasons import Action, Autonomy, Move, Reason
from control_plane.decisions.rules import Hold, Proposal, Rules, capital
from control_plane.decisions.terms import Policy
from control_plane.topology import MONOLITH, Weights

TOLERATED_ERRORS = 0.005
"""Share of failed answers up to which the monolith is a place to go: five times the budget of 0.1 %."""


@dataclass(frozen=True, slots=True)
class Decision:
    """What was decided about one service (or `all`), why, and what stood in the way.

    `move` is what would be done: with action HOLD it is what a guard stopped, None when nothing was to be done.
    """

    at: datetime
    service: str
    action: Action
    move: Move | None
    target: str  # a service, a deployment or "all"
    reason: Reason
    sentence: str
    guards: tuple[Guard, ...]
    autonomy: Autonomy  # how far the move may go by itself; OBSERVE without a move
    pages: bool  # somebody should look now
    replicas: int | None = None  # wanted of the target (scale) or of the monolith (rollback)
    weights: Weights | None = None  # wanted of the target
    culprit: str | None = None  # who is behind the trouble, where that is known
    drill: bool = False  # caused by the drill that runs: uses up neither cooldown nor budget
    policy_digest: str = ""

    @property
    def id(self) -> str:
        """Hash of the decision and the moment, place and policy it was made for: the same inputs give the same id."""
        content = [
            self.at.isoformat(),
            self.service,
            self.action,
            self.move,
            self.target,
            self.reason,
            self.sentence,
            [[g.name, g.passed, g.detail] for g in self.guards],
            self.autonomy,
            self.pages,
            self.replicas,
            None if self.weights is None else [self.weights.service, self.weights.monolith],
            self.culprit,
            self.drill,
            self.policy_digest,
        ]
        return hashlib.sha256(json.dumps(content, separators=(",", ":")).encode()).hexdigest()[:32]

    @property
    def essence(self) -> tuple[str, Action, Move | None, str, Reason, Autonomy]:
        """What makes a decision another one; numbers in sentences change with every tick and do not."""
        return self.service, self.action, self.move, self.target, self.reason, self.autonomy

    @property
    def executes(self) -> bool:
        """Whether it is to be carried out without asking anybody."""
        return self.action is not Action.HOLD and self.autonomy is Autonomy.AUTO


def decide(evidence: Evidence, policy: Policy, now: datetime) -> tuple[Decision, ...]:
    """One decision a service, in the order of the evidence.

    A rollback of everything comes before these, as a decision about `all`; more replicas of the monolith come after
    them. Rules for each service, first match wins: evidence too old · what runs is unknown · data missing · no traffic
    · a plan runs · already on the monolith · only what the monolith shares fails · another service is the culprit ·
    lack of room without a change: scale out, or roll back at the limit · culprit unclear · its fault: roll back ·
    exiting: hold · busy: scale out · burning slowly · suspect · long idle: scale in · within budget. What is to be
    done then has to pass the guards, the surest harm first, so that a short budget of actions goes where it is needed
    most.
    """
    round_ = _Round(evidence, policy, now)
    if not round_.fresh.passed:
        blind = now - evidence.at >= policy.unknown_pages_after
        stale = Hold(Reason.EVIDENCE_STALE, f"{capital(round_.fresh.detail)}.", pages=blind)
        return tuple(round_.held(service, stale) for service in evidence.services)
    outcomes = {service.service: round_.rules.assess(service) for service in evidence.services}
    proposals = sorted(
        (outcome for outcome in outcomes.values() if isinstance(outcome, Proposal)),
        key=lambda p: (p.move is not Move.ROLL_BACK, p.harm, p.service),
    )
    whole = round_.full_rollback([p for p in proposals if p.move is Move.ROLL_BACK])
    covered = whole is not None and whole.executes
    decided: dict[str, Decision] = {}
    for proposal in proposals:
        service = round_.rules.services[proposal.service]
        if covered:
            hold = Hold(Reason.COVERED_BY_FULL_ROLLBACK, Reason.COVERED_BY_FULL_ROLLBACK.sentence)
            decided[proposal.service] = round_.held(service, hold)
        else:
            decided[proposal.service] = round_.guarded(service, proposal)
    result = [] if whole is None else [whole]
    for service in evidence.services:
        outcome = outcomes[service.service]
        result.append(round_.held(service, outcome) if isinstance(outcome, Hold) else decided[service.service])
    if not covered and (more := round_.larger_monolith()) is not None:
        result.append(more)
    return tuple(result)


@dataclass(slots=True)
class _Round:
    """One call of `decide`: what is looked up often is indexed once, what is allotted is remembered."""

    evidence: Evidence
    policy: Policy
    now: datetime
    rules: Rules = field(init=False)
    memory: ActionMemory | None = field(init=False)
    coming: Demand = field(init=False)  # demand that is on its way to the monolith
    unfrozen: Guard = field(init=False)
    fresh: Guard = field(init=False)

    def __post_init__(self) -> None:
        evidence, policy = self.evidence, self.policy
        self.rules = Rules(evidence, policy, self.now)
        self.unfrozen = guard.kill_switch(evidence.kill_switch)
        self.fresh = guard.fresh(evidence.at, self.now, policy)
        self.memory = None if evidence.recent_actions is None else ActionMemory.of(evidence.recent_actions)
        self.coming = NO_DEMAND
        for saga in evidence.active_sagas:
            if saga.to_monolith:
                for name in sorted(
                    {*saga.services, saga.target} & self.rules.services.keys()
                ):  # sums must not depend on order
                    self.coming += self.moving_demand(self.rules.services[name])

    def guarded(self, service: ServiceEvidence, proposal: Proposal) -> Decision:
        move, target = proposal.move, proposal.service
        checks: list[Guard] = [self.unfrozen, self.fresh]
        checks += guard.allowance(move, target, self.memory, self.policy, self.now)
        replicas, weights = proposal.replicas, None
        demand = NO_DEMAND
        if move is Move.ROLL_BACK:
            demand = self.moving_demand(service)
            checks.append(guard.reversible(target, self.policy))
            checks.append(guard.destination_healthy(self.evidence.monolith, self.policy, TOLERATED_ERRORS))
            room, replicas = guard.destination_capacity(self.evidence.monolith, self.coming + demand, self.policy)
            checks.append(room)
            weights = Weights(0, 100)
        elif move is Move.SCALE_IN:
            checks.append(guard.no_recent_growth(target, self.memory, self.policy, self.now))
        decision = self.decision(proposal, target, tuple(checks), replicas, weights)
        if decision.action is not Action.HOLD:
            self.coming += demand
            if self.memory is not None and not decision.drill:
                self.memory.add(move, target, self.now)
        return decision

    def decision(
        self,
        proposal: Proposal,
        target: str,
        checks: tuple[Guard, ...],
        replicas: int | None,
        weights: Weights | None,
    ) -> Decision:
        """The proposal, or the hold that a guard makes of it."""
        move, harmful = proposal.move, proposal.harm < 1.0
        autonomy = self.policy.autonomy_of(target, move)
        stopped = guard.stopped_by(checks)
        common = Decision(
            at=self.now,
            service=proposal.service,
            action=move.action,
            move=move,
            target=target,
            reason=proposal.reason,
            sentence=proposal.sentence,
            guards=checks,
            autonomy=autonomy,
            pages=move.action is not Action.SCALE or (harmful and autonomy is not Autonomy.AUTO),
            replicas=replicas,
            weights=weights,
            culprit=target if move is Move.ROLL_BACK else None,
            drill=self.drilled(target),
            policy_digest=self.policy.digest,
        )
        if stopped is None:
            return common
        reason = stopped.reason or Reason.UNKNOWN
        waits = move.action is Action.SCALE and reason is Reason.COOLDOWN
        return replace(
            common,
            action=Action.HOLD,
            reason=reason,
            sentence=f"{proposal.sentence} Held: {stopped.detail}.",
            pages=harmful and not waits,
            replicas=None,
            weights=None,
        )

    def held(self, service: ServiceEvidence, hold: Hold) -> Decision:
        frozen = not self.unfrozen.passed and hold.reason is not Reason.EVIDENCE_STALE
        checks = (self.unfrozen, self.fresh)
        return Decision(
            at=self.now,
            service=service.service,
            action=Action.HOLD,
            move=None,
            target=service.service,
            reason=Reason.KILL_SWITCH if frozen else hold.reason,
            sentence=f"{capital(self.unfrozen.detail)}. {hold.sentence}" if frozen else hold.sentence,
            guards=checks,
            autonomy=Autonomy.OBSERVE,
            pages=hold.pages,
            culprit=hold.culprit,
            drill=self.drilled(service.service),
            policy_digest=self.policy.digest,
        )

    def drilled(self, target: str) -> bool:
        drill = self.evidence.drill
        return drill is not None and target == drill.service

    def moving_demand(self, service: ServiceEvidence) -> Demand:
        """What comes to the monolith when the service is rolled back; all its slots where demand was not measured."""
        if service.deployment is None or service.weights is None:
            return NO_DEMAND
        demand = service.demand if service.demand is not None else all_slots(service.deployment)
        return demand * (service.weights.service / 100)

    def full_rollback(self, rollbacks: list[Proposal]) -> Decision | None:
        """Everything back, when several services fail each by itself; None when they do not."""
        rollbacks = [proposal for proposal in rollbacks if not self.drilled(proposal.service)]
        if not rollbacks:
            return None
        culprits = {proposal.service for proposal in rollbacks}
        for action in self.evidence.recent_actions or ():
            recent = self.now - action.at <= self.policy.full_rollback_within
            if action.move is Move.ROLL_BACK and not action.drill and recent:
                culprits.add(action.target)
        if len(culprits) < self.policy.full_rollback_culprits:
            return None
        names = phrases.listed(sorted(culprits))
        sentence = f"{names} fail, each by itself within {phrases.length(self.policy.full_rollback_within)}."
        proposal = Proposal(
            ALL_SERVICES, Move.FULL_ROLLBACK, Reason.INDEPENDENT_CULPRITS, sentence, min(p.harm for p in rollbacks)
        )
        moving = NO_DEMAND
        for service in self.rules.services.values():
            moving += self.moving_demand(service)
        irreversible = [name for name in self.policy.irreversible if name in self.rules.services]
        room, replicas = guard.destination_capacity(self.evidence.monolith, moving, self.policy)
        busy = self.rules.busy_with.get(ALL_SERVICES)
        checks = (
            self.unfrozen,
            self.fresh,
            Guard(
                "no plan for all", busy is None, f"{busy or 'none'} runs", None if busy is None else Reason.SAGA_ACTIVE
            ),
            *guard.allowance(Move.FULL_ROLLBACK, ALL_SERVICES, self.memory, self.policy, self.now),
            guard.reversible(irreversible[0] if irreversible else ALL_SERVICES, self.policy),
            guard.destination_healthy(self.evidence.monolith, self.policy, TOLERATED_ERRORS),
            room,
        )
        return self.decision(proposal, ALL_SERVICES, checks, replicas, Weights(0, 100))

    def larger_monolith(self) -> Decision | None:
        """More replicas of the monolith, when what it answers fills it; None when it has room enough."""
        monolith = self.evidence.monolith
        if monolith is None or monolith.deployment is None or monolith.load is None:
            return None
        deployment = monolith.deployment
        if MONOLITH in self.rules.busy_with or self.coming != NO_DEMAND or deployment.ready < deployment.desired:
            return None  # a plan that moves traffic sizes it itself
        scale = self.policy.scale
        wanted = recommend(monolith.load, deployment, deployment.ready, scale.target_utilisation, scale.tolerance)
        if wanted.replicas <= deployment.desired:
            return None
        sentence = (
            f"{MONOLITH} holds {phrases.percent(wanted.utilisation)} of what its slots can, wanted are "
            f"{phrases.percent(scale.target_utilisation)}: {deployment.desired} -> {wanted.replicas} replicas."
        )
        proposal = Proposal(MONOLITH, Move.SCALE_OUT, Reason.SATURATED, sentence, 1.0, wanted.replicas)
        checks = (
            self.unfrozen,
            self.fresh,
            *guard.allowance(Move.SCALE_OUT, MONOLITH, self.memory, self.policy, self.now),
        )
        decision = self.decision(proposal, MONOLITH, checks, wanted.replicas, None)
        return replace(decision, drill=self.evidence.drill is not None)
