"""Label matching as Prometheus does it, for finding out which SLO a series belongs to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from decimal import Decimal, InvalidOperation
from functools import lru_cache

from control_plane.slo.events import Selector


@lru_cache(maxsize=4096)
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern, re.DOTALL)


def matches(selector: Selector, labels: Mapping[str, str]) -> bool:
    """Whether a series is selected. A label that is absent equals the empty string; patterns match whole values."""
    if labels.get("__name__") != selector.metric:
        return False
    for label, operator, value in selector.matchers:
        actual = labels.get(label, "")
        hit = actual == value if operator in ("=", "!=") else _compiled(value).fullmatch(actual) is not None
        if hit is not (operator in ("=", "=~")):
            return False
    return True


def quoted(value: str) -> str:
    """A label value as a PromQL string."""
    escaped = value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'


def written(selector: Selector) -> str:
    """The selector as PromQL."""
    inside = ",".join(f"{label}{operator}{quoted(value)}" for label, operator, value in selector.matchers)
    return f"{selector.metric}{{{inside}}}" if inside else selector.metric


def boundary(le: str) -> Decimal | None:
    """The number that an `le` label stands for; infinity for "+Inf", None when it is no number."""
    try:
        value = Decimal(le)
    except InvalidOperation:
        return None
    return None if value.is_nan() else value


def le_pattern(value: Decimal) -> str:
    """Regular expression for every common spelling of a bucket boundary: 0.2, 0.20, .2, 2e-01; 1, 1.0, 1e+00."""
    if value.is_infinite():
        return r"\+Inf"
    whole, _, fraction = format(value.normalize(), "f").partition(".")
    head = f"{whole}" if whole != "0" else "0?"
    plain = rf"{head}\.{fraction}0*" if fraction else rf"{whole}(\.0*)?"
    lead, *rest_digits = map(str, value.normalize().as_tuple().digits)
    rest = "".join(rest_digits)
    power = value.adjusted()
    sign = r"\+?" if power >= 0 else "-"
    mantissa = rf"{lead}\.{rest}0*" if rest else rf"{lead}(\.0*)?"
    return rf"{plain}|{mantissa}[eE]{sign}0*{abs(power)}"
