"""Few queries for many SLOs: one selector a metric family that covers all that is wanted, and may return more."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from control_plane.slo.events import Selector

MOST_VALUES = 2000
"""Alternatives in one matcher beyond which it is left out: the query's text would cost more than it saves."""

Matcher = tuple[str, str, str]


def covering(selectors: Iterable[Selector]) -> tuple[Selector, ...]:
    """One selector a metric, ascending by name, that selects at least every series that one of `selectors` selects.

    The number of queries depends on the number of metrics only, never on the number of SLOs. Whoever asked picks out
    its own series from the answer.
    """
    families: dict[str, dict[Selector, None]] = {}
    for selector in selectors:
        families.setdefault(selector.metric, {})[selector] = None
    return tuple(Selector(metric, _shared(tuple(families[metric]))) for metric in sorted(families))


def _shared(family: Sequence[Selector]) -> tuple[Matcher, ...]:
    """Matchers that no wanted series fails: kept where all agree, joined where all name a label, else left out."""
    first = family[0].matchers
    if len(family) == 1:
        return first
    kept = [m for m in first if all(m in other.matchers for other in family[1:])]
    decided = {label for label, _, _ in kept}
    by_label = [_positive(selector) for selector in family]
    for label in sorted(set.intersection(*(set(each) for each in by_label)) - decided):
        wanted = {pattern: None for each in by_label for pattern in each[label]}
        if len(wanted) <= MOST_VALUES:
            kept.append((label, "=~", "|".join(wanted)))
    return tuple(sorted(kept))


def _positive(selector: Selector) -> dict[str, list[str]]:
    """Patterns by label that a series must match; one of several on the same label is enough for a cover."""
    wanted: dict[str, list[str]] = {}
    for label, operator, value in selector.matchers:
        if operator == "=":
            wanted.setdefault(label, [_literal(value)])
        elif operator == "=~":
            wanted.setdefault(label, [f"(?:{value})"])
    return wanted


def _literal(value: str) -> str:
    """The value as a regular expression for Prometheus (RE2): only what must be escaped is."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", value)
