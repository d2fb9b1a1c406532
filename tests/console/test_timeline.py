"""The timeline: everything that happened, newest first, in words; what is no news is left out."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from control_plane.actions.journal import Entry, EntryKind, Saga
from control_plane.actions.planning import rollback_plan
from control_plane.actions.plans import PlanPolicy
from control_plane.console.timeline import moments
from control_plane.ports import Change, DecisionRecord, Exclusion
from control_plane.situation import Moment, Tone
from tests.actions.suite_world import a_world
from tests.console.console_builders import NOON, HostInMemory, a_situation
from tests.console.test_web import HOSTILE, signed_in

SEARCH = "search-service"


def after(minutes: float) -> datetime:
    return NOON + timedelta(minutes=minutes)


def a_record(**changes: Any) -> DecisionRecord:
    """A rollback that was decided at noon."""
    record = DecisionRecord(
        id="d1",
        at=NOON,
        service=SEARCH,
        action="roll_back",
        target=SEARCH,
        reason="errors_without_saturation",
        sentence="20 % failed.",
        guards=(),
        evidence={},
        body={"move": "roll_back"},
    )
    return replace(record, **changes)


def a_saga(state: str | None = "DONE", unmet: str = "", **changes: Any) -> Saga:
    """A rollback whose steps were done a second apart; `unmet` is the kind of a step that only went on."""
    plan = rollback_plan(SEARCH, a_world().reading(), {}, PlanPolicy())
    entries = []
    for index, step in enumerate(plan.steps):
        seen = {"detail": f"{step.kind} was seen", "met": step.kind != unmet}
        entries.append(Entry(EntryKind.DONE, NOON + timedelta(seconds=index + 1), index, seen))
    last = entries[-1].at
    if state is not None:
        entries.append(Entry(EntryKind.ENDED, last, None, {"state": state, "outcome": "so it ended"}))
    saga = Saga("s1", plan, "backstay", "20 % failed", True, NOON, False, "d1", tuple(entries))
    return replace(saga, **changes)


def told(
    decisions: list[DecisionRecord] | None = None,
    sagas: list[Saga] | None = None,
    changes: list[Change] | None = None,
    exclusions: list[Exclusion] | None = None,
    limit: int = 100,
) -> list[Moment]:
    return list(moments(decisions or [], sagas or [], changes or [], exclusions or [], limit))


def test_nothing_happened_on_a_quiet_day() -> None:
    assert told() == []


def test_the_newest_comes_first_whatever_it_is() -> None:
    found = told(
        [a_record(at=after(3))],
        [a_saga(by="ada")],
        [Change(after(2), SEARCH, "deploy", "v2", "ci")],
        [Exclusion("x", SEARCH, after(4), after(5), f"drill errors on {SEARCH}")],
    )
    assert [moment.at for moment in found] == sorted((moment.at for moment in found), reverse=True)
    assert [moment.title for moment in found[:4]] == ["drill ended", "drill began", f"ROLL BACK {SEARCH}", "deploy"]


def test_only_as_many_as_are_wanted_and_these_are_the_newest() -> None:
    records = [a_record(id=str(minute), at=after(minute)) for minute in range(10)]
    assert [moment.link for moment in told(records, limit=2)] == ["/decisions/9", "/decisions/8"]


@given(st.permutations(range(8)), st.integers(0, 10))
def test_the_order_in_which_records_come_does_not_matter(order: list[int], limit: int) -> None:
    records = [a_record(id=str(minute), at=after(minute)) for minute in order]
    assert [m.link for m in told(records, limit=limit)] == [f"/decisions/{n}" for n in range(7, -1, -1)][:limit]


def test_at_the_same_instant_what_came_of_it_stands_above() -> None:
    found = told([a_record()], [a_saga("HELD", began_at=NOON, by="ada")])
    titles = [moment.title for moment in found]
    assert titles[0].endswith(": HELD")
    assert titles[-1] == f"ROLL BACK {SEARCH}"


def test_a_decision_tells_its_reason_in_words_and_leads_to_its_page() -> None:
    (moment,) = told([a_record()])
    assert moment == Moment(
        NOON,
        Tone.BAD,
        f"ROLL BACK {SEARCH}",
        "ERRORS_WITHOUT_SATURATION: 20 % failed.",
        SEARCH,
        "/decisions/d1",
    )


def test_more_replicas_are_no_bad_news() -> None:
    (moment,) = told([a_record(action="scale", target="librechat-monolith")])
    assert (moment.title, moment.tone) == ("SCALE librechat-monolith", Tone.NOTE)


def test_holding_still_is_no_news_unless_something_was_stopped() -> None:
    calm = a_record(action="hold", reason="within_budget", body={"move": None})
    stopped = a_record(action="hold", reason="cooldown", body={"move": "roll_back"})
    (moment,) = told([calm, stopped])
    assert (moment.title, moment.tone) == (f"HOLD {SEARCH}", Tone.NOTE)
    assert moment.text.startswith("COOLDOWN")


def test_a_plan_tells_its_milestones_and_leads_to_its_decision() -> None:
    found = told(sagas=[a_saga()])
    assert [moment.title for moment in reversed(found)] == ["capacity ready", "traffic moved", "drained", "recovered"]
    assert {moment.tone for moment in found} == {Tone.GOOD}
    assert {moment.link for moment in found} == {"/decisions/d1"}
    assert found[0].text == "verify was seen"


def test_a_milestone_that_was_not_reached_is_not_called_reached() -> None:
    found = {moment.title: moment.tone for moment in told(sagas=[a_saga(unmet="drain")])}
    assert "drained" not in found
    assert found[f"{SEARCH} drained from {SEARCH}"] is Tone.NOTE


def test_what_a_person_ordered_says_who_and_why() -> None:
    found = told(sagas=[a_saga(by="ada", decision_id=None)])
    assert found[-1].title == f"roll {SEARCH} back to librechat-monolith"
    assert found[-1].text == "20 % failed (by ada)"
    assert found[-1].link is None


@pytest.mark.parametrize("state", ["HELD", "REVERTED"])
def test_a_plan_that_did_not_reach_its_end_is_bad_news_with_its_outcome(state: str) -> None:
    newest = told(sagas=[a_saga(state)])[0]
    assert newest.title.endswith(f": {state}")
    assert (newest.tone, newest.text) == (Tone.BAD, "so it ended")


def test_a_plan_that_runs_has_no_end() -> None:
    assert not any(": " in moment.title for moment in told(sagas=[a_saga(None)]))


def test_only_deploys_are_changes_worth_an_entry() -> None:
    changes = [Change(NOON, SEARCH, "deploy", "v2", "ci"), Change(NOON, SEARCH, "config", "limits", "ada")]
    (moment,) = told(changes=changes)
    assert (moment.title, moment.text) == ("deploy", f"{SEARCH} v2 by ci")


def test_a_drill_has_one_entry_however_many_services_it_harms() -> None:
    reason = f"drill errors on {SEARCH}"
    harmed = [Exclusion(str(n), name, NOON, None, reason) for n, name in enumerate([SEARCH, "file-service"])]
    (moment,) = told(exclusions=harmed)
    assert (moment.title, moment.service) == ("drill began", SEARCH)


def test_maintenance_is_told_too_and_is_no_drill() -> None:
    found = told(exclusions=[Exclusion("x", SEARCH, NOON, after(1), "new index")])
    assert [moment.title for moment in found] == ["exclusion ended", "exclusion began"]


async def test_hostile_text_reaches_the_page_as_text() -> None:
    found = told(
        [a_record(sentence=HOSTILE, target=HOSTILE)],
        [a_saga(by=HOSTILE, reason=HOSTILE)],
        [Change(NOON, HOSTILE, "deploy", HOSTILE, HOSTILE)],
        [Exclusion("x", HOSTILE, NOON, None, HOSTILE)],
    )
    page = (await (await signed_in(HostInMemory(a_situation(), found))).get("/")).text
    assert "&lt;script&gt;alert(1)" in page
    assert "<script>alert(1)" not in page
    assert 'onload="x' not in page
