"""Traces through Jaeger's query API (HTTP, JSON), from a real Jaeger or from the embedded trace store."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import quote

import httpx
import orjson

from control_plane.errors import BackstayError, SourceUnavailable
from control_plane.ports import TraceQuery
from control_plane.tracing.jaeger_json import parse_traces
from control_plane.tracing.spans import Trace

T = TypeVar("T")

log = logging.getLogger(__name__)

MAX_ANSWER_BYTES = 16 * 1024 * 1024
"""Largest answer that is read, whatever the store sends."""

SLICES = 5
"""A time range is asked for in so many equal parts: a store answers with the newest traces of what it is asked for."""


class JaegerTraces:
    """TraceSource over a client whose base URL is Jaeger's (`http://jaeger:16686`); its timeout bounds each request."""

    def __init__(
        self, client: httpx.AsyncClient, timeout: timedelta = timedelta(seconds=2), max_bytes: int = MAX_ANSWER_BYTES
    ) -> None:
        self._client = client
        self._timeout = timeout  # for one whole question, however many requests it takes
        self._max_bytes = max_bytes

    async def services(self) -> Sequence[str]:
        return await self._names("/api/services")

    async def operations(self, service: str) -> Sequence[str]:
        return await self._names(f"/api/services/{quote(service, safe='')}/operations")

    async def traces(self, query: TraceQuery) -> Sequence[Trace]:
        if query.limit < 1 or query.end <= query.start:
            return []
        slices = min(SLICES, query.limit)
        step = (query.end - query.start) / slices
        share, more = divmod(query.limit, slices)
        asked = [
            self._slice(query, query.start + step * number, query.start + step * (number + 1), share + (number < more))
            for number in range(slices)
        ]
        answers = await self._in_time(asyncio.gather(*asked))
        return list({trace.trace_id: trace for answer in answers for trace in answer}.values())

    async def trace(self, trace_id: str) -> Trace | None:
        reply = await self._in_time(self._get(f"/api/traces/{quote(trace_id, safe='')}", {}, missing_is_none=True))
        if reply is None:
            return None
        traces = await self._parsed(reply)
        return traces[0] if traces else None

    async def _slice(self, query: TraceQuery, start: datetime, end: datetime, limit: int) -> Sequence[Trace]:
        parameters = {
            "service": query.service,
            "start": str(_microseconds(start)),
            "end": str(_microseconds(end)),
            "limit": str(limit),
        }
        if query.operation is not None:
            parameters["operation"] = query.operation
        if query.min_duration is not None:
            parameters["minDuration"] = f"{query.min_duration // timedelta(microseconds=1)}us"
        if query.tags:
            parameters["tags"] = orjson.dumps(dict(query.tags)).decode()
        return await self._parsed(await self._get("/api/traces", parameters))

    async def _names(self, path: str) -> Sequence[str]:
        reply = await self._in_time(self._get(path, {}))
        names = (reply or {}).get("data") or []  # Jaeger writes null for "none"
        if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
            raise SourceUnavailable(f"Jaeger answered {path} with something that is no list of names")
        return names

    async def _parsed(self, reply: Mapping[str, Any] | None) -> Sequence[Trace]:
        """Reads on another thread: a large answer must not hold up the tick."""
        if reply is None or reply.get("data") is None:
            return []
        try:
            document = await asyncio.to_thread(parse_traces, reply)
        except BackstayError as error:
            raise SourceUnavailable(f"Jaeger's traces cannot be read: {error}") from error
        if document.problems:
            log.warning("Jaeger sent traces with faults: %s", "; ".join(document.problems[:5]))
        return document.traces

    async def _in_time(self, answer: Awaitable[T]) -> T:
        try:
            async with asyncio.timeout(self._timeout.total_seconds()):
                return await answer
        except TimeoutError as error:
            raise SourceUnavailable(f"Jaeger did not answer within {self._timeout.total_seconds():g} s") from error

    async def _get(
        self, path: str, parameters: Mapping[str, str], *, missing_is_none: bool = False
    ) -> Mapping[str, Any] | None:
        try:
            async with self._client.stream("GET", path, params=parameters) as reply:
                body = bytearray()
                async for chunk in reply.aiter_bytes():
                    body += chunk
                    if len(body) > self._max_bytes:
                        raise SourceUnavailable(
                            f"Jaeger's answer to {path} is larger than {self._max_bytes} bytes: ask for less"
                        )
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"Jaeger did not answer {path}: {_cause(error)}") from error
        if reply.status_code == 404 and missing_is_none:
            return None
        return _envelope(path, reply, bytes(body))


def _envelope(path: str, reply: httpx.Response, body: bytes) -> Mapping[str, Any]:
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        kind = reply.headers.get("content-type", "no content type")
        raise SourceUnavailable(
            f"Jaeger answered {path} with {reply.status_code} and no JSON ({kind}): is this its query port?"
        ) from error
    errors = document.get("errors") if isinstance(document, dict) else None
    if reply.is_error or errors or not isinstance(document, dict):
        said = "; ".join(str(e.get("msg", e)) if isinstance(e, dict) else str(e) for e in errors or ["no reason given"])
        raise SourceUnavailable(f"Jaeger answered {path} with {reply.status_code}: {said[:300]}")
    return document


def _cause(error: httpx.HTTPError) -> str:
    """httpx leaves the text of time-outs empty."""
    return str(error) or type(error).__name__


def _microseconds(moment: datetime) -> int:
    return round(moment.timestamp() * 1_000_000)
