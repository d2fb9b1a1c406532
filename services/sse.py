"""Server-Sent Events, out and in."""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from dataclasses import dataclass

import orjson
from starlette.responses import StreamingResponse

from services.problems import CAUSE_HEADER, SHED_HEADER, Problem
from services.slots import SHED_HEADERS, Lease, Saturated
from services.telemetry import current_request, current_trace_id

log = logging.getLogger(__name__)

KEEP_ALIVE = b": keep-alive\n\n"
"""A comment: says that the stream lives, to whoever would close a silent connection."""

DONE = b"data: [DONE]\n\n"
"""How an OpenAI stream ends."""

HEADERS = {"cache-control": "no-cache, no-store", "x-accel-buffering": "no"}


@dataclass(frozen=True, slots=True)
class Event:
    """One event; `data` has no newline in it (JSON never does)."""

    data: str
    name: str | None = None
    id: str | None = None

    def encode(self) -> bytes:
        lines = [f"id: {self.id}"] if self.id is not None else []
        if self.name is not None:
            lines.append(f"event: {self.name}")
        lines.append(f"data: {self.data}")
        return ("\n".join(lines) + "\n\n").encode()


RECONNECT = Event('{"reason":"draining"}', name="reconnect")
"""Come back with Last-Event-ID: this replica is about to stop, another one goes on."""


async def event_stream(events: AsyncGenerator[bytes, None]) -> StreamingResponse:
    """Answer with `events`, on a stream slot. Raises a 503 Problem if none is free.

    The first failure ends the stream with an `error` event and is counted, because the status said 200 long before.
    """
    record = current_request()
    if record is not None and isinstance(record.slot, Lease):
        try:
            await record.slot.become_stream()
        except Saturated as error:
            raise Problem(
                503,
                "This replica holds as many streams as it can; try again.",
                headers=SHED_HEADERS,
            ) from error
    return StreamingResponse(_guarded(events), media_type="text/event-stream", headers=HEADERS)


def ends_with_reconnect() -> None:
    """Say that the stream being served ends because the replica drains, not because it is complete."""
    if record := current_request():
        record.stream_outcome = "reconnect"


def ends_with_error(fault: str | None = None) -> None:
    """Say that the stream being served tells its reader of a failure; `fault` names the injected one behind it."""
    if record := current_request():
        record.stream_outcome = "error"
        record.fault = record.fault or fault


async def _guarded(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    problem: Problem
    try:
        async with aclosing(events):
            async for event in events:
                yield event
        return
    except Problem as error:
        problem = error
    except Exception:  # the outer turn of one stream
        log.exception("a stream broke")
        problem = Problem(500, "Something broke on our side; it was logged.")
    ends_with_error(problem.fault)
    yield error_event(problem)


def error_event(problem: Problem) -> bytes:
    """The end of a stream that failed. `error` is for OpenAI clients; the other members stand in for headers."""
    body: dict[str, object] = {
        "error": {"message": problem.detail, "type": "server_error", "code": problem.status},
        "trace_id": current_trace_id(),
    }
    if problem.fault:
        body["fault"] = problem.fault
    if SHED_HEADER in problem.headers:
        body["shed"] = True
    if CAUSE_HEADER in problem.headers:
        body["caused_by"] = problem.headers[CAUSE_HEADER]
    return Event(orjson.dumps(body).decode(), name="error").encode()


async def parse(chunks: AsyncIterator[bytes]) -> AsyncIterator[Event]:
    """Events of a byte stream, however its bytes were cut. An event without its empty line at the end is not one."""
    rest = b""
    name: str | None = None
    identifier: str | None = None
    data: list[str] = []
    async for chunk in chunks:
        *lines, rest = (rest + chunk).split(b"\n")
        for raw in lines:
            line = raw.rstrip(b"\r").decode("utf-8", "replace")
            if not line:
                if data:
                    yield Event("\n".join(data), name, identifier)
                name, identifier, data = None, None, []
                continue
            key, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if key == "data":
                data.append(value)
            elif key == "event":
                name = value
            elif key == "id":
                identifier = value
