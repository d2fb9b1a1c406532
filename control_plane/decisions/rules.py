"""What should be done about a service, in order of the rules; whether it may be done is not asked here."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from control_plane.decisions import phrases
from control_plane.decisions.capacity import Recommendation, recommend
from control_plane.decisions.diagnosis import (
    Diagnosis,
    attribution_for,
    breach_began,
    diagnose,
    lacks_room,
    shed_share,
    slower_not_busier,
)
from control_plane.decisions.evidence import ALL_SERVICES, Evidence, FastPath, ServiceEvidence, SloReading
from control_plane.decisions.reasons import Move, Reason
from control_plane.decisions.terms import Policy
from control_plane.slo.state import Kind, Verdict
from control_plane.topology import MONOLITH, Deployment
from control_plane.tracing.call_attribution import Culprit


@dataclass(frozen=True, slots=True)
class Hold:
    """Nothing is to be done about a service."""

    reason: Reason
    sentence: str
    pages: bool = False
    culprit: str | None = None


@dataclass(frozen=True, slots=True)
class Proposal:
    """What should be done about a service, before anybody asked whether it may."""

    service: str
    move: Move
    reason: Reason
    sentence: str
    harm: float  # how surely users suffer: p-value of the test, 1.0 when they do not
    replicas: int | None = None


@dataclass(slots=True)
class Rules:
    """The rules over one evidence; what they look up often is indexed once."""

    evidence: Evidence
    policy: Policy
    now: datetime
    services: dict[str, ServiceEvidence] = field(init=False)
    findings: dict[str, Diagnosis] = field(init=False)
    victims: dict[str, list[str]] = field(init=False)  # by culprit
    busy_with: dict[str, str] = field(init=False)  # service or deployment -> kind of the plan that runs

    def __post_init__(self) -> None:
        self.services = {service.service: service for service in self.evidence.services}
        self.findings = {service.service: diagnose(service, self.policy) for service in self.evidence.services}
        self.victims = {}
        for name, found in self.findings.items():
            if found.fired is not None and found.culprit is not None and found.culprit != name:
                self.victims.setdefault(found.culprit, []).append(name)
        self.busy_with = {}
        for saga in self.evidence.active_sagas:
            for name in (saga.target, *saga.services):
                self.busy_with[name] = saga.kind

    def assess(self, service: ServiceEvidence) -> Hold | Proposal:
        name, found = service.service, self.findings[service.service]
        blamed = name in self.victims
        suffering = found.fired is not None or blamed
        if service.deployment is None or service.weights is None:
            return Hold(Reason.RUNTIME_UNKNOWN, Reason.RUNTIME_UNKNOWN.sentence, pages=suffering)
        if (unknown := self.unknown(service, found, blamed)) is not None:
            return unknown
        if not suffering and _verdict(service, Kind.ERRORS) is Verdict.NO_TRAFFIC:
            return Hold(Reason.NO_TRAFFIC, f"Nobody asks {name} anything now.")
        if (kind := self.busy_with.get(name) or self.busy_with.get(ALL_SERVICES)) is not None:
            return Hold(Reason.SAGA_ACTIVE, f"A {kind} that concerns {name} is being carried out.")
        if service.weights.monolith == 100:
            return self.on_monolith(service, found, blamed)
        if found.fired is None and found.watched is not None:
            return Hold(Reason.SHARED_WITH_MONOLITH, _seen(found.watched) + ". The monolith would not mend that.", True)
        if found.fired is not None and found.culprit not in (None, name):
            return self.culprit_elsewhere(service, found, found.fired)
        if suffering:
            return self.suffering(service, found)
        return self.calm(service, found)

    def unknown(self, service: ServiceEvidence, found: Diagnosis, blamed: bool) -> Hold | None:
        missing = [
            reading
            for reading in service.slos
            if reading.kind in (Kind.ERRORS, Kind.LATENCY)
            and reading.verdict is Verdict.UNKNOWN
            and reading.name not in self.policy.watch_only
        ]
        errors = next((reading for reading in service.slos if reading.kind is Kind.ERRORS), None)
        judged = errors is not None and errors.verdict is not Verdict.UNKNOWN
        if judged and (not missing or found.fired is not None or blamed):  # what is known can be bad enough
            return None
        long_enough = (
            service.unknown_since is not None and self.now - service.unknown_since >= self.policy.unknown_pages_after
        )
        why = missing[0].reason if missing else "there is no error SLO to judge it by"
        return Hold(Reason.UNKNOWN, f"{service.service} cannot be judged: {why.rstrip('.')}.", long_enough or blamed)

    def on_monolith(self, service: ServiceEvidence, found: Diagnosis, blamed: bool) -> Hold:
        if found.fired is not None or blamed:
            seen = _seen(found.fired) if found.fired else f"{self.victims_of(service)} still suffer from it"
            return Hold(Reason.ALREADY_ON_MONOLITH, f"{seen}, and {MONOLITH} already answers all of it.", pages=True)
        return Hold(Reason.HELD_ON_MONOLITH, Reason.HELD_ON_MONOLITH.sentence)

    def culprit_elsewhere(self, service: ServiceEvidence, found: Diagnosis, fired: FastPath) -> Hold:
        attribution = attribution_for(service, fired)
        share = attribution.culprits[0].share if attribution and attribution.culprits else 1.0
        sentence = f"{_seen(fired)}, but {phrases.percent(share)} of that began in {found.culprit}."
        return Hold(Reason.CULPRIT_ELSEWHERE, sentence, found.culprit not in self.services, found.culprit)

    def suffering(self, service: ServiceEvidence, found: Diagnosis) -> Hold | Proposal:
        """Its users, or those of its callers, suffer, and as far as is known it is the cause."""
        name, fired = service.service, found.fired
        seen = _seen(fired) if fired else f"{self.victims_of(service)} suffer from {name}"
        harm = fired.result.p_value if fired else 0.0
        if found.crashing:
            return self.roll_back(service, Reason.CRASH_LOOP, f"{seen}, and {_crash(service)}", harm)
        full = lacks_room(service, fired, self.policy)
        if full is None:
            return Hold(Reason.UNKNOWN, f"{seen}, but how full its slots are is not known.", pages=True)
        began = breach_began(service, fired) if fired else None
        slower = full and slower_not_busier(service, self.policy, began)
        if full and found.change is None and not slower:
            return self.more_room(service, fired, seen, harm)
        if fired is not None and found.culprit is None:
            attribution = attribution_for(service, fired)
            why = "its calls are not known" if attribution is None else _suspects(attribution.culprits)
            return Hold(Reason.CULPRIT_UNSURE, f"{seen}; who is behind it is not clear: {why}.", pages=True)
        if found.change is not None:
            change = found.change
            after = f"after its {change.kind.value.replace('_', ' ')} ({change.summary})"
            return self.roll_back(service, Reason.REGRESSION_AFTER_CHANGE, f"{seen}, {after}", harm)
        if slower:
            return self.roll_back(
                service, Reason.SLOWER_NOT_BUSIER, f"{seen}; {_room(service)}, asked no more than usual", harm
            )
        if fired is None:
            return self.roll_back(service, Reason.CULPRIT_OF_OTHERS, seen, harm)
        reason = Reason.ERRORS_WITHOUT_SATURATION if fired.kind is Kind.ERRORS else Reason.LATENCY_WITHOUT_SATURATION
        return self.roll_back(service, reason, f"{seen}, although {_room(service)}", harm)

    def roll_back(self, service: ServiceEvidence, reason: Reason, sentence: str, harm: float) -> Proposal:
        return Proposal(service.service, Move.ROLL_BACK, reason, f"{sentence}.", harm)

    def more_room(self, service: ServiceEvidence, fired: FastPath | None, seen: str, harm: float) -> Hold | Proposal:
        """Lack of room explains the trouble: another replica, or the monolith where there may be no more."""
        deployment = _known(service.deployment)
        wanted = self.recommended(service)
        replicas = wanted.replicas
        starting = deployment.desired - deployment.ready
        if replicas <= deployment.desired and starting <= 0:
            replicas = min(deployment.desired + 1, max(deployment.max_replicas, deployment.desired))
        if replicas > deployment.desired:
            sentence = f"{seen}; {_room(service)}: {deployment.desired} -> {replicas} replicas."
            return Proposal(service.service, Move.SCALE_OUT, Reason.SATURATED, sentence, harm, replicas)
        if starting > 0:
            sentence = f"{seen}; {starting} of {deployment.desired} replicas are still starting."
            return Hold(Reason.SCALING, sentence)
        sentence = f"{seen}; {_room(service)}, and it has the {deployment.desired} replicas that it may have"
        return self.roll_back(service, Reason.SCALED_TO_LIMIT, sentence, harm)

    def calm(self, service: ServiceEvidence, found: Diagnosis) -> Hold | Proposal:
        """Its users are served well: is there room enough, and is there too much of it?"""
        name, deployment = service.service, _known(service.deployment)
        known_room = service.saturation is not None and service.saturation.replicas > 0
        wanted = self.recommended(service) if known_room else None
        if found.crashing:  # those that stay look full, and more of them would exit as well
            watched = f" {_seen(found.suspect)}." if found.suspect else ""
            return Hold(Reason.MORE_EVIDENCE_NEEDED, f"{capital(_crash(service))}.{watched}")
        if wanted is not None and wanted.replicas > deployment.desired:
            sentence = (
                f"{_room(service)}, wanted are {phrases.percent(self.policy.scale.target_utilisation)}: "
                f"{deployment.desired} -> {wanted.replicas} replicas."
            )
            return Proposal(name, Move.SCALE_OUT, Reason.SATURATED, capital(sentence), 1.0, wanted.replicas)
        burning = next((reading for reading in service.slos if _burns(reading, self.policy)), None)
        if burning is not None:
            settled = service.judged_since is None
            return Hold(Reason.BURNING_SLOWLY, f"{burning.name}: {burning.reason.rstrip('.')}.", pages=settled)
        if found.suspect is not None:
            return Hold(Reason.MORE_EVIDENCE_NEEDED, f"{_seen(found.suspect)}.")
        if wanted is not None and wanted.limited:
            sentence = f"{capital(_room(service))}, and it has the {deployment.desired} replicas that it may have."
            return Hold(Reason.AT_LIMIT, sentence)
        if wanted is not None and self.is_idle(service, deployment):
            sentence = (
                f"One replica fewer was enough for {phrases.length(self.policy.scale.stable_for)}: "
                f"{deployment.desired} -> {deployment.desired - 1} replicas."
            )
            return Proposal(name, Move.SCALE_IN, Reason.RECOVERED, sentence, 1.0, deployment.desired - 1)
        return Hold(Reason.WITHIN_BUDGET, _budgets(service))

    def is_idle(self, service: ServiceEvidence, deployment: Deployment) -> bool:
        """Whether one replica fewer would have been enough all the time; what is not known keeps every replica."""
        saturation, peak, drill = service.saturation, service.peak, self.evidence.drill
        if saturation is None or peak is None or (drill is not None and drill.service == service.service):
            return False
        settled = deployment.ready == deployment.desired == saturation.replicas and deployment.draining == 0
        if not settled or deployment.desired <= max(1, deployment.min_replicas):
            return False
        most = peak.larger_of(saturation.used)
        scale = self.policy.scale
        fewer = recommend(most, deployment, saturation.replicas, scale.target_utilisation, scale.tolerance)
        return fewer.replicas < deployment.desired

    def recommended(self, service: ServiceEvidence) -> Recommendation:
        """HPA's answer to the demand now; requests that were refused are demand as well."""
        deployment, scale = _known(service.deployment), self.policy.scale
        if service.saturation is None:
            return Recommendation(deployment.desired, deployment.desired, 0.0)
        demand = service.saturation.used * (1 / max(0.25, 1 - shed_share(service)))
        return recommend(demand, deployment, service.saturation.replicas, scale.target_utilisation, scale.tolerance)

    def victims_of(self, service: ServiceEvidence) -> str:
        return phrases.listed(sorted(self.victims[service.service]))


