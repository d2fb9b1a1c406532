"""A replica serves a fixed number of requests at a time: beyond that they queue, beyond the queue they are shed.

So saturation, queueing and the effect of a further replica are real, and who cannot keep up says so within seconds.
"""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Literal

from prometheus_client import Gauge
from starlette.types import ASGIApp, Receive, Scope, Send

from services.problems import SHED_HEADER, problem_response
from services.telemetry import Metrics, RouteTable, current_request

Kind = Literal["request", "stream"]
SHED_HEADERS = {"retry-after": "1", SHED_HEADER: "slots"}


class Saturated(Exception):
    """Every slot stayed taken, or the queue is full."""


class SlotPool:
    """Slots of one kind, with a first-come-first-served queue of twice their number."""

    def __init__(self, kind: Kind, size: int, queue_seconds: float, metrics: Metrics, deployment: str) -> None:
        self.kind = kind
        self.size = size
        self._free = size
        self._queue_seconds = queue_seconds
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._metrics = metrics
        self._gauges: dict[str, Gauge] = {}
        metrics.slots.labels(deployment, kind).set(size)

    @property
    def in_use(self) -> int:
        return self.size - self._free

    @property
    def queued(self) -> int:
        return len(self._waiting)

    async def take(self, service: str) -> None:
        """Take a slot, waiting in line if need be. Raises Saturated."""
        if self._free and not self._waiting:
            self._free -= 1
        elif len(self._waiting) >= 2 * self.size:
            raise Saturated
        else:
            await self._wait_in_line(service)
        self._gauge(service).inc()

    def give_back(self, service: str) -> None:
        self._gauge(service).dec()
        self._hand_on()

    def _gauge(self, service: str) -> Gauge:
        gauge = self._gauges.get(service)
        if gauge is None:  # finding a labelled child costs more than using it
            gauge = self._gauges[service] = self._metrics.slots_in_use.labels(service, self.kind)
        return gauge

    async def _wait_in_line(self, service: str) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        queue_length = self._metrics.queue_length.labels(service, self.kind)
        queue_length.inc()
        try:
            async with asyncio.timeout(self._queue_seconds):
                await turn
        except (TimeoutError, asyncio.CancelledError) as error:
            if turn.done() and not turn.cancelled():  # the slot arrived together with the end of patience
                self._hand_on()
            else:
                self._waiting.remove(turn)
            if isinstance(error, TimeoutError):
                raise Saturated from error
            raise
        finally:
            queue_length.dec()

    def _hand_on(self) -> None:
        """A slot is free: it goes straight to who waits longest, so nobody who just came overtakes."""
        while self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class Slots:
    """Both pools of a replica."""

    def __init__(self, requests: int, streams: int, queue_seconds: float, metrics: Metrics, deployment: str) -> None:
        self.requests = SlotPool("request", requests, queue_seconds, metrics, deployment)
        self.streams = SlotPool("stream", streams, queue_seconds, metrics, deployment)
        self.metrics = metrics


class Lease:
    """The slot that one request holds."""

    def __init__(self, slots: Slots, service: str) -> None:
        self._slots = slots
        self._service = service
        self._pool: SlotPool | None = None

    async def take_request_slot(self) -> None:
        await self._slots.requests.take(self._service)
        self._pool = self._slots.requests

    async def become_stream(self) -> None:
        """Swap the request slot for a stream slot: whether an answer streams is known only once its request was read.

        Raises Saturated, and keeps the request slot until the answer that says so has left.
        """
        if self._pool is self._slots.streams:
            return
        try:
            await self._slots.streams.take(self._service)
        except Saturated:
            self._slots.metrics.shed.labels(self._service).inc()
            raise
        self.release()
        self._pool = self._slots.streams

    def release(self) -> None:
        if self._pool is not None:
            self._pool.give_back(self._service)
            self._pool = None


class SlotLayer:
    """ASGI layer that lets a fixed number of requests through at a time."""

    def __init__(self, app: ASGIApp, slots: Slots, routes: RouteTable) -> None:
        self._app = app
        self._slots = slots
        self._routes = routes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        service = self._routes.service_of(scope["path"]).service
        lease = Lease(self._slots, service)
        try:
            await lease.take_request_slot()
        except Saturated:
            self._slots.metrics.shed.labels(service).inc()
            response = problem_response(
                503,
                "This replica is saturated; try again.",
                headers=SHED_HEADERS,
                path=scope["path"],
            )
            await response(scope, receive, send)
            return
        if record := current_request():
            record.slot = lease
        try:
            await self._app(scope, receive, send)
        finally:
            lease.release()
