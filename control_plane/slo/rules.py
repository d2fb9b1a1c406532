"""Recording and alerting rules for Prometheus that page on burn rates while Backstay is down.

A chain of cheap rules: every STEP they record how many events there were, counted the way the ledger counts them. Every
window is the sum of those records, so that it weighs events and not moments, and a three-day window reads thousands of
samples instead of millions.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta
from typing import Any

import yaml

from control_plane.slo.alert_names import alert_name
from control_plane.slo.alerts import FEWEST_FAILURES, TIERS, Tier, factor_in_force
from control_plane.slo.burn_rate import ONE_SIDED_99_PERCENT
from control_plane.slo.durations import format_duration, parse_duration
from control_plane.slo.events import Selector
from control_plane.slo.labels import quoted, written
from control_plane.slo.spec import Counters, Slo
from control_plane.slo.windows import BURN_WINDOWS

STEP = timedelta(seconds=30)
"""Distance of the records; a page lags the events by at most this much."""
TICKET_STEP = timedelta(minutes=2)
"""How often tickets are looked at: nobody is woken by them."""

FILLED = 0.98
"""Share of a window's records that makes it filled: a few may be lost to a restart of Prometheus."""

_EVENTS, _BAD_EVENTS = "backstay:slo_events:increase", "backstay:slo_bad_events:increase"
_SLICES, _BAD_SLICES = "backstay:slo_slices:judged", "backstay:slo_bad_slices:judged"
_BURN, _LOWER = "backstay:slo_burn_rate", "backstay:slo_burn_rate_lower_bound"

_LONG = frozenset(tier.long for tier in TIERS)


def alert_names(slos: Sequence[Slo]) -> tuple[str, ...]:
    """Every alert that the rules can send, in the order of the SLOs."""
    return tuple(alert_name(slo.name) for slo in slos if slo.total is not None)


def rules_text(slos: Sequence[Slo], runbook_base_url: str) -> str:
    """The rule file as text."""
    head = "# Made by `backstay slo export --as prometheus`: edit the SLO files instead.\n"
    return head + yaml.safe_dump(rules(slos, runbook_base_url), sort_keys=False, width=1_000_000, allow_unicode=True)


def rules(slos: Sequence[Slo], runbook_base_url: str) -> dict[str, Any]:
    """The rule file as plain values. Capacity objectives have no rules: no event can breach them."""
    counted = [slo for slo in slos if slo.total is not None]
    groups = [
        {
            "name": f"backstay-slo-{slo.name}",
            "interval": format_duration(STEP),
            "rules": [
                *_events(slo),
                *_burn_rates(slo, ("5m", "30m", "1h", "6h")),
                *(_alert(slo, tier, runbook_base_url) for tier in TIERS if tier.severity == "page"),
            ],
        }
        for slo in counted
    ]
    groups += [
        {
            "name": f"backstay-slo-{slo.name}-tickets",
            "interval": format_duration(TICKET_STEP),
            "rules": [
                *_burn_rates(slo, ("2h", "1d", "3d")),
                *(_alert(slo, tier, runbook_base_url) for tier in TIERS if tier.severity == "ticket"),
            ],
        }
        for slo in counted
    ]
    return {"groups": groups}


def _labels(slo: Slo) -> dict[str, str]:
    return {"slo": slo.name, "service": slo.service}


def _matchers(slo: Slo) -> str:
    return "{" + ",".join(f"{name}={quoted(value)}" for name, value in _labels(slo).items()) + "}"


def _record(slo: Slo, name: str, expression: str) -> dict[str, Any]:
    return {"record": name, "expr": expression, "labels": _labels(slo)}


def _events(slo: Slo) -> list[dict[str, Any]]:
    """Events of the last step; for time slices, whether the last slice's length had events, and too many bad ones."""
    rules = [_record(slo, _EVENTS, _total(slo)), _record(slo, _BAD_EVENTS, _bad(slo))]
    if slo.slices is None:
        return rules
    width = format_duration(slo.slices.width)
    total, bad = _over(slo, _EVENTS, width), _over(slo, _BAD_EVENTS, width)
    allowed = 1 - slo.slices.target
    return [
        *rules,
        _record(slo, _SLICES, f"{total} > bool 0"),
        _record(slo, _BAD_SLICES, f"{bad} > bool {allowed:f} * {total}"),
    ]


def _total(slo: Slo) -> str:
    return _sum(slo.total, absent_is_zero=False)


