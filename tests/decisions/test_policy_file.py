"""The policy file: what ships is valid, and every mistake is named with its line."""

from dataclasses import replace
from datetime import timedelta

import pytest

from control_plane.decisions.policy_file import InvalidPolicy, load_policy, policy_digest
from control_plane.decisions.reasons import Autonomy, Move
from control_plane.topology import SERVICES
from tests.decisions.decision_builders import AUTO, GATEWAY, OBSERVING, POLICY_FILE

TEXT = POLICY_FILE.read_text()


def loaded_with(old: str, new: str) -> None:
    assert old in TEXT
    load_policy(TEXT.replace(old, new, 1), file="slos/policy.yaml", profile="local")


def test_only_the_local_profile_acts_by_itself() -> None:
    assert all(OBSERVING.autonomy_of(name, move) is Autonomy.OBSERVE for name in SERVICES for move in Move)
    assert all(AUTO.autonomy_of(name, move) is Autonomy.AUTO for name in SERVICES for move in Move)
    assert AUTO.automatic
    assert not OBSERVING.automatic


def test_numbers_and_durations_are_read_as_written() -> None:
    assert AUTO.fast_path.alpha == 1e-6
    assert AUTO.fast_path.windows_seconds == (10, 20, 30, 60)
    assert AUTO.limits[Move.ROLL_BACK].cooldown == timedelta(minutes=30)
    assert AUTO.watch_only == ("ai-gateway-service-first-token",)


def test_the_digest_names_exactly_these_terms() -> None:
    assert AUTO.digest == policy_digest(AUTO)
    assert AUTO.digest != OBSERVING.digest
    assert policy_digest(replace(AUTO, headroom=1.3)) != AUTO.digest


def test_autonomy_can_be_written_for_one_service() -> None:
    text = TEXT + "    services: {ai-gateway-service: {roll_back: approve}}\n"
    policy = load_policy(text, file="f", profile="local")
    assert policy.autonomy_of(GATEWAY, Move.ROLL_BACK) is Autonomy.APPROVE
    assert policy.autonomy_of(GATEWAY, Move.SCALE_OUT) is Autonomy.AUTO


def test_a_number_in_scientific_notation_is_a_number() -> None:
    text = TEXT.replace("alpha: 0.000001", "alpha: 1e-6")
    assert load_policy(text, file="f", profile="local").fast_path.alpha == 1e-6


def test_a_limit_may_be_left_out_which_denies_its_action() -> None:
    line = next(line for line in TEXT.splitlines() if line.strip().startswith("scale_in: {cooldown"))
    assert Move.SCALE_IN not in load_policy(TEXT.replace(line, ""), file="f", profile="local").limits


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("alpha:", "alhpa:", "fast_path.alhpa: is not known here: did you mean 'alpha'?"),
        ("cooldown: 30m", "cooldown: 30", "limits.roll_back.cooldown: '30' is no duration"),
        ("actions: 3", "actions: some", "limits.roll_back.actions"),
        ("actions: 3", "actions: -1", "limits.roll_back.actions"),
        ("saturated_from: 0.9", "saturated_from: 0.5", "must be above target_utilisation 0.7"),
        ("tolerance: 0.1", "tolerance: .nan", "scale.tolerance"),
        ("headroom: 1.2", "headroom: 0.9", "roll_back.headroom"),
        ("irreversible: []", "irreversible: [identity]", "did you mean 'identity-service'?"),
        ("roll_back: auto", "roll_back: atuo", "profiles.local.autonomy.roll_back"),
        ("{roll_back: auto", "{rollback: auto", "not 'rollback'"),
        ("[10s, 20s, 30s, 60s]", "[10s, 60s, 30s]", "windows must rise"),
        ("[10s, 20s, 30s, 60s]", "[10s, 10m]", "windows end at 120s"),
        ("[10s, 20s, 30s, 60s]", "[]", "fast_path.windows"),
        ("max_age: 15s", "max_age:", "evidence.max_age"),
        ("  within: 10m", "  within: 10m\n  within: 20m", "is written twice"),
    ],
)
def test_a_mistake_is_named_with_file_line_and_field(old: str, new: str, said: str) -> None:
    line = TEXT[: TEXT.index(old)].count("\n") + 1
    with pytest.raises(InvalidPolicy) as caught:
        loaded_with(old, new)
    assert said in str(caught.value)
    assert any(finding.file == "slos/policy.yaml" for finding in caught.value.findings)
    assert any(abs(finding.line - line) <= 1 for finding in caught.value.findings)


def test_all_mistakes_are_said_at_once() -> None:
    text = TEXT.replace("max_age: 15s", "max_age: soon").replace("per: 1h", "per: often")
    with pytest.raises(InvalidPolicy) as caught:
        load_policy(text, file="f", profile="local")
    assert len(caught.value.findings) >= 4


@pytest.mark.parametrize("text", ["", "[]", "a: b\n---\nc: d\n", "a: [", "just text"])
def test_what_is_no_policy_is_refused(text: str) -> None:
    with pytest.raises(InvalidPolicy):
        load_policy(text, file="f", profile="local")


def test_an_unknown_profile_names_the_known_ones() -> None:
    with pytest.raises(InvalidPolicy, match="no profile 'production'; defined: default, local"):
        load_policy(TEXT, file="f", profile="production")
