"""Decisions with all they rest on, as canonical JSON: what is stored is decided again to the same bytes."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from pydantic import TypeAdapter, ValidationError

from control_plane.decisions.evidence import ALL_SERVICES, Evidence
from control_plane.decisions.policy import Decision, decide
from control_plane.decisions.terms import Policy
from control_plane.errors import InvalidDefinition

FORMAT = 1


@dataclass(frozen=True, slots=True)
class Record:
    """One decision with its inputs."""

    decision: Decision
    evidence: Evidence
    policy: Policy
    format: int = FORMAT


@cache
def _adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)


def _canonical(value: Any) -> str:
    """The one spelling of a JSON value: sorted keys, no spaces. NaN has none and raises ValueError."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def decision_values(decision: Decision) -> dict[str, Any]:
    """The decision as JSON values, its id among them."""
    return {"id": decision.id, **_adapter(Decision).dump_python(decision, mode="json")}


def evidence_values(evidence: Evidence) -> dict[str, Any]:
    """The evidence as JSON values, for people who ask why."""
    values: dict[str, Any] = _adapter(Evidence).dump_python(evidence, mode="json")
    return values


def decision_json(decision: Decision) -> str:
    """The decision alone, canonically."""
    return _canonical(decision_values(decision))


def evidence_for(decision: Decision, evidence: Evidence, decisions: Sequence[Decision]) -> Evidence:
    """The part of the evidence that the decision rests on, so that a record does not grow with the fleet.

    `decisions` are all of the same round. Kept is the service itself, and every service that suffers, is blamed or had
    something to be done about it: only these can change what is decided about another one. A rollback of everything
    rests on everything.
    """
    if any(other.service == ALL_SERVICES for other in decisions):
        return evidence
    concerned = {decision.service}
    for other in decisions:
        if other.move is not None or other.culprit is not None:
            concerned.add(other.service)
    return replace(evidence, services=tuple(s for s in evidence.services if s.service in concerned))


def record_json(decision: Decision, evidence: Evidence, policy: Policy) -> str:
    """Decision, evidence and policy as canonical JSON."""
    record = _adapter(Record).dump_python(Record(decision, evidence, policy), mode="json")
    record["decision"]["id"] = decision.id
    return _canonical(record)


def read_record(text: str) -> Record:
    """A stored record; InvalidDefinition when it is none or of another format."""
    try:
        values = json.loads(text)
        if isinstance(values, dict) and isinstance(values.get("decision"), dict):
            values["decision"].pop("id", None)
        record: Record = _adapter(Record).validate_python(values)
    except (ValueError, ValidationError) as error:
        raise InvalidDefinition(f"A stored decision cannot be read: {error}") from error
    if record.format != FORMAT:
        raise InvalidDefinition(f"A stored decision has format {record.format}; this version reads {FORMAT}.")
    return record


def replay(text: str) -> Decision:
    """Decides again from a stored record, with the code of today. Raises InvalidDefinition when it cannot be read."""
    record = read_record(text)
    again = decide(record.evidence, record.policy, record.decision.at)
    found = next((decision for decision in again if decision.service == record.decision.service), None)
    if found is None:
        raise InvalidDefinition(f"Deciding again says nothing about {record.decision.service}.")
    return found


def replays_alike(text: str) -> bool:
    """Whether deciding again gives the stored decision, byte for byte."""
    return decision_json(replay(text)) == _canonical(json.loads(text)["decision"])
