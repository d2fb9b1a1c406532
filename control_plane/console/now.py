"""The first page, as values: one sentence, services by SLOs, the timeline, Backstay's own health. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from control_plane.console import words
from control_plane.situation import Moment, Situation
from control_plane.slo.state import Kind, SloState, Verdict
from control_plane.topology import SERVICES

SIGN = {Verdict.OK: "●", Verdict.TICKET: "▲", Verdict.PAGE: "■", Verdict.UNKNOWN: "◇", Verdict.NO_TRAFFIC: "○"}
SEVERITY = {Verdict.PAGE: 0, Verdict.TICKET: 1, Verdict.UNKNOWN: 2, Verdict.NO_TRAFFIC: 3, Verdict.OK: 4}
COLUMNS = (
    (Kind.AVAILABILITY, "Availability", "99.9 %"),
    (Kind.ERRORS, "Errors", "< 0.1 %"),
    (Kind.LATENCY, "p95", "< 200 ms"),
    (Kind.THROUGHPUT, "Capacity", "> 1000/s"),
)


@dataclass(frozen=True, slots=True)
class Cell:
    """One SLO of one service as the table shows it."""

    slo: str
    verdict: Verdict
    sign: str
    word: str
    reason: str
    budget_percent: float | None  # for the bar, clipped to 0..100; None is drawn hatched
    budget: str
    burn_1h: str


@dataclass(frozen=True, slots=True)
class Row:
    """One service."""

    service: str
    rate: str
    cells: tuple[Cell | None, ...]  # in the order of COLUMNS
    service_weight: int | None  # whole percent; None while the runtime does not answer
    ready: str
    alarming: bool
    held: bool
    slo_count: int


@dataclass(frozen=True, slots=True)
class NowPage:
    headline: str
    details: tuple[str, ...]
    tone: str  # good, bad or unknown: colours the sign before the headline, which also has a shape
    rows: tuple[Row, ...]
    moments: tuple[Moment, ...]
    footer: tuple[tuple[str, bool], ...]  # text, and whether it is as it should be
    as_of: datetime


def _cell(state: SloState | None, capacity: float | None = None) -> Cell | None:
    if state is None:
        return None
    remaining = state.budget_remaining_ratio
    unmeasured = state.verdict in (Verdict.UNKNOWN, Verdict.NO_TRAFFIC)
    if state.kind is Kind.THROUGHPUT and state.verdict is Verdict.UNKNOWN:
        word = "not tested"
        budget = "no load test yet" if capacity is None else f"about {words.rate(capacity)}, estimated"
    else:
        word = "no traffic" if state.verdict is Verdict.NO_TRAFFIC else state.verdict.value
        budget = words.percent(remaining) if remaining is not None else "not measured"
    sign = SIGN[state.verdict]
    if state.verdict is Verdict.OK and remaining is None:  # nothing outside of drills and maintenance was measured yet
        sign, word, budget = SIGN[Verdict.NO_TRAFFIC], "excluded", "only drills yet"
    return Cell(
        slo=state.name,
        verdict=state.verdict,
        sign=sign,
        word=word,
        reason=state.reason,
        budget_percent=None if remaining is None or unmeasured else max(0.0, min(100.0, remaining * 100)),
        budget=budget,
        burn_1h=words.burn(state.burn_rates.get("1h")),
    )


def _row(service: str, situation: Situation) -> Row:
    states = [state for state in situation.states if state.service == service]
    by_kind = {state.kind: state for state in reversed(states)}  # the first of a kind wins
    runtime = situation.runtime
    weights = runtime.weights.get(service) if runtime else None
    deployment = runtime.deployments.get(service) if runtime else None
    return Row(
        service=service,
        rate=words.rate(situation.request_rates.get(service)),
        cells=tuple(_cell(by_kind.get(kind), situation.capacity_estimates.get(service)) for kind, _, _ in COLUMNS),
        service_weight=weights.service if weights else None,
        ready=f"{deployment.ready}/{deployment.desired}" if deployment else "unknown",
        alarming=any(state.verdict is Verdict.PAGE for state in states),
        held=weights is not None and weights.service == 0,
        slo_count=len(states),
    )


def _worst(row: Row) -> tuple[int, float, int]:
    """Worst first: verdict, then the least budget, then the order of the document."""
    cells = [cell for cell in row.cells if cell is not None and cell.word != "not tested"]
    severity = min((SEVERITY[cell.verdict] for cell in cells), default=SEVERITY[Verdict.UNKNOWN])
    calm = severity >= SEVERITY[Verdict.NO_TRAFFIC]
    budget = min((cell.budget_percent for cell in cells if cell.budget_percent is not None), default=100.0)
    return severity, 0.0 if calm else budget, SERVICES.index(row.service)


def _names(services: Sequence[str]) -> str:
    if len(services) <= 2:
        return " and ".join(services)
    return f"{len(services)} services"


def _is_are(services: Sequence[str]) -> str:
    return "is" if len(services) == 1 else "are"


def headline(situation: Situation) -> tuple[str, str]:
    """The one sentence and its tone. Order: what runs now, what is held, what burns, what is unknown, calm."""
    states = [s for s in situation.states if s.kind is not Kind.THROUGHPUT]
    burning = sorted({s.service for s in states if s.verdict is Verdict.PAGE})
    unknown = sorted({s.service for s in states if s.verdict is Verdict.UNKNOWN})
    tickets = sum(1 for s in states if s.verdict is Verdict.TICKET)
    if not situation.states:
        return "Backstay has not finished its first look yet.", "unknown"
    if situation.runtime is None:
        return "The runtime does not answer: Backstay can watch, but it cannot act.", "unknown"
    held = sorted(service for service, w in situation.runtime.weights.items() if w.service == 0)
    if situation.plans:
        plan = situation.plans[0]
        verb = {"rollback": "is being rolled back", "scale": "is being scaled"}.get(plan.kind, "is being moved")
        return f"{plan.target} {verb}: {plan.step}.", "bad" if plan.kind == "rollback" else "good"
    failing_now = [service for service in burning if service not in held]
    if failing_now:
        also = f" {_names(held)} {_is_are(held)} held on the monolith." if held else ""
        return f"{_names(failing_now)} {_is_are(failing_now)} failing users faster than the budget allows.{also}", "bad"
    if held:
        ticket = {0: "", 1: " One SLO needs a ticket."}.get(tickets, f" {tickets} SLOs need a ticket.")
        return f"{_names(held)} {_is_are(held)} held on the monolith; users are safe.{ticket}", "good"
    if unknown:
        return f"{_names(unknown)} cannot be judged: the data is missing. Nothing will be done to it.", "unknown"
    if tickets:
        return (
            "One SLO needs a ticket" if tickets == 1 else f"{tickets} SLOs need a ticket"
        ) + "; users are served.", "good"
    return "All services keep their promises.", "good"


def _details(situation: Situation) -> tuple[str, ...]:
    details: list[str] = []
    if situation.frozen is not None:
        details.append(f"Automatic action is frozen: {situation.frozen}.")
    elif not situation.automatic:
        details.append("Backstay only observes here: it will say what it would do, and do nothing.")
    if situation.drill is not None:
        details.append(f"A drill runs: {situation.drill}.")
    weights = situation.runtime.weights if situation.runtime else {}
    for service in (service for service in SERVICES if service in weights and weights[service].service == 0):
        details.append(f"To move {service} forward again: .venv/bin/backstay cutover {service} --to 100")
    seen: set[str] = set()
    for state in situation.states:
        if (
            state.verdict in (Verdict.PAGE, Verdict.UNKNOWN)
            and state.kind is not Kind.THROUGHPUT
            and state.reason not in seen
        ):
            seen.add(state.reason)
            details.append(f"{state.service}, {state.kind.value}: {state.reason}")
    return tuple(details[:4])


def now_page(situation: Situation, moments: Sequence[Moment]) -> NowPage:
    """Everything the first page shows, worst first."""
    text, tone = headline(situation)
    rows = sorted((_row(service, situation) for service in SERVICES), key=_worst)
    footer: list[tuple[str, bool]] = []
    if situation.tick_took is not None:
        footer.append((f"Tick took {situation.tick_took.total_seconds():.2f} s, {situation.queries} queries", True))
    footer += [(f"{source.name}: {source.detail}", source.ok) for source in situation.sources]
    return NowPage(text, _details(situation), tone, tuple(rows), tuple(moments), tuple(footer), situation.at)
