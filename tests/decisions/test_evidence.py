"""From SLO states to evidence: what is tested, when a breach began, and from when on events count."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from control_plane.decisions.evidence import FastPath, breach_since, fast_paths, judged_since, slo_reading
from control_plane.decisions.reasons import Move
from control_plane.decisions.statistics import Outcome
from control_plane.decisions.terms import FastPathTerms
from control_plane.slo.events import RecentEvents
from control_plane.slo.state import AlertState, Kind, SloState, Verdict
from tests.decisions.decision_builders import CALLERS, GATEWAY, IDENTITY, NOON, SEARCH, an_action, quiet

TERMS = FastPathTerms()
NOW = int(NOON.timestamp())


def a_state(kind: Kind = Kind.ERRORS, **changes: Any) -> SloState:
    """Ten requests a second for a minute; for the last ten seconds two of them fail."""
    recent = RecentEvents(tuple(range(NOW - 59, NOW + 1)), (10.0,) * 60, (0.0,) * 50 + (2.0,) * 10)
    alert = AlertState("page_fast", "page", timedelta(hours=1), timedelta(minutes=5), 14.4, 20.0, 20.0, True)
    state = SloState(
        name=f"{GATEWAY}-{kind.value}",
        service=GATEWAY,
        kind=kind,
        target="0.999" if kind is Kind.ERRORS else "0.95",
        window=timedelta(days=30),
        verdict=Verdict.PAGE,
        reason="burning",
        sli=None,
        sli_without_exclusions=None,
        budget_remaining_ratio=0.4,
        burn_rates={"5m": 20.0, "1h": None},
        alerts=(alert, replace(alert, tier="page_slow", firing=False)),
        coverage_ratio=1.0,
        measured_ratio=1.0,
        events=None,
        time_to_exhaustion=None,
        first_seen=NOON,
        last_sample_at=NOON,
        as_of=NOON,
        recent=recent,
    )
    return replace(state, **changes)


def test_errors_and_latency_are_tested_against_multiples_of_their_budgets() -> None:
    errors, latency = fast_paths((a_state(), a_state(Kind.LATENCY)), TERMS)
    assert (errors.result.null_share, latency.result.null_share) == (0.005, 0.1)
    assert errors.result.fired
    assert errors.slo == f"{GATEWAY}-errors"


def test_what_is_unknown_or_has_no_events_is_not_tested() -> None:
    states = (
        a_state(verdict=Verdict.UNKNOWN),
        a_state(recent=None),
        a_state(Kind.AVAILABILITY),
        a_state(Kind.THROUGHPUT),
    )
    assert fast_paths(states, TERMS) == ()


def test_events_of_before_an_action_are_not_tested() -> None:
    [test] = fast_paths((a_state(),), TERMS, judged_since=NOON)
    assert test.result.outcome is Outcome.NO_DATA


def test_a_reading_keeps_what_decisions_look_at() -> None:
    reading = slo_reading(a_state())
    assert (reading.burn_rate_5m, reading.burn_rate_1h, reading.firing) == (20.0, None, ("page_fast",))


def test_a_breach_begins_with_its_first_bad_event_and_keeps_its_begin() -> None:
    tests = fast_paths((a_state(),), TERMS)
    assert breach_since(None, tests) == datetime.fromtimestamp(NOW - 9, UTC)
    earlier = NOON - timedelta(minutes=7)
    assert breach_since(earlier, tests) == earlier
    calm: tuple[FastPath, ...] = (quiet(GATEWAY),)
    assert breach_since(earlier, calm) is None


def test_events_count_from_the_end_of_the_last_action_on_the_service_or_on_what_it_depends_on() -> None:
    of_identity = an_action(Move.ROLL_BACK, IDENTITY, 5, drill=True)
    assert judged_since(IDENTITY, (of_identity,), CALLERS, NOON) == of_identity.ended_at
    assert judged_since(GATEWAY, (of_identity,), CALLERS, NOON) == of_identity.ended_at
    assert judged_since(SEARCH, (of_identity,), CALLERS, NOON) is None
    assert judged_since(SEARCH, (an_action(Move.FULL_ROLLBACK, "all", 5),), CALLERS, NOON) is not None


def test_an_action_that_goes_on_or_is_long_over_sets_no_begin() -> None:
    running = an_action(Move.ROLL_BACK, GATEWAY, 1, ended_at=None)
    over = an_action(Move.ROLL_BACK, GATEWAY, 11)
    assert judged_since(GATEWAY, (running, over), CALLERS, NOON) is None
