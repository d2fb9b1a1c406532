"""Numbers inside the sentences of decisions. Rounded here and nowhere before."""

from __future__ import annotations

from datetime import timedelta


def percent(share: float) -> str:
    """`20 %`, `5.2 %`, `0.42 %`: two digits or more."""
    value = share * 100
    if value >= 9.95 or value == 0:
        return f"{value:.0f} %"
    return f"{value:.1f} %" if value >= 0.995 else f"{value:.2g} %"


def whole(number: float) -> str:
    return f"{number:.0f}"


def probability(p: float) -> str:
    """`p < 1e-12`, `p = 3e-08`."""
    return "p < 1e-12" if p < 1e-12 else f"p = {p:.0e}" if p < 0.001 else f"p = {p:.2g}"


def length(duration: timedelta) -> str:
    """`45 s`, `12 min`, `3 h`."""
    seconds = duration.total_seconds()
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"


def plural(count: int, one: str, many: str | None = None) -> str:
    return f"{count} {one if count == 1 else many or one + 's'}"


def listed(names: list[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
