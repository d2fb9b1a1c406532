"""What became of each request, kept for two hours in memory that does not grow."""

from __future__ import annotations

import math
from array import array
from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from control_plane.topology import SERVICES

Kind = Literal["status", "timeout", "reset", "wrong_body", "broken_stream", "auth", "shed"]

KEPT_SECONDS = 7200
KEPT_FAILURES = 20_000
LATENCY_BOUNDS_MS = (5, 10, 20, 50, 100, 150, 200, 300, 500, 1000, 2000, 5000, 10_000)
"""Upper ends of the latency buckets; a last one takes what is slower."""

_OK, _FAILED, _FIRST_BUCKET = 0, 1, 2
_COLUMNS = _FIRST_BUCKET + len(LATENCY_BOUNDS_MS) + 1


@dataclass(frozen=True, slots=True)
class Failure:
    """A request that did not get what it asked for."""

    at: float  # unix seconds at which it was known
    service: str
    journey: str
    step: str
    method: str
    path: str
    status: int | None  # None: no answer
    kind: Kind
    fault: str | None  # the injected fault that the answer names
    request_id: str
    detail: str
    caused_by: str | None = None  # request id of the call behind it that failed, where the answer tells


class Recorder:
    """Counts by the second in which a request ended, so numbers of the past never change and sent = ok + failed."""

    def __init__(self, now: Callable[[], float], services: Sequence[str] = SERVICES) -> None:
        self.now = now
        self._rows = {service: array("I", [0]) * (_COLUMNS * KEPT_SECONDS) for service in services}
        self._started = self._latest = math.floor(now())
        self._failures: deque[Failure] = deque(maxlen=KEPT_FAILURES)
        self._lost_until = -math.inf  # end time of the newest failure that had to make room

    def succeeded(self, service: str, latency_seconds: float) -> None:
        """Latency counts from the time that the request was due, not from when it could be sent."""
        cell = self._cell()
        self._rows[service][cell + _OK] += 1
        self._count_latency(service, cell, latency_seconds)

    def failed(self, failure: Failure, latency_seconds: float) -> None:
        cell = self._cell(failure.at)
        self._rows[failure.service][cell + _FAILED] += 1
        self._count_latency(failure.service, cell, latency_seconds)
        if len(self._failures) == KEPT_FAILURES:
            self._lost_until = self._failures[0].at
        self._failures.append(failure)

    def outcomes(self, since: float | None = None, until: float | None = None) -> dict[str, Any]:
        """Requests that ended in [from, to), whole seconds that cover what was asked for as far as it is kept.

        `truncated`: part of that time, or of its failures, is no longer kept.
        """
        self._cell()  # time goes on without requests too
        oldest = max(self._started, self._latest - KEPT_SECONDS + 1)
        wanted = self._started if since is None else math.floor(since)
        start = max(oldest, wanted)
        end = max(start, min(self._latest + 1, self._latest + 1 if until is None else math.ceil(until)))
        services = {service: self._sums(service, start, end) for service in self._rows}
        failures = [failure for failure in self._failures if start <= failure.at < end]
        return {
            "from": start,
            "to": end,
            "sent": sum(numbers["sent"] for numbers in services.values()),
            "ok": sum(numbers["ok"] for numbers in services.values()),
            "services": services,
            "failures": [asdict(failure) for failure in failures],
            "truncated": max(wanted, self._started) < oldest or self._lost_until >= start,
        }

    def _cell(self, at: float | None = None) -> int:
        """Where the second of `at` begins. Seconds that passed since the last one are emptied of what they held."""
        second = max(math.floor(self.now() if at is None else at), self._latest)
        for passed in range(max(self._latest + 1, second - KEPT_SECONDS + 1), second + 1):
            first = passed % KEPT_SECONDS * _COLUMNS
            for row in self._rows.values():
                row[first : first + _COLUMNS] = _EMPTY
        self._latest = second
        return second % KEPT_SECONDS * _COLUMNS

    def _count_latency(self, service: str, cell: int, seconds: float) -> None:
        self._rows[service][cell + _FIRST_BUCKET + bisect_left(LATENCY_BOUNDS_MS, seconds * 1000)] += 1

    def _sums(self, service: str, start: int, end: int) -> dict[str, Any]:
        row = self._rows[service]

        def total(column: int) -> int:
            first, last = start % KEPT_SECONDS, end % KEPT_SECONDS
            if start == end:
                return 0
            spans = [(first, last)] if first < last else [(first, KEPT_SECONDS), (0, last)]
            return sum(sum(row[a * _COLUMNS + column : b * _COLUMNS : _COLUMNS]) for a, b in spans)

        ok, failed, *buckets = (total(column) for column in range(_COLUMNS))
        return {
            "sent": ok + failed,
            "ok": ok,
            "failed": failed,
            "p50_ms": _quantile_bound(buckets, 0.5),
            "p95_ms": _quantile_bound(buckets, 0.95),
        }


_EMPTY = array("I", [0] * _COLUMNS)


def _quantile_bound(buckets: Sequence[int], share: float) -> int | None:
    """Milliseconds within which this share ended, rounded up to a bucket's end. None: none, or slower than any."""
    seen, total = 0, sum(buckets)
    for bound, count in zip(LATENCY_BOUNDS_MS, buckets, strict=False):
        seen += count
        if total and seen >= share * total:
            return bound
    return None
