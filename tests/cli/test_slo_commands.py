"""`backstay slo`: files are checked offline, rules exported, and the state read in one shape."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from control_plane.slo.state import Verdict
from tests.cli.conftest import Backstay, Switchboard
from tests.console.console_builders import HostInMemory, a_situation, with_state

SLOS = Path(__file__).parents[2] / "slos"


def a_wrong_file(folder: Path) -> Path:
    """One of our files with a target that leaves no budget."""
    text = (SLOS / "search-service.yaml").read_text()
    file = folder / "search-service.yaml"
    file.write_text(text.replace("targetPercent: 99.9", "targetPercent: 100", 1))
    return file


def test_the_files_of_the_repository_have_no_findings(backstay: Backstay) -> None:
    ran = backstay("slo", "check", str(SLOS))
    assert (ran.code, ran.out.endswith(" SLOs, no findings.\n")) == (0, True)
    assert backstay("slo", "check", str(SLOS), "--format", "json").json == {"findings": []}


def test_a_finding_names_file_line_and_code(backstay: Backstay, tmp_path: Path) -> None:
    file = a_wrong_file(tmp_path)
    ran = backstay("slo", "check", str(SLOS / "sources.yaml"), str(file))
    assert ran.code == 1
    line = file.read_text().splitlines().index("    - displayName: errors below 0.1 %") + 2
    assert ran.out.startswith(f"{file}:{line}: ")
    assert len(ran.out.splitlines()) == 1


def test_a_finding_for_programs_has_the_fields_that_they_rely_on(backstay: Backstay, tmp_path: Path) -> None:
    ran = backstay("slo", "check", str(SLOS / "sources.yaml"), str(a_wrong_file(tmp_path)), "--format", "json")
    (finding,) = ran.json["findings"]
    assert ran.code == 1
    assert set(finding) == {"file", "line", "path", "code", "severity", "message"}


@pytest.mark.parametrize("command", [("slo", "check"), ("slo", "export")])
def test_a_file_that_is_not_there_is_named(backstay: Backstay, command: tuple[str, ...]) -> None:
    ran = backstay(*command, "/nowhere/slo.yaml")
    assert (ran.code, ran.err) == (2, "backstay: /nowhere/slo.yaml: does not exist\n")


def test_rules_are_exported_as_prometheus_reads_them_without_a_stack(backstay: Backstay, state_dir: Path) -> None:
    (state_dir / "run" / "token").unlink()
    ran = backstay("slo", "export", str(SLOS), "--as", "prometheus", "--console-url", "https://backstay.example")
    assert ran.code == 0
    assert yaml.safe_load(ran.out)["groups"]
    assert "https://backstay.example/runbooks/" in ran.out


def test_rules_for_programs_are_one_document(backstay: Backstay, tmp_path: Path) -> None:
    for name in ("sources.yaml", "search-service.yaml"):
        (tmp_path / name).write_text((SLOS / name).read_text())
    document = backstay("slo", "export", str(tmp_path), "--format", "json").json
    assert document["format"] == "prometheus"
    assert yaml.safe_load(document["rules"])["groups"]


def test_the_state_of_an_slo_for_programs_has_the_fields_that_they_rely_on(backstay: Backstay) -> None:
    states = backstay("slo", "status", "--format", "json", "--service", "search-service").json["slos"]
    assert {state["service"] for state in states} == {"search-service"}
    state = next(state for state in states if state["name"] == "search-service-errors")
    assert state["verdict"] == "ok"
    assert state["sli"] == {"lower": 0.9999, "estimate": 0.9999, "upper": 0.9999}
    assert (state["budget_remaining_ratio"], state["coverage_ratio"], state["measured_ratio"]) == (0.9, 1.0, 0.01)
    assert state["burn_rates"]["1h"] == 0.4
    assert state["as_of"] == "2026-11-24T12:00:00+00:00"


def test_what_is_not_known_is_null_for_programs_and_a_word_for_people(backstay: Backstay, board: Switchboard) -> None:
    unknown = with_state(
        a_situation(), verdict=Verdict.UNKNOWN, sli=None, budget_remaining_ratio=None, coverage_ratio=None
    )
    board.show(HostInMemory(unknown))
    states = backstay("slo", "status", "--format", "json").json["slos"]
    state = next(each for each in states if each["name"] == "ai-gateway-service-errors")
    assert (state["verdict"], state["sli"], state["budget_remaining_ratio"]) == ("unknown", None, None)
    line = next(line for line in backstay("slo", "status").out.splitlines() if "ai-gateway-service-errors" in line)
    assert line.split()[1:4] == ["unknown", "unknown", "unknown"]


def test_people_get_one_line_an_slo(backstay: Backstay) -> None:
    lines = backstay("slo", "status").out.splitlines()
    assert len(lines) == 1 + 7 * 4
    assert sum(line.startswith("search-service-") for line in lines) == 4


def test_before_the_first_tick_there_is_no_state_and_it_says_so(backstay: Backstay, board: Switchboard) -> None:
    board.show(HostInMemory(None))
    assert backstay("slo", "status").out.startswith("No SLO has been evaluated yet")
    assert backstay("slo", "status", "--format", "json").json == {"slos": []}
