"""Numbers and times as people read them. The only place where anything is rounded."""

from __future__ import annotations

import math
from datetime import datetime, timedelta

THIN_SPACE = "\u202f"
NO_BREAK_SPACE = "\u00a0"


def duration(length: timedelta) -> str:
    """Two largest units: `3 h 38 min`, `12 s`, `2 d 4 h`. Negative lengths read as their size."""
    seconds = round(abs(length.total_seconds()))
    if seconds < 60:
        return f"{seconds} s"
    for unit, size, below, below_size in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if seconds >= size:
            whole, rest = divmod(seconds, size)
            part = rest // below_size
            return f"{whole} {unit} {part} {below}" if part else f"{whole} {unit}"
    raise AssertionError("unreachable: every length of 60 s or more has a unit")


def percent(ratio: float | None, digits: int = 0) -> str:
    """`93 %`; never shows 100 % for what is less, nor 0 % for what is more."""
    if ratio is None:
        return "unknown"
    text = f"{ratio * 100:.{digits}f}"
    if ratio < 1 and float(text) >= 100:
        text = f"{100 - 10**-digits:.{digits}f}" if digits else "99"
        text = f"> {text}"
    elif ratio > 0 and float(text) == 0:
        text = f"< {10**-digits:.{digits}f}"
    return f"{text}{NO_BREAK_SPACE}%"


def count(number: float) -> str:
    """Whole number with thin spaces: `2 304`."""
    return f"{round(number):,}".replace(",", THIN_SPACE)


def rate(per_second: float | None) -> str:
    """Requests per second, one digit below 10."""
    if per_second is None:
        return "no data"
    return f"{per_second:.1f} req/s" if per_second < 10 else f"{count(per_second)} req/s"


def burn(factor: float | None) -> str:
    """Burn rate as a multiple: `0.4x`."""
    if factor is None or not math.isfinite(factor):
        return "–"
    return f"{factor:.0f}x" if factor >= 10 else f"{factor:.1f}x"


def clock_time(at: datetime) -> str:
    """Time of day in UTC; the page's script shows it in the viewer's zone."""
    return at.strftime("%H:%M:%S")
