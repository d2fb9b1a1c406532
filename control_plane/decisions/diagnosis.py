"""What is wrong with a service and who is behind it; what to do about it is the policy's business."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime

from control_plane.decisions.evidence import Change, ChangeKind, FastPath, ServiceEvidence
from control_plane.decisions.statistics import Outcome, binomial_tail
from control_plane.decisions.terms import Policy
from control_plane.slo.state import Kind
from control_plane.tracing.call_attribution import Attribution, Symptom

BLAMABLE = frozenset({ChangeKind.DEPLOY, ChangeKind.CONFIG, ChangeKind.WEIGHTS_FORWARD})
NO_PEER_TO_BLAME = 0.05
"""Share of trouble inherited from peers below which it can only be the service's own, however few the events."""

SHEDDING_FROM = 0.01
"""Share of refused requests from which slots count as full, whatever the gauges showed when they were scraped."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Findings about one service. Those about room and changes are only made when its users suffer."""

    fired: FastPath | None = None  # the proof that users suffer; errors before latency
    watched: FastPath | None = None  # fired, but a rollback would not mend it
    suspect: FastPath | None = None
    culprit: str | None = None  # who is behind `fired`; None when nothing fired or it is not clear
    crashing: bool = False
    change: Change | None = None  # that the breach is blamed on


CALM = Diagnosis()


def diagnose(service: ServiceEvidence, policy: Policy) -> Diagnosis:
    """Findings in the light of all tests of the service."""
    fired = watched = suspect = None
    for test in service.fast_paths:
        outcome = test.result.outcome
        if outcome is Outcome.FIRED:
            if test.slo in policy.watch_only:
                watched = watched or test
            elif fired is None or _stronger(test, fired):
                fired = test
        elif outcome is Outcome.SUSPECT and test.slo not in policy.watch_only:
            suspect = suspect or test
    crashing = is_crashing(service, policy)
    if fired is None:
        if not (watched or suspect or crashing):
            return CALM
        return Diagnosis(None, watched, suspect, None, crashing)
    culprit = service.service if crashing else culprit_of(service, fired, policy)
    return Diagnosis(fired, watched, suspect, culprit, crashing, blamed_change(service, fired, policy))


def _stronger(one: FastPath, other: FastPath) -> bool:
    return (one.kind is Kind.ERRORS, -one.result.p_value) > (other.kind is Kind.ERRORS, -other.result.p_value)


def is_crashing(service: ServiceEvidence, policy: Policy) -> bool:
    """Whether its replicas keep exiting, or none of those that should run is there."""
    deployment = service.deployment
    if deployment is None or deployment.desired == 0:
        return False
    if service.restarts_recently >= policy.crash_restarts:
        return True
    return deployment.ready == 0 or (service.restarts_recently > 0 and deployment.ready < deployment.desired)


def attribution_for(service: ServiceEvidence, fired: FastPath) -> Attribution | None:
    symptom = Symptom.ERRORS if fired.kind is Kind.ERRORS else Symptom.LATENCY
    return next((found for found in service.attributions if found.symptom is symptom), None)


def culprit_of(service: ServiceEvidence, fired: FastPath, policy: Policy) -> str | None:
    """The service behind a breach; None when it is not clear enough to act on."""
    found = attribution_for(service, fired)
    if found is None or not found.culprits:
        return None
    if found.confidence >= policy.min_culprit_confidence:
        return found.culprits[0].service
    return service.service if found.inherited_share < NO_PEER_TO_BLAME else None


def breach_began(service: ServiceEvidence, fired: FastPath) -> datetime | None:
    """When the breach that goes on now began; None when that cannot be told."""
    if service.breach_since is not None:
        return service.breach_since
    return None if fired.result.began_at is None else datetime.fromtimestamp(fired.result.began_at, UTC)


def blamed_change(service: ServiceEvidence, fired: FastPath, policy: Policy) -> Change | None:
    """The newest change that the breach followed. A breach older than a change is not the change's fault."""
    if not service.changes:
        return None
    began = breach_began(service, fired)
    if began is None:
        return None
    followed = [
        change
        for change in service.changes
        if change.kind in BLAMABLE and not change.drill and change.at <= began <= change.at + policy.change_blamed_for
    ]
    return max(followed, key=lambda change: change.at, default=None)


def shed_share(service: ServiceEvidence) -> float:
    """Share of requests that its replicas refused for lack of room."""
    answers = service.answers
    return min(1.0, answers.shed / answers.answered) if answers is not None and answers.answered > 0 else 0.0


def lacks_room(service: ServiceEvidence, fired: FastPath | None, policy: Policy) -> bool | None:
    """Whether full slots explain the trouble; None when it is not known how full they are.

    Refused requests are what full slots do. Requests that were taken and failed all the same are not.
    """
    if service.saturation is None or service.saturation.replicas == 0:
        return None
    full = service.saturation.utilisation >= policy.scale.saturated_from or shed_share(service) >= SHEDDING_FROM
    answers = service.answers
    if full and answers is not None and fired is not None and fired.kind is Kind.ERRORS:
        p = binomial_tail(
            answers.failed - answers.shed, max(0.0, answers.answered - answers.shed), fired.result.null_share
        )
        return p > policy.fast_path.alpha
    return full


def slower_not_busier(service: ServiceEvidence, policy: Policy, began: datetime | None) -> bool:
    """Whether its slots are full because it became slow: all its replicas are there, and no more is asked than usual.

    False when that cannot be told: a replica too many is the cheaper mistake.
    """
    usual, deployment = service.usual_requests_per_second, service.deployment
    if usual is None or usual <= 0 or deployment is None or deployment.ready < deployment.desired:
        return False
    if began is not None and any(
        change.kind is ChangeKind.SCALE and not change.drill and began - policy.change_blamed_for <= change.at
        for change in service.changes
    ):
        return False
    rates = [
        test.result.total / test.result.window_seconds
        for test in service.fast_paths
        if test.kind is Kind.ERRORS and test.result.window_seconds > 0
    ]
    if service.requests_per_second is not None:
        rates.append(service.requests_per_second)
    return bool(rates) and max(rates) <= policy.scale.busier_from * usual
