"""Durations as people write them: OpenSLO's shorthand and Prometheus's."""

from __future__ import annotations

import re
from datetime import timedelta

_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_SHORTHAND = re.compile(r"([0-9]{1,6})(ms|s|m|h|d|w)")
CALENDAR_UNITS = frozenset("MQY")  # months, quarters and years have no fixed length


def parse_duration(text: str) -> timedelta:
    """A positive whole number with one unit, e.g. "5m", "30d". Raises ValueError for anything else."""
    match = _SHORTHAND.fullmatch(text.strip())
    if match is None or int(match[1]) == 0:
        raise ValueError(f"{text!r} is no duration: write a whole number and one of ms, s, m, h, d, w, e.g. 30d")
    return timedelta(seconds=int(match[1]) * _SECONDS[match[2]])


def format_duration(duration: timedelta) -> str:
    """The shortest shorthand that is exact, as Prometheus reads it: 300 s is "5m", 90 s is "90s", 1.5 s is "1500ms"."""
    milliseconds = round(duration.total_seconds() * 1000)
    for unit in ("d", "h", "m", "s"):
        count, rest = divmod(milliseconds, round(_SECONDS[unit] * 1000))
        if count and not rest:
            return f"{count}{unit}"
    return f"{milliseconds}ms"
