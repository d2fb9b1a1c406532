"""Builders for decisions: fresh and healthy by default, so that each test states only what it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from control_plane.decisions.capacity import Demand
from control_plane.decisions.evidence import (
    DestinationEvidence,
    Evidence,
    FastPath,
    RecentAction,
    ServiceEvidence,
    SloReading,
)
from control_plane.decisions.policy import Decision, decide
from control_plane.decisions.policy_file import load_policy
from control_plane.decisions.reasons import Move
from control_plane.decisions.saturation import Saturation
from control_plane.decisions.statistics import FastPathResult, Missing, Outcome
from control_plane.decisions.terms import Policy
from control_plane.slo.state import Kind, Verdict
from control_plane.topology import MONOLITH, SERVICES, Deployment, Weights
from control_plane.tracing.call_attribution import Answers, Attribution, AttributionVerdict, Culprit, Symptom

NOON = datetime(2026, 11, 24, 12, tzinfo=UTC)
GATEWAY = "ai-gateway-service"
IDENTITY = "identity-service"
SEARCH = "search-service"
FILES = "file-service"
POLICY_FILE = Path(__file__).parents[2] / "slos" / "policy.yaml"
AUTO: Policy = load_policy(POLICY_FILE.read_text(), file="slos/policy.yaml", profile="local")
OBSERVING: Policy = load_policy(POLICY_FILE.read_text(), file="slos/policy.yaml", profile="default")


def a_reading(service: str, kind: Kind = Kind.ERRORS, **changes: Any) -> SloReading:
    target = "0.999" if kind is Kind.ERRORS else "0.95"
    reading = SloReading(
        f"{service}-{kind.value}", kind, target, Verdict.OK, "within budget", 0.2, 0.2, 0.9, 1.0, (), NOON
    )
    return replace(reading, **changes)


def a_deployment(name: str, **changes: Any) -> Deployment:
    deployment = Deployment(name, 2, 2, 1, 6, 16, stream_slots_per_replica=16)
    return replace(deployment, **changes)


def slots_used(used: float, replicas: int = 2, per_replica: int = 16, streams: float = 0.0) -> Saturation:
    slots = float(replicas * per_replica)
    return Saturation(replicas, Demand(slots, slots), Demand(used, streams))


def quiet(service: str, kind: Kind = Kind.ERRORS) -> FastPath:
    null_share = 0.005 if kind is Kind.ERRORS else 0.1
    return FastPath(f"{service}-{kind.value}", kind, FastPathResult(Outcome.QUIET, null_share, 60, 1200.0, 0.0, 1.0))


def fired(service: str, kind: Kind = Kind.ERRORS, p_value: float = 1e-20, ago: float = 10, slo: str = "") -> FastPath:
    """20 % of 200 requests in the last ten seconds, begun `ago` seconds before noon."""
    null_share = 0.005 if kind is Kind.ERRORS else 0.1
    began = int(NOON.timestamp() - ago)
    result = FastPathResult(Outcome.FIRED, null_share, 10, 200.0, 40.0, p_value, 10, began)
    return FastPath(slo or f"{service}-{kind.value}", kind, result)


def suspect(service: str) -> FastPath:
    result = FastPathResult(Outcome.SUSPECT, 0.005, 60, 300.0, 7.0, 4e-4, 5, 1, Missing(640, 13))
    return FastPath(f"{service}-errors", Kind.ERRORS, result)


def blaming(victim: str, culprit: str, symptom: Symptom = Symptom.ERRORS, **changes: Any) -> Attribution:
    """All of the trouble of `victim` began in `culprit`."""
    inherited = 0.0 if culprit == victim else 1.0
    found = Attribution(
        victim, symptom, AttributionVerdict.CULPRIT, 0.9, (Culprit(culprit, 1.0),), inherited, events=40.0
    )
    return replace(found, **changes)


def a_service(name: str, **changes: Any) -> ServiceEvidence:
    """Healthy, a quarter full, on its own deployment."""
    service = ServiceEvidence(
        service=name,
        slos=(a_reading(name), a_reading(name, Kind.LATENCY)),
        fast_paths=(quiet(name), quiet(name, Kind.LATENCY)),
        answers=Answers(600.0, 0.0, 0.0, 6.0, 600.0, 0.0),
        saturation=slots_used(16.0),
        demand=Demand(8.0),
        requests_per_second=20.0,
        usual_requests_per_second=20.0,
        deployment=a_deployment(name),
        weights=Weights(100, 0),
    )
    return replace(service, **changes)


def failing(name: str, **changes: Any) -> ServiceEvidence:
    """Its own code answers 20 % of its requests with 500, and it has room enough."""
    service = a_service(
        name,
        fast_paths=(fired(name), quiet(name, Kind.LATENCY)),
        attributions=(blaming(name, name),),
        answers=Answers(600.0, 120.0, 0.0, 6.0, 600.0, 0.0),
    )
    return replace(service, **changes)


def slow(name: str, **changes: Any) -> ServiceEvidence:
    """Half of its requests take too long, by its own doing, and it has room enough."""
    service = a_service(
        name,
        fast_paths=(quiet(name), fired(name, Kind.LATENCY)),
        attributions=(blaming(name, name, Symptom.LATENCY),),
    )
    return replace(service, **changes)


def overrun(name: str, **changes: Any) -> ServiceEvidence:
    """Asked far more than its two replicas hold: slots full, a queue, and 30 % of the requests refused with 503."""
    service = a_service(
        name,
        fast_paths=(fired(name), fired(name, Kind.LATENCY)),
        attributions=(blaming(name, name), blaming(name, name, Symptom.LATENCY)),
        answers=Answers(1500.0, 450.0, 450.0, 600.0, 1500.0, 900.0),
        saturation=slots_used(60.0),
        requests_per_second=60.0,
    )
    return replace(service, **changes)


def a_monolith(**changes: Any) -> DestinationEvidence:
    deployment = Deployment(MONOLITH, 1, 1, 1, 6, 48, stream_slots_per_replica=48)
    return replace(DestinationEvidence(deployment, Demand(2.0)), **changes)


def an_evidence(*services: ServiceEvidence, **changes: Any) -> Evidence:
    """The given services, and healthy ones in place of the rest of the suite."""
    given = {service.service: service for service in services}
    everyone = tuple(given.get(name) or a_service(name) for name in SERVICES)
    evidence = Evidence(at=NOON, services=everyone, monolith=a_monolith(), recent_actions=())
    return replace(evidence, **changes)


def decided(evidence: Evidence, policy: Policy = AUTO, now: datetime = NOON) -> dict[str, Decision]:
    """The decisions by service."""
    return {decision.service: decision for decision in decide(evidence, policy, now)}


def only_acting(decisions: dict[str, Decision] | Sequence[Decision]) -> list[Decision]:
    everyone = decisions.values() if isinstance(decisions, dict) else decisions
    return [decision for decision in everyone if decision.action.value != "hold"]


def an_action(move: Move, target: str, minutes_ago: float, **changes: Any) -> RecentAction:
    at = NOON - timedelta(minutes=minutes_ago)
    return replace(RecentAction(at, move, target, ended_at=at + timedelta(seconds=30)), **changes)


CALLERS = {IDENTITY: frozenset({GATEWAY, "streaming-service"}), GATEWAY: frozenset({"streaming-service"})}
"""By service, who depends on it."""