def _known(deployment: Deployment | None) -> Deployment:
    if deployment is None:
        raise AssertionError("rules that look at a deployment come after the one that holds when it is not known")
    return deployment


def _verdict(service: ServiceEvidence, kind: Kind) -> Verdict | None:
    return next((reading.verdict for reading in service.slos if reading.kind is kind), None)


def _burns(reading: SloReading, policy: Policy) -> bool:
    return (
        reading.verdict is Verdict.PAGE
        and reading.name not in policy.watch_only
        and reading.kind is not Kind.THROUGHPUT
    )


def _seen(test: FastPath) -> str:
    return capital(test.result.sentence("failed" if test.kind is Kind.ERRORS else "were slow"))


def _room(service: ServiceEvidence) -> str:
    saturation = service.saturation
    if saturation is None:
        return "how full its slots are is not known"
    text = f"{phrases.percent(saturation.utilisation)} of its slots are asked for"
    shed = shed_share(service)
    return f"{text} and {phrases.percent(shed)} of its requests were refused" if shed > 0 else text


def _crash(service: ServiceEvidence) -> str:
    deployment = _known(service.deployment)
    ready = f"{deployment.ready} of {phrases.plural(deployment.desired, 'replica')} ready"
    return f"{ready}, {phrases.plural(service.restarts_recently, 'restart')} within a minute"


def _suspects(culprits: Sequence[Culprit]) -> str:
    if not culprits:
        return "too few events"
    return ", ".join(f"{culprit.service} {phrases.percent(culprit.share)}" for culprit in culprits[:3])


def _budgets(service: ServiceEvidence) -> str:
    left = [
        reading.budget_remaining_ratio
        for reading in service.slos
        if reading.budget_remaining_ratio is not None and reading.kind is not Kind.THROUGHPUT
    ]
    if not left:
        return "Every objective is kept."
    return f"Every objective is kept; the tightest error budget has {phrases.percent(max(0.0, min(left)))} left."


def capital(text: str) -> str:
    return text[:1].upper() + text[1:]