def _bad(slo: Slo) -> str:
    if slo.bad is not None:
        return _sum(slo.bad, absent_is_zero=True)
    good = _sum(slo.good, absent_is_zero=slo.bucket is None)  # a missing bucket is no evidence of slowness
    return f"clamp_min({_total(slo)} - ({good}), 0)"


def _sum(side: Counters | None, *, absent_is_zero: bool) -> str:
    """Events that a sum of counters counted. A counter that is missing beside others counted nothing."""
    selectors = side.selectors if side else ()
    if len(selectors) == 1 and not absent_is_zero:
        return _increase(selectors[0])
    return " + ".join(f"({_increase(selector)} or vector(0))" for selector in selectors)


def _increase(selector: Selector) -> str:
    """Events of one counter in the last step, without the guesses of `increase()` where they are not needed.

    Three cases, series by series: no restart, so the difference is exact; born while its target was being scraped, so
    all it shows is new (`increase()` would drop the first events of a new error); else what `increase()` makes of it.
    """
    series, step = written(selector), format_duration(STEP)
    steady = f"({series} - {series} offset {step}) >= 0 unless resets({series}[{step}]) > 0"
    born = f"({series} unless {series} offset {step} and on (job, instance) up offset {step} == 1)"
    return f"sum(({steady}) or {born} or increase({series}[{step}]))"


def _burn_rates(slo: Slo, windows: Sequence[str]) -> list[dict[str, Any]]:
    total, bad = (_SLICES, _BAD_SLICES) if slo.slices else (_EVENTS, _BAD_EVENTS)
    budget = f"{slo.objective.error_budget:f}"
    rules = []
    for window in windows:
        events = _over(slo, total, window)
        rules.append(_record(slo, f"{_BURN}:{window}", f"{_over(slo, bad, window)} / ({events} > 0) / {budget}"))
        if window in _LONG:
            share = f"({_BURN}:{window}{_matchers(slo)} * {budget})"
            rules.append(_record(slo, f"{_LOWER}:{window}", f"{_lower_bound(share, events)} / {budget}"))
    return rules


def _over(slo: Slo, record: str, window: str) -> str:
    """Sum of a record over a window. A second short of it: Prometheus 2 counts both ends of a range, and 3 one."""
    seconds = parse_duration(window) - timedelta(seconds=1)
    return f"sum_over_time({record}{_matchers(slo)}[{format_duration(seconds)}])"


def _lower_bound(share: str, events: str) -> str:
    """Wilson's one-sided 99 % lower bound of a share, as the engine uses it for young data."""
    z, zz = ONE_SIDED_99_PERCENT, ONE_SIDED_99_PERCENT**2
    spread = f"{z:.6f} * sqrt({share} * (1 - {share}) / {events} + {zz / 4:.6f} / {events} ^ 2)"
    return f"({share} + {zz / 2:.6f} / {events} - {spread}) / (1 + {zz:.6f} / {events})"


def _alert(slo: Slo, tier: Tier, runbook_base_url: str) -> dict[str, Any]:
    factor = f"{factor_in_force(tier, slo.objective).normalize():f}"
    matchers, name = _matchers(slo), alert_name(slo.name)
    long, short = f"{_BURN}:{tier.long}{matchers}", f"{_BURN}:{tier.short}{matchers}"
    total, bad = (_SLICES, _BAD_SLICES) if slo.slices else (_EVENTS, _BAD_EVENTS)
    filled = int(BURN_WINDOWS[tier.long] / STEP * FILLED)
    records = _over(slo, total, tier.long).replace("sum_over_time", "count_over_time")
    failures = f"{_over(slo, bad, tier.long)} >= {FEWEST_FAILURES}"
    trusted = f"({records} >= {filled} or ({_LOWER}:{tier.long}{matchers} > {factor} and {failures}))"
    speed = '{{ $value | printf "%.1f" }}x as fast as it may'
    promise = f"{slo.objective.target_text} over {format_duration(slo.objective.window)}"
    return {
        "alert": name,
        "expr": f"{long} > {factor} and {short} > {factor} and {trusted}",
        "labels": {"severity": tier.severity, "tier": tier.name, **_labels(slo)},
        "annotations": {
            "summary": f"{slo.title or slo.name}: the error budget burns {speed}.",
            "description": (
                f"{slo.name} promises {promise}. Over {tier.long} and over {tier.short} its budget burns more than "
                f"{factor}x as fast as it may ({tier.name})."
            ),
            "runbook_url": f"{runbook_base_url.rstrip('/')}/runbooks/{name}",
        },
    }
