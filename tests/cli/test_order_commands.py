"""What is ordered by hand, and what was decided: words, exit codes, and shapes that programs rely on."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from control_plane.console.host import DecisionShown
from tests.cli.conftest import Backstay, Switchboard
from tests.console.console_builders import CommandsInMemory, HostInMemory, a_shown_decision, a_situation

SEARCH = "search-service"
ID = "d" * 12


def a_step(name: str, state: str, detail: str = "") -> dict[str, Any]:
    return {"name": name, "kind": "shift", "state": state, "started_at": None, "ended_at": None, "detail": detail}


class Ending(CommandsInMemory):
    """Plans that end as a test says, after one look in between."""

    def __init__(self, state: str) -> None:
        super().__init__()
        self._looks = [
            {"state": "RUNNING", "outcome": "", "steps": [a_step("one", "done", "[seen]"), a_step("two", "running")]},
            {"state": state, "outcome": "so it ended", "steps": [a_step("one", "done"), a_step("two", "failed", "no")]},
        ]

    async def progress(self, saga_id: str) -> dict[str, Any] | None:
        look = self._looks.pop(0) if len(self._looks) > 1 else self._looks[0]
        return {"saga_id": saga_id, **look}


@pytest.mark.parametrize(
    ("words", "order"),
    [
        (("rollback", SEARCH), ("rollback", SEARCH, None)),
        (("rollback", "all"), ("rollback", "all", None)),
        (("scale", SEARCH, "3"), ("scale", SEARCH, 3)),
        (("scale", SEARCH, "0"), ("scale", SEARCH, 0)),
        (("cutover", SEARCH, "--to", "50"), ("cutover", SEARCH, 50)),
    ],
)
def test_an_order_reaches_the_control_plane_as_it_was_given(
    backstay: Backstay, host: HostInMemory, words: tuple[str, ...], order: tuple[Any, ...]
) -> None:
    assert backstay(*words, "--reason", "launch", "--dry-run").code == 0
    ((*given, reason, _, dry_run),) = host.commands.orders
    assert (tuple(given), reason, dry_run) == (order, "launch", True)


def test_a_dry_run_prints_the_plan(backstay: Backstay) -> None:
    ran = backstay("rollback", SEARCH, "--dry-run")
    assert (ran.code, ran.out) == (0, "1. scale the monolith\n")
    answer = backstay("rollback", SEARCH, "--dry-run", "--format", "json").json
    assert answer == {"plan": {"lines": ["1. scale the monolith"]}, "saga_id": None}


@pytest.mark.parametrize(("state", "code"), [("DONE", 0), ("HELD", 1), ("REVERTED", 1)])
def test_a_plan_is_followed_to_its_end_and_the_exit_code_tells_it(
    backstay: Backstay, board: Switchboard, host: HostInMemory, state: str, code: int
) -> None:
    host.commands = Ending(state)
    ran = backstay("rollback", SEARCH)
    assert ran.code == code
    assert ran.out == f"  one: done  [seen]\n  two: failed  no\n{state}: so it ended\n"


def test_programs_get_one_document_when_a_plan_has_ended(backstay: Backstay, host: HostInMemory) -> None:
    host.commands = Ending("HELD")
    ran = backstay("rollback", SEARCH, "--format", "json")
    assert ran.code == 1
    assert ran.json["saga_id"] == "s1"
    assert ran.json["progress"]["state"] == "HELD"
    assert [step["state"] for step in ran.json["progress"]["steps"]] == ["done", "failed"]


def test_an_order_that_is_refused_says_why(backstay: Backstay) -> None:
    ran = backstay("rollback", "billing-service")
    assert (ran.code, ran.out, ran.err) == (2, "", "backstay: There is no billing-service.\n")


def test_freezing_and_thawing_say_what_holds_now(backstay: Backstay) -> None:
    assert backstay("freeze", "--reason", "maintenance").out == "Frozen: maintenance\n"
    assert backstay("freeze", "--reason", "maintenance", "--format", "json").json == {"frozen": "maintenance"}
    assert backstay("thaw").out == "Automatic action is allowed again.\n"
    assert backstay("thaw", "--format", "json").json == {"frozen": None}


def test_a_dry_run_of_the_kill_switch_says_how_it_stands(backstay: Backstay, board: Switchboard) -> None:
    assert backstay("freeze", "--dry-run").out == "Automatic action is not frozen; this would freeze it.\n"
    board.show(HostInMemory(a_situation(frozen="maintenance")))
    assert backstay("thaw", "--dry-run").out == "Automatic action is frozen (maintenance); this would thaw it.\n"
    assert backstay("thaw", "--dry-run", "--format", "json").json == {"dry_run": True, "frozen": "maintenance"}


def test_word_of_a_deploy_is_passed_on(backstay: Backstay) -> None:
    assert backstay("deploys", "record", SEARCH, "v2").out == f"Recorded {SEARCH} v2.\n"
    assert backstay("deploys", "record", SEARCH, "v2", "--dry-run").out == f"Would record {SEARCH} v2.\n"
    assert backstay("deploys", "record", SEARCH, "v2", "--format", "json").json == {"service": SEARCH, "version": "v2"}


def test_a_new_password_is_printed_once_and_not_on_a_dry_run(backstay: Backstay) -> None:
    assert backstay("admin", "reset-password").out == "admin  new-password\n"
    assert "new-password" not in backstay("admin", "reset-password", "--dry-run").out
    answer = backstay("admin", "reset-password", "ada", "--format", "json").json
    assert answer == {"username": "ada", "password": "new-password"}


# --- decisions


def test_decisions_are_a_line_each(backstay: Backstay) -> None:
    header, line = backstay("decisions", "list").out.splitlines()
    assert header.split() == ["id", "at", "(UTC)", "service", "action", "reason", "state"]
    assert line.split()[:2] == [ID, "2026-11-24T12:00:00"]


def test_decisions_for_programs_have_the_fields_that_they_rely_on(backstay: Backstay) -> None:
    (item,) = backstay("decisions", "list", "--format", "json").json["decisions"]
    assert {"id", "at", "service", "action", "target", "reason", "state"} <= item.keys()


def test_a_suite_without_decisions_says_so(backstay: Backstay, board: Switchboard) -> None:
    class Quiet(HostInMemory):
        async def decisions(self, limit: int, service: str | None = None) -> list[DecisionShown]:
            return []

    board.show(Quiet(a_situation()))
    assert backstay("decisions", "list").out == "No decision has been stored yet.\n"


def test_names_that_look_like_markup_are_printed_as_they_are(backstay: Backstay, board: Switchboard) -> None:
    class Hostile(HostInMemory):
        async def decisions(self, limit: int, service: str | None = None) -> list[DecisionShown]:
            return [replace(a_shown_decision(), state="[red]refused[/] \\[")]

    board.show(Hostile(a_situation()))
    assert "[red]refused[/] \\[" in backstay("decisions", "list").out


def test_a_decision_is_shown_with_its_evidence(backstay: Backstay) -> None:
    item = backstay("decisions", "show", ID).json
    assert item["evidence"] == {"label": "<script>alert(1)</script>"}
    assert item["guards"] == [{"name": "fresh evidence", "passed": True, "detail": "3 s old"}]


def test_a_decision_is_explained_by_its_guards(backstay: Backstay) -> None:
    ran = backstay("decisions", "explain", ID)
    assert ran.out.splitlines() == [
        "ROLL_BACK ai-gateway-service: ERRORS_WITHOUT_SATURATION",
        "188 of 960 requests failed in 10 s.",
        "  passed  fresh evidence: 3 s old",
    ]
    explained = backstay("decisions", "explain", ID, "--format", "json").json
    assert set(explained) == {"id", "action", "target", "reason", "sentence", "guards"}


def test_a_decision_that_nobody_made_is_named(backstay: Backstay) -> None:
    ran = backstay("decisions", "show", "nothing")
    assert (ran.code, ran.err) == (2, "backstay: No decision has the id nothing.\n")


@pytest.mark.parametrize(("identical", "code"), [(True, 0), (False, 1)])
def test_a_replay_tells_by_its_exit_code_whether_the_decision_is_the_same(
    backstay: Backstay, host: HostInMemory, identical: bool, code: int
) -> None:
    class Replaying(CommandsInMemory):
        async def replay(self, decision_id: str) -> dict[str, Any] | None:
            return {"identical": identical, "stored": {}, "replayed": {}}

    host.commands = Replaying()
    assert backstay("decisions", "replay", ID).code == code
    ran = backstay("decisions", "replay", ID, "--format", "json")
    assert (ran.code, ran.json["identical"]) == (code, identical)
