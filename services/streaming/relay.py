"""Carries a model's reply into a stream's events, and events to a reader."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from dataclasses import asdict

import orjson

from services.context import ServiceContext
from services.ids import new_id
from services.peers import ChatMessage, ChatRequest
from services.problems import CAUSE_HEADER, SHED_HEADER, Problem, not_found
from services.sse import KEEP_ALIVE, RECONNECT, Event, ends_with_error, ends_with_reconnect
from services.streaming.streams import MIGRATIONS, RENEW_SECONDS, LeaseLost, Stream, Streams

log = logging.getLogger(__name__)

FLUSH_SECONDS = 0.1
"""Pieces that arrive within this time are written together: a reader does not notice, the disk does."""

POLL_SECONDS = 0.1
"""How often a reader looks for events that another replica writes; its own replica wakes it at once."""

KEEP_ALIVE_SECONDS = 10.0


class Relay:
    """The streaming domain on one context."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self._streams = Streams(context.storage.database("streaming", MIGRATIONS))
        self._holder = new_id()  # of this process and this life of it
        self._written: dict[str, asyncio.Event] = {}  # streams this process writes
        self._started = context.telemetry.counter("streams_started_total", "Streams begun", ["how"])
        self._ended = context.telemetry.counter("stream_replies_total", "Replies carried to their end", ["outcome"])

    async def start(self, user_id: str, token: str, request: ChatRequest) -> str:
        """Begin to answer a chat and give the stream's id at once."""
        stream_id = new_id()
        kept = orjson.dumps({**asdict(request), "exchange_id": request.exchange_id or stream_id}).decode()
        await self._streams.add(stream_id, user_id, kept, self._holder, self._now())
        self._started("new")
        self._produce(stream_id, token, _request(kept))
        return stream_id

    async def find(self, stream_id: str, user_id: str) -> Stream:
        stream = await self._streams.find(stream_id, user_id)
        if stream is None:
            raise not_found("stream")
        return stream

    async def read(self, stream: Stream, token: str, after: int) -> AsyncGenerator[bytes, None]:
        """Events after number `after`, as they come, until the end or until this replica drains."""
        yield KEEP_ALIVE  # the first byte says that the stream is there, long before the first token
        silent_since = self._context.monotonic()
        while True:
            news = self._written.get(stream.id)
            events, ended, leased_until = await self._streams.after(stream.id, after)
            for event in events:
                after = event.number
                if event.name == "error":
                    ends_with_error(orjson.loads(event.data).get("fault"))
                yield Event(event.data, name=event.name, id=str(event.number)).encode()
                silent_since = self._context.monotonic()
            if ended:
                return
            if self._context.drain.started:
                ends_with_reconnect()
                yield RECONNECT.encode()
                return
            if not events and leased_until < self._now():
                await self._take_over(stream, token)
            if self._context.monotonic() - silent_since > KEEP_ALIVE_SECONDS:
                silent_since = self._context.monotonic()
                yield KEEP_ALIVE
            await self._wait(news)

    async def _wait(self, news: asyncio.Event | None) -> None:
        if news is None:
            await asyncio.sleep(POLL_SECONDS)
            return
        try:
            async with asyncio.timeout(1.0):
                await news.wait()
        except TimeoutError:
            pass

    async def _take_over(self, stream: Stream, token: str) -> None:
        if not await self._streams.take_over(stream.id, self._holder, self._now()):
            return
        log.warning("stream %s was left by its replica; its reply starts again", stream.id)
        self._started("taken_over")
        await self._streams.append(stream.id, self._holder, [("restart", "{}")], self._now())
        self._produce(stream.id, token, _request(stream.request))

    def _produce(self, stream_id: str, token: str, request: ChatRequest) -> None:
        self._written[stream_id] = asyncio.Event()
        self._context.in_background(self._carry(stream_id, token, request), f"carrying stream {stream_id}")

    async def _carry(self, stream_id: str, token: str, request: ChatRequest) -> None:
        renewing = asyncio.create_task(self._keep_lease(stream_id))
        try:
            await self._carry_to_the_end(stream_id, token, request)
            self._ended("complete")
        except LeaseLost:
            self._ended("lease_lost")
            log.warning("stream %s is written by another replica now", stream_id)
        except Exception as error:
            self._ended("error")
            problem = (
                error if isinstance(error, Problem) else Problem(500, "Something broke on our side; it was logged.")
            )
            data = {
                "message": problem.detail,
                "status": problem.status,
                "fault": problem.fault,
                "shed": SHED_HEADER in problem.headers,
                "caused_by": problem.headers.get(CAUSE_HEADER),
            }
            await self._append(stream_id, [("error", data)], ends=True)
            if problem is not error:
                raise
        finally:
            renewing.cancel()
            if news := self._written.pop(stream_id, None):
                news.set()

    async def _keep_lease(self, stream_id: str) -> None:
        while True:
            await asyncio.sleep(RENEW_SECONDS)
            try:
                await self._streams.append(stream_id, self._holder, [], self._now())
            except (LeaseLost, Problem):
                return  # the next write says so

    async def _carry_to_the_end(self, stream_id: str, token: str, request: ChatRequest) -> None:
        """Write pieces together that come close together; the last write ends the stream."""
        text = ""
        finish_reason = "stop"
        flushed_at = self._context.monotonic()
        async with aclosing(self._context.peers.completions.stream(token, request)) as deltas:
            async for delta in deltas:
                text += delta.text
                finish_reason = delta.finish_reason or finish_reason
                if text and self._context.monotonic() - flushed_at >= FLUSH_SECONDS:
                    await self._append(stream_id, [("delta", {"text": text})])
                    text, flushed_at = "", self._context.monotonic()
        last: list[tuple[str, dict[str, object]]] = [("delta", {"text": text})] if text else []
        await self._append(stream_id, [*last, ("done", {"finish_reason": finish_reason})], ends=True)

    async def _append(self, stream_id: str, events: list[tuple[str, dict[str, object]]], *, ends: bool = False) -> None:
        encoded = [(name, orjson.dumps(data).decode()) for name, data in events]
        await self._streams.append(stream_id, self._holder, encoded, self._now(), ends=ends)
        if stream_id not in self._written:
            return
        news, self._written[stream_id] = self._written[stream_id], asyncio.Event()
        news.set()  # each write has an event of its own, so a reader who looks away meanwhile misses none

    def _now(self) -> float:
        return self._context.clock().timestamp()


def _request(kept: str) -> ChatRequest:
    fields = orjson.loads(kept)
    return ChatRequest(**{**fields, "messages": [ChatMessage(**message) for message in fields["messages"]]})
