"""The sentence at the top must be true, and the worst must come first."""

from dataclasses import replace
from datetime import timedelta

from control_plane.console.now import headline, now_page
from control_plane.situation import RunningPlan, Situation
from control_plane.slo.state import Kind, Verdict
from tests.console.console_builders import NOON, a_moment, a_runtime, a_situation, an_slo_state, with_state


def test_calm_is_said_in_one_short_sentence() -> None:
    assert headline(a_situation()) == ("All services keep their promises.", "good")


def test_a_burning_service_is_named() -> None:
    text, tone = headline(with_state(a_situation(), verdict=Verdict.PAGE))
    assert text == "ai-gateway-service is failing users faster than the budget allows."
    assert tone == "bad"


def test_a_service_held_on_the_monolith_is_safe_even_while_its_budget_still_burns() -> None:
    situation = with_state(a_situation(runtime=a_runtime(ai_gateway_service=0)), verdict=Verdict.PAGE)
    text, tone = headline(situation)
    assert text == "ai-gateway-service is held on the monolith; users are safe."
    assert tone == "good"


def test_a_running_plan_says_its_step() -> None:
    plan = RunningPlan("s1", "rollback", "ai-gateway-service", "wait until the monolith is ready", NOON)
    assert headline(a_situation(plans=(plan,)))[0] == (
        "ai-gateway-service is being rolled back: wait until the monolith is ready."
    )


def test_unknown_is_neither_good_nor_bad() -> None:
    text, tone = headline(with_state(a_situation(), verdict=Verdict.UNKNOWN))
    assert "cannot be judged" in text
    assert tone == "unknown"


def test_without_a_runtime_nothing_is_called_safe() -> None:
    assert "cannot act" in headline(a_situation(runtime=None))[0]


def test_before_the_first_look_nothing_is_claimed() -> None:
    assert headline(Situation(at=NOON))[1] == "unknown"


def test_the_worst_service_comes_first_and_the_calm_ones_keep_the_documents_order() -> None:
    page = now_page(with_state(a_situation(), verdict=Verdict.TICKET), ())
    assert page.rows[0].service == "ai-gateway-service"
    assert [row.service for row in page.rows[1:3]] == ["identity-service", "conversation-service"]


def test_unknown_has_no_bar_at_all() -> None:
    page = now_page(with_state(a_situation(), verdict=Verdict.UNKNOWN), ())
    cell = page.rows[0].cells[1]
    assert cell is not None
    assert cell.budget_percent is None
    assert cell.sign == "◇"


def test_an_overspent_budget_has_an_empty_bar_and_a_negative_number() -> None:
    page = now_page(with_state(a_situation(), verdict=Verdict.PAGE, budget_remaining_ratio=-0.4), ())
    cell = page.rows[0].cells[1]
    assert cell is not None
    assert (cell.budget_percent, cell.budget) == (0.0, "-40\u00a0%")


def test_an_observer_says_that_it_will_do_nothing() -> None:
    page = now_page(a_situation(automatic=False), [a_moment()])
    assert any("only observes" in detail for detail in page.details)
    assert page.as_of == NOON
    assert page.moments[0].title == "recovered"


def test_an_estimated_capacity_is_shown_and_never_judged() -> None:
    untested = replace(an_slo_state("search-service", Kind.THROUGHPUT), verdict=Verdict.UNKNOWN)
    page = now_page(a_situation(states=(untested,), capacity_estimates={"search-service": 54.2}), ())
    cell = next(row for row in page.rows if row.service == "search-service").cells[3]
    assert cell is not None
    assert (cell.word, cell.budget, cell.budget_percent) == ("not tested", "about 54 req/s, estimated", None)


def test_a_freeze_is_shown_with_its_reason() -> None:
    page = now_page(a_situation(frozen="database maintenance", tick_took=timedelta(seconds=0.2)), ())
    assert page.details[0] == "Automatic action is frozen: database maintenance."
