from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

from control_plane.slo.engine import SloEngine
from control_plane.slo.evaluate import LoadTest
from control_plane.slo.spec import Objective, Slo
from control_plane.slo.state import Kind, Verdict
from tests.slo.slo_builders import an_slo, at, counting

CAPACITY: Slo = an_slo(
    name="search-service-throughput",
    kind=Kind.THROUGHPUT,
    objective=Objective(Decimal("0.95"), timedelta(days=30)),
    total=None,
    bad=None,
    capacity_per_second=Decimal(1000),
)
PROOF = LoadTest(at(0), "0123456789abcdef", requests_per_second=1200, share_of_seconds=0.99)


def verdict(test: LoadTest | None) -> tuple[Verdict, str]:
    tests = {} if test is None else {"search-service": test}
    state = SloEngine([CAPACITY]).states(at(0), load_tests=tests)[0]
    return state.verdict, state.reason


def test_a_capacity_without_a_load_test_is_unknown_and_has_no_alerts() -> None:
    state = SloEngine([CAPACITY]).states(at(0))[0]
    assert (state.verdict, state.alerts, state.sli) == (Verdict.UNKNOWN, (), None)
    assert state.reason.startswith("No load test is recorded yet")


def test_a_capacity_is_judged_by_the_rate_that_the_load_test_held() -> None:
    assert verdict(PROOF)[0] is Verdict.OK
    assert verdict(replace(PROOF, requests_per_second=1000))[0] is Verdict.TICKET
    assert verdict(replace(PROOF, share_of_seconds=0.9))[0] is Verdict.TICKET
    assert "commit 0123456789ab" in verdict(PROOF)[1]


def test_low_demand_never_breaches_a_capacity() -> None:
    engine = SloEngine([CAPACITY, an_slo()])
    engine.observe([counting("requests_total", 0, 60, lambda t: t)], at(60))
    assert engine.states(at(60), load_tests={"search-service": PROOF})[0].verdict is Verdict.OK


def test_an_overspent_budget_that_burns_no_more_is_said_and_pages_nobody() -> None:
    engine = SloEngine([an_slo()])
    day = 86400
    errors = counting("errors_total", 0, 10 * day, lambda t: min(t, day) / 100, every=300)
    requests = counting("requests_total", 0, 10 * day, lambda t: t / 10, every=300)
    engine.observe([requests, errors], at(10 * day), timedelta(seconds=300))
    state = engine.states(at(10 * day))[0]
    assert state.budget_remaining_ratio is not None
    assert state.budget_remaining_ratio < 0
    assert state.verdict is Verdict.OK
    assert "overspent" in state.reason
