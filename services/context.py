"""What a service is given: all it uses of the world, so a microservice, the monolith and a test wire it alike."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from control_plane.clock import Clock, Monotonic, monotonic, utc_now
from services.drain import Drain
from services.peers import Peers
from services.settings import SuiteSettings
from services.storage import Storage
from services.telemetry import ServiceTelemetry
from services.tokens import Tokens

log = logging.getLogger(__name__)
T = TypeVar("T")

MAX_BACKGROUND_TASKS = 1000


@dataclass
class ServiceContext:
    """One service in one process. The monolith holds seven, which share storage, tokens and drain."""

    service: str  # the domain's name, e.g. "identity-service", also inside the monolith
    settings: SuiteSettings
    storage: Storage
    peers: Peers
    telemetry: ServiceTelemetry
    tokens: Tokens
    drain: Drain
    clock: Clock = utc_now
    monotonic: Monotonic = monotonic
    _parts: dict[Any, Any] = field(default_factory=dict)
    _closing: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    _background: set[asyncio.Task[None]] = field(default_factory=set)

    def once(self, build: Callable[[ServiceContext], T]) -> T:
        """What `build` makes of this context, made at the first call: routes and in-process callers share it."""
        if build not in self._parts:
            self._parts[build] = build(self)
        return cast(T, self._parts[build])

    def in_background(self, work: Coroutine[Any, Any, object], what: str) -> None:
        """Do `work` after the answer. Its failure is logged as `what` and hurts nobody; a drain waits for it.

        Beyond 1000 pending tasks the work is dropped and logged, so a dead peer cannot fill the memory.
        """
        if len(self._background) >= MAX_BACKGROUND_TASKS:
            work.close()
            log.warning("dropped, too much is pending: %s", what)
            return
        task = asyncio.create_task(self._guarded(work, what))
        self._background.add(task)
        task.add_done_callback(self._background.discard)

    def on_close(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have `close` called when the replica stops, after all requests and background work."""
        self._closing.append(close)

    async def finish_background(self, timeout_seconds: float) -> None:
        """Wait until what is pending is done, at most so long."""
        if self._background:
            await asyncio.wait(self._background, timeout=timeout_seconds)

    async def close(self) -> None:
        """Finish what is pending, as long as a drain may take, give up the rest, close what the service opened."""
        await self.finish_background(self.settings.drain_seconds)
        left = list(self._background)
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
        for close in reversed(self._closing):
            await close()

    async def _guarded(self, work: Coroutine[Any, Any, object], what: str) -> None:
        try:
            await work
        except Exception as error:  # noqa: BLE001  the outer turn of this task
            log.warning("%s failed: %s", what, error)
