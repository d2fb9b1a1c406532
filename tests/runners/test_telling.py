"""Alertmanager is told exactly what fires: once, again after a while, and later when it was down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from control_plane.actions.journal import Entry, EntryKind, Saga
from control_plane.actions.planning import rollback_plan, scale_plan
from control_plane.actions.plans import PlanPolicy
from control_plane.decisions.evidence import Evidence
from control_plane.decisions.policy import decide
from control_plane.decisions.reasons import Autonomy
from control_plane.decisions.terms import Policy
from control_plane.ports import Alert
from control_plane.runners.telling import REPEAT_AFTER, Teller, alerts_for, held_rollbacks
from tests.actions.suite_world import a_world
from tests.decisions.decision_builders import (
    AUTO,
    GATEWAY,
    IDENTITY,
    NOON,
    OBSERVING,
    SEARCH,
    a_service,
    an_evidence,
    failing,
    overrun,
)
from tests.runners.memory_ports import MemoryAlerts

SECOND = timedelta(seconds=1)


def an_alert(name: str = "SearchErrors", **changes: Any) -> Alert:
    alert = Alert({"alertname": name, "slo": "search-service-errors"}, {"summary": "20 %"}, NOON)
    return replace(alert, **changes)


def alerts_of(evidence: Evidence, held: Sequence[Saga] = (), policy: Policy = AUTO, **silent: datetime) -> list[Alert]:
    decisions = decide(evidence, policy, NOON)
    return list(alerts_for(evidence, decisions, held, "http://console", NOON, silent))


def a_saga(target: str, *, minutes_ago: float, state: str | None, drill: bool = False) -> Saga:
    """A rollback that ended so; None: it still runs."""
    began = NOON - timedelta(minutes=minutes_ago)
    plan = rollback_plan(target, a_world().reading(), {}, PlanPolicy())
    ended = (Entry(EntryKind.ENDED, began + SECOND, None, {"state": state, "outcome": "It did not fit."}),)
    return Saga(f"{target}-{minutes_ago}", plan, "backstay", "r", True, began, drill, None, ended if state else ())


# --- the teller


async def test_what_fires_is_posted_once_and_not_again_while_it_is_fresh() -> None:
    sink = MemoryAlerts()
    teller = Teller(sink)
    for seconds in (0, 5, 10):
        await teller.tell([an_alert()], NOON + seconds * SECOND)
    assert [len(post) for post in sink.posts] == [1]


async def test_what_goes_on_firing_is_posted_again_after_half_a_minute_with_its_first_start() -> None:
    sink = MemoryAlerts()
    teller = Teller(sink)
    await teller.tell([an_alert()], NOON)
    await teller.tell([an_alert(starts_at=NOON + REPEAT_AFTER)], NOON + REPEAT_AFTER)
    assert len(sink.posts) == 2
    assert [post[0].starts_at for post in sink.posts] == [NOON, NOON]


async def test_only_what_is_new_is_posted_between_two_repeats() -> None:
    sink = MemoryAlerts()
    teller = Teller(sink)
    await teller.tell([an_alert("A")], NOON)
    await teller.tell([an_alert("A"), an_alert("B")], NOON + 5 * SECOND)
    assert [[alert.labels["alertname"] for alert in post] for post in sink.posts] == [["A"], ["B"]]


async def test_what_fires_no_more_is_resolved_once() -> None:
    sink = MemoryAlerts()
    teller = Teller(sink)
    await teller.tell([an_alert()], NOON)
    for seconds in (5, 10):
        await teller.tell([], NOON + seconds * SECOND)
    assert len(sink.posts) == 2
    (resolved,) = sink.posts[-1]
    assert resolved.labels == an_alert().labels
    assert resolved.ends_at == NOON + 5 * SECOND


async def test_nothing_to_tell_is_not_told() -> None:
    sink = MemoryAlerts()
    await Teller(sink).tell([], NOON)
    assert sink.posts == []


async def test_a_sink_that_was_down_is_told_later_since_when_it_fires_and_what_is_over() -> None:
    sink = MemoryAlerts()
    teller = Teller(sink)
    await teller.tell([an_alert("old")], NOON)
    sink.down = True
    await teller.tell([an_alert("new", starts_at=NOON + 5 * SECOND)], NOON + 5 * SECOND)
    assert teller.problem == "Alertmanager did not answer"
    sink.down = False
    await teller.tell([an_alert("new", starts_at=NOON + 10 * SECOND)], NOON + 10 * SECOND)
    assert teller.problem is None
    new, old = sink.posts[-1]
    assert (new.labels["alertname"], new.starts_at) == ("new", NOON + 5 * SECOND)
    assert (old.labels["alertname"], old.ends_at) == ("old", NOON + 10 * SECOND)


async def test_a_sink_that_hangs_is_given_up_and_named() -> None:
    sink = MemoryAlerts(hangs=True)
    teller = Teller(sink, patience=timedelta(milliseconds=20))
    await teller.tell([an_alert()], NOON)
    assert teller.problem == "Alertmanager did not answer within 0.02 s."


async def test_what_was_told_of_an_slo_that_nobody_can_judge_now_is_not_over() -> None:
    sink = MemoryAlerts()
    teller = Teller(sink)
    await teller.tell([an_alert()], NOON)
    await teller.tell([], NOON + 5 * SECOND, unknown={"search-service-errors"})
    assert len(sink.posts) == 1
    await teller.tell([], NOON + REPEAT_AFTER, unknown={"search-service-errors"})
    assert sink.posts[-1][0].ends_at is None  # it is kept from timing out
    await teller.tell([], NOON + REPEAT_AFTER + 5 * SECOND)
    assert sink.posts[-1][0].ends_at is not None


@pytest.mark.parametrize("jump", [timedelta(hours=1), -timedelta(hours=1)])
async def test_a_clock_that_jumps_does_not_stop_the_repeats(jump: timedelta) -> None:
    sink = MemoryAlerts()
    teller = Teller(sink)
    await teller.tell([an_alert()], NOON)
    await teller.tell([an_alert()], NOON + jump)
    await teller.tell([an_alert()], NOON + jump + 5 * SECOND)
    assert len(sink.posts) == 2


# --- what there is to tell


def test_a_calm_day_has_nothing_to_tell() -> None:
    assert alerts_of(an_evidence()) == []


def test_a_fast_path_that_fired_says_what_backstay_is_about_to_do() -> None:
    (alert,) = alerts_of(an_evidence(failing(GATEWAY)))
    assert (alert.labels["service"], alert.labels["severity"], alert.labels["tier"]) == (GATEWAY, "page", "fast_path")
    assert (
        "Backstay is about to roll ai-gateway-service back to librechat-monolith." in alert.annotations["description"]
    )
    assert alert.annotations["runbook_url"].startswith("http://console/runbooks/")


def test_lack_of_room_says_how_many_replicas_there_will_be() -> None:
    told = [alert.annotations["description"] for alert in alerts_of(an_evidence(overrun(GATEWAY)))]
    assert all("Backstay is about to scale ai-gateway-service to" in text for text in told)


def test_where_the_policy_only_observes_the_alert_says_what_it_would_do() -> None:
    (alert,) = alerts_of(an_evidence(failing(GATEWAY)), policy=OBSERVING)
    assert f"its policy says: {Autonomy.OBSERVE.value}" in alert.annotations["description"]


def test_a_hold_says_why_nothing_is_done() -> None:
    (alert,) = alerts_of(an_evidence(failing(GATEWAY), kill_switch="maintenance"))
    assert "Backstay does nothing now: Automatic action is frozen by a person." in alert.annotations["description"]


def test_blindness_is_told_after_a_minute_with_its_cause_and_not_before() -> None:
    def blind(seconds: float) -> Evidence:
        lost = a_service(SEARCH, unknown_since=NOON - seconds * SECOND)
        return an_evidence(lost, blind=("Prometheus: no answer",))

    assert alerts_of(blind(60)) == []
    (alert,) = alerts_of(blind(61))
    assert (alert.labels["alertname"], alert.starts_at) == ("BackstayBlind", NOON - 61 * SECOND)
    assert SEARCH in alert.annotations["summary"]
    assert "Prometheus: no answer." in alert.annotations["description"]


def test_a_source_that_is_silent_is_named_although_every_objective_is_known() -> None:
    assert alerts_of(an_evidence(), runtime=NOON - 30 * SECOND) == []
    (alert,) = alerts_of(an_evidence(), runtime=NOON - 90 * SECOND)
    assert "runtime" in alert.annotations["summary"]


def test_a_held_rollback_needs_a_person_and_says_where_it_stopped() -> None:
    (alert,) = alerts_of(an_evidence(), [a_saga(IDENTITY, minutes_ago=5, state="HELD")])
    assert (alert.labels["alertname"], alert.labels["service"]) == ("RollbackHeld", IDENTITY)
    assert "It did not fit." in alert.annotations["description"]
    assert alert.starts_at == NOON - timedelta(minutes=5) + SECOND


def test_a_plan_is_held_until_a_newer_one_moves_the_same_traffic() -> None:
    held, done = a_saga(IDENTITY, minutes_ago=9, state="HELD"), a_saga(IDENTITY, minutes_ago=5, state="DONE")
    other = a_saga(SEARCH, minutes_ago=9, state="HELD")
    running = a_saga(GATEWAY, minutes_ago=1, state=None)
    assert held_rollbacks([done, other, held, running]) == (other,)
    assert held_rollbacks([a_saga(SEARCH, minutes_ago=3, state="REVERTED")]) == ()


def test_a_scale_that_was_ordered_later_does_not_hide_that_a_rollback_is_held() -> None:
    held = a_saga(IDENTITY, minutes_ago=9, state="HELD")
    plan = scale_plan(IDENTITY, 3, a_world().reading(), {}, PlanPolicy())
    entry = Entry(EntryKind.ENDED, NOON, None, {"state": "DONE", "outcome": ""})
    scaled = Saga("s", plan, "ada", "r", False, NOON, entries=(entry,))
    assert held_rollbacks([held, scaled]) == (held,)


def test_a_rollback_of_everything_overtakes_what_was_held_before() -> None:
    held = a_saga(IDENTITY, minutes_ago=9, state="HELD")
    assert held_rollbacks([held, a_saga("all", minutes_ago=5, state="DONE")]) == ()
