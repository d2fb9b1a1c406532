"""Counters from the Prometheus HTTP API, or from anything that speaks it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Literal

import httpx
import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from control_plane.errors import SourceUnavailable
from control_plane.slo.events import Selector, Series
from control_plane.slo.fetch_plan import covering
from control_plane.slo.labels import written

MOST_POINTS = 10_000
"""Readings a series in one range query: Prometheus refuses more than 11 000."""
MOST_BYTES = 64 * 1024 * 1024
"""Longest answer that is read; a longer one is refused before it fills the memory."""
SHOWN_CHARACTERS = 200


class _Result(BaseModel):
    model_config = ConfigDict(extra="ignore")

    metric: dict[str, str]
    values: list[tuple[float, float]] = []  # numbers come as text, "NaN" and "+Inf" among them


class _Data(BaseModel):
    model_config = ConfigDict(extra="ignore")

    resultType: Literal["matrix"]
    result: list[_Result]


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")

    status: str
    data: _Data | None = None
    error: str = ""
    warnings: list[str] = []


class PrometheusEvents:
    """An EventSource over the HTTP API. The client carries the base URL; the time-out here is for a whole answer."""

    def __init__(self, http: httpx.AsyncClient, timeout: timedelta, most_bytes: int = MOST_BYTES) -> None:
        self._http = http
        self._timeout_seconds = timeout.total_seconds()
        self._most_bytes = most_bytes
        self.queries = 0  # sent since the start

    async def samples(self, selectors: Sequence[Selector], over: timedelta, at: datetime) -> Sequence[Series]:
        """Raw samples of (`at` - `over`, `at`], each with its own timestamp, in one query a metric family.

        A range selector and not an instant one: an instant value would carry `at`, and hide that it is stale.
        The families may hold series that were not asked for. Raises SourceUnavailable if any family fails.
        """
        milliseconds = round(over.total_seconds() * 1000)
        queries = [
            ("/api/v1/query", {"query": f"{written(family)}[{milliseconds}ms]", "time": _stamp(at)})
            for family in covering(selectors)
        ]
        return [series for answer in await self._all(queries) for series in answer]

    async def history(
        self, selectors: Sequence[Selector], start: datetime, end: datetime, step: timedelta
    ) -> Sequence[Series]:
        """Counter readings at `start`, then every `step` up to `end`. Raises SourceUnavailable if any part fails."""
        queries = [
            (
                "/api/v1/query_range",
                {
                    "query": written(family),
                    "start": _stamp(first),
                    "end": _stamp(last),
                    "step": f"{step.total_seconds():.3f}",
                },
            )
            for family in covering(selectors)
            for first, last in _parts(start, end, step)
        ]
        return _joined(series for answer in await self._all(queries) for series in answer)

    async def _all(self, queries: Iterable[tuple[str, Mapping[str, str]]]) -> list[list[Series]]:
        """All answers, or the first failure and none."""
        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(self._ask(path, form)) for path, form in queries]
        except ExceptionGroup as failures:
            raise failures.exceptions[0] from failures
        return [task.result() for task in tasks]

    async def _ask(self, path: str, form: Mapping[str, str]) -> list[Series]:
        query = form["query"] if len(form["query"]) <= SHOWN_CHARACTERS else form["query"][:SHOWN_CHARACTERS] + "..."
        self.queries += 1
        try:
            async with asyncio.timeout(self._timeout_seconds):
                status, body = await self._post(path, form, query)
        except TimeoutError as error:
            seconds = f"{self._timeout_seconds:g}"
            raise SourceUnavailable(f"Prometheus did not answer {query!r} within {seconds} s.") from error
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            reason = str(error) or type(error).__name__
            raise SourceUnavailable(f"Prometheus did not answer {query!r}: {reason}.") from error
        try:
            reply = _Reply.model_validate_json(body)
        except ValidationError as error:
            start = body[:60].decode("utf-8", "replace")
            raise SourceUnavailable(
                f"Prometheus answered {query!r} with status {status} and something else than its API: {start!r}."
            ) from error
        if status != httpx.codes.OK or reply.status != "success" or reply.data is None:
            raise SourceUnavailable(f"Prometheus refused {query!r} with status {status}: {reply.error or 'no reason'}.")
        if reply.warnings:  # a partial answer is no evidence
            raise SourceUnavailable(f"Prometheus answered {query!r} in part: {'; '.join(reply.warnings)}.")
        return [_series(result) for result in reply.data.result]

    async def _post(self, path: str, form: Mapping[str, str], query: str) -> tuple[int, bytes]:
        """Status and body; a form, because a URL is cut off at about 1 MB."""
        body = bytearray()
        async with self._http.stream("POST", path, data=form) as response:
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > self._most_bytes:
                    raise SourceUnavailable(
                        f"Prometheus answered {query!r} with more than {self._most_bytes} bytes: ask for less."
                    )
        return response.status_code, bytes(body)


def _series(result: _Result) -> Series:
    samples = np.array(result.values, dtype=np.float64).reshape(-1, 2)
    return Series(result.metric, np.ascontiguousarray(samples[:, 0]), np.ascontiguousarray(samples[:, 1]))


def _parts(start: datetime, end: datetime, step: timedelta) -> list[tuple[datetime, datetime]]:
    """The range in pieces that Prometheus answers, none overlapping."""
    points = math.floor((end - start) / step) + 1
    return [
        (start + first * step, start + min(first + MOST_POINTS - 1, points - 1) * step)
        for first in range(0, points, MOST_POINTS)
    ]


def _joined(pieces: Iterable[Series]) -> list[Series]:
    """Pieces of the same series in one, in order of time."""
    by_labels: dict[frozenset[tuple[str, str]], list[Series]] = {}
    for piece in pieces:
        by_labels.setdefault(frozenset(piece.labels.items()), []).append(piece)
    return [
        same[0]
        if len(same) == 1
        else Series(
            same[0].labels, np.concatenate([s.timestamps for s in same]), np.concatenate([s.values for s in same])
        )
        for same in by_labels.values()
    ]


def _stamp(at: datetime) -> str:
    return f"{at.timestamp():.3f}"
