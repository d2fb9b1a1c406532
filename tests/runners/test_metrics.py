"""Backstay's own metrics: what is not known now is absent, never the last value."""

from dataclasses import replace
from datetime import timedelta

from prometheus_client.parser import text_string_to_metric_families

from control_plane.decisions.policy import decide
from control_plane.runners.metrics import Metrics
from control_plane.slo.state import Verdict
from tests.console.console_builders import an_slo_state
from tests.decisions.decision_builders import AUTO, GATEWAY, NOON, an_evidence, failing


def shown(metrics: Metrics) -> dict[tuple[str, ...], float]:
    """Samples by name and label values, these in the order of their labels' names."""
    families = text_string_to_metric_families(metrics.text().decode())
    return {(s.name, *dict(sorted(s.labels.items())).values()): s.value for family in families for s in family.samples}


def test_budget_burn_rates_and_verdict_of_an_slo_are_shown() -> None:
    metrics = Metrics()
    metrics.show_states([an_slo_state()])
    found = shown(metrics)
    mine = "identity-service", "identity-service-errors"
    assert found["backstay_slo_budget_remaining_ratio", *mine] == 0.9
    assert found["backstay_slo_burn_rate", *mine, "1h"] == 0.4
    assert found["backstay_slo_verdict", *mine, "ok"] == 1


def test_what_became_unknown_is_absent_and_its_old_verdict_gone() -> None:
    metrics = Metrics()
    metrics.show_states([an_slo_state()])
    unknown = replace(
        an_slo_state(), verdict=Verdict.UNKNOWN, budget_remaining_ratio=None, burn_rates=dict.fromkeys(["5m", "1h"])
    )
    metrics.show_states([unknown])
    found = {key for key in shown(metrics) if key[0].startswith("backstay_slo")}
    assert found == {("backstay_slo_verdict", "identity-service", "identity-service-errors", "unknown")}


def test_decisions_are_counted_by_what_they_do_and_why() -> None:
    metrics = Metrics()
    for decision in decide(an_evidence(failing(GATEWAY)), AUTO, NOON):
        metrics.count_decision(decision)
    found = shown(metrics)
    assert found["backstay_decisions_total", "roll_back", "errors_without_saturation"] == 1
    assert found["backstay_decisions_total", "hold", "within_budget"] == 6


def test_two_control_planes_in_one_process_share_no_numbers() -> None:
    one, other = Metrics(), Metrics()
    one.tick_seconds.observe(timedelta(seconds=1).total_seconds())
    assert ("backstay_tick_seconds_count",) in shown(one)
    assert shown(other)["backstay_tick_seconds_count",] == 0
