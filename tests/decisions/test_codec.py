"""Stored decisions: read back to equal values, and decided again to the same bytes."""

import json
from dataclasses import replace

import pytest

from control_plane.decisions.codec import (
    decision_json,
    evidence_for,
    evidence_values,
    read_record,
    record_json,
    replay,
    replays_alike,
)
from control_plane.decisions.evidence import Drill, Evidence
from control_plane.decisions.policy import decide
from control_plane.decisions.reasons import Move
from control_plane.errors import InvalidDefinition
from tests.decisions.decision_builders import (
    AUTO,
    FILES,
    GATEWAY,
    IDENTITY,
    NOON,
    OBSERVING,
    SEARCH,
    a_deployment,
    an_action,
    an_evidence,
    blaming,
    failing,
    overrun,
    slow,
    suspect,
)

SCENES: dict[str, Evidence] = {
    "calm": an_evidence(),
    "errors": an_evidence(failing(GATEWAY)),
    "victim and culprit": an_evidence(failing(GATEWAY, attributions=(blaming(GATEWAY, IDENTITY),))),
    "saturation": an_evidence(overrun(GATEWAY)),
    "three culprits": an_evidence(failing(GATEWAY), slow(IDENTITY), failing(FILES)),
    "four rollbacks for a budget of three": an_evidence(
        failing(GATEWAY), slow(IDENTITY), recent_actions=tuple(an_action(Move.ROLL_BACK, FILES, m) for m in (31, 40))
    ),
    "frozen": an_evidence(failing(GATEWAY), kill_switch="maintenance"),
    "drill": an_evidence(slow(SEARCH), drill=Drill("latency", SEARCH)),
    "suspicion": an_evidence(failing(FILES, fast_paths=(suspect(FILES),))),
    "crash": an_evidence(failing(FILES, deployment=a_deployment(FILES, ready=0), restarts_recently=2)),
}


@pytest.mark.parametrize("name", SCENES)
@pytest.mark.parametrize("policy", [AUTO, OBSERVING], ids=["auto", "observe"])
def test_every_decision_replays_to_the_same_bytes(name: str, policy: object) -> None:
    assert policy in (AUTO, OBSERVING)
    terms = AUTO if policy is AUTO else OBSERVING
    evidence = SCENES[name]
    decisions = decide(evidence, terms, NOON)
    for decision in decisions:
        stored = record_json(decision, evidence_for(decision, evidence, decisions), terms)
        assert replay(stored) == decision
        assert decision_json(replay(stored)) == decision_json(decision)
        assert replays_alike(stored)
        record = read_record(stored)
        assert record_json(record.decision, record.evidence, record.policy) == stored


def test_whole_evidence_is_read_back_to_an_equal_value() -> None:
    evidence = SCENES["victim and culprit"]
    decision = decide(evidence, AUTO, NOON)[0]
    assert read_record(record_json(decision, evidence, AUTO)).evidence == evidence


def test_a_record_holds_who_is_concerned_and_nobody_else() -> None:
    evidence = SCENES["victim and culprit"]
    decisions = decide(evidence, AUTO, NOON)
    calm = next(d for d in decisions if d.service == SEARCH)
    kept = {service.service for service in evidence_for(calm, evidence, decisions).services}
    assert kept == {GATEWAY, IDENTITY, SEARCH}


def test_a_decision_that_was_tampered_with_is_noticed() -> None:
    evidence = SCENES["errors"]
    decision = decide(evidence, AUTO, NOON)[2]
    stored = json.loads(record_json(decision, evidence, AUTO))
    stored["decision"]["reason"] = "within_budget"
    assert not replays_alike(json.dumps(stored))


@pytest.mark.parametrize("text", ["", "{}", "[]", "null", '{"decision": 1}', '{"format": 1, "decision": {}}'])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(InvalidDefinition):
        read_record(text)


def test_a_record_of_another_format_is_refused() -> None:
    evidence = SCENES["errors"]
    stored = json.loads(record_json(decide(evidence, AUTO, NOON)[0], evidence, AUTO))
    with pytest.raises(InvalidDefinition, match="format 2"):
        read_record(json.dumps(stored | {"format": 2}))


def test_an_id_tells_decisions_apart_and_numbers_do_not_make_another_essence() -> None:
    evidence = SCENES["errors"]
    first = decide(evidence, AUTO, NOON)[2]
    other = replace(first, sentence="41 of 200 requests failed.")
    assert first.id != other.id
    assert first.essence == other.essence
    assert len(first.id) == 32


def test_evidence_can_be_shown_to_people() -> None:
    values = evidence_values(SCENES["errors"])
    assert values["at"] == "2026-11-24T12:00:00Z"
    json.dumps(values, allow_nan=False)
