"""Backstay's own metrics. Every name is here, and in docs/metrics.md."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from control_plane.decisions.policy import Decision
from control_plane.slo.state import SloState

TICK_BUCKETS = (0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0)


class Metrics:
    """One registry, so that two control planes in one process (as in tests) do not share numbers."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.ticks = Counter("backstay_ticks", "Evaluations that ended.", ["outcome"], registry=registry)
        self.tick_seconds = Histogram(
            "backstay_tick_seconds", "Length of an evaluation.", buckets=TICK_BUCKETS, registry=registry
        )
        self.tick_lag = Gauge("backstay_tick_lag_seconds", "How late the latest evaluation began.", registry=registry)
        self.tick_at = Gauge("backstay_tick_timestamp_seconds", "When the latest evaluation ended.", registry=registry)
        self.queries = Counter("backstay_queries", "Queries sent to Prometheus.", registry=registry)
        self.source_errors = Counter(
            "backstay_source_errors", "Answers that could not be had.", ["source"], registry=registry
        )
        self.decisions = Counter(
            "backstay_decisions", "Decisions that differ from the one before.", ["action", "reason"], registry=registry
        )
        self.sagas = Counter("backstay_sagas", "Plans that ended.", ["kind", "state"], registry=registry)
        self.budget = Gauge(
            "backstay_slo_budget_remaining_ratio",
            "Error budget left; absent when not known.",
            ["slo", "service"],
            registry=registry,
        )
        self.burn = Gauge(
            "backstay_slo_burn_rate",
            "Burn rate; absent when not known.",
            ["slo", "service", "window"],
            registry=registry,
        )
        self.verdict = Gauge(
            "backstay_slo_verdict", "1 for the verdict in force.", ["slo", "service", "verdict"], registry=registry
        )

    def show_states(self, states: Iterable[SloState]) -> None:
        """Gauges of this tick only: what is not known now must not keep its last value."""
        for gauge in (self.budget, self.burn, self.verdict):
            gauge.clear()
        for state in states:
            self.verdict.labels(state.name, state.service, state.verdict.value).set(1)
            if state.budget_remaining_ratio is not None:
                self.budget.labels(state.name, state.service).set(state.budget_remaining_ratio)
            for window, burn in state.burn_rates.items():
                if burn is not None:
                    self.burn.labels(state.name, state.service, window).set(burn)

    def count_decision(self, decision: Decision) -> None:
        self.decisions.labels(decision.action.value, decision.reason.value).inc()

    def text(self) -> bytes:
        """Prometheus' text format."""
        return generate_latest(self.registry)
