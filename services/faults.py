"""Faults that a drill switches on in a replica. They are told through the parent's pipe only, so nobody outside can."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from services.problems import FAULT_HEADER, problem_response
from services.telemetry import current_request

CRASH_DELAY_SECONDS = 2.0


class Fault(BaseModel):
    """What goes wrong, how often and until when."""

    model_config = ConfigDict(frozen=True, extra="ignore")

    kind: Literal["errors", "latency", "crash"]
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    """Share of requests that are hit; None is 0.2 for errors, 0.5 for latency. A crash takes the whole process."""
    delay_ms: Annotated[float, Field(ge=0, le=60_000)] = 400.0
    """Extra time of a request that latency hits, in milliseconds."""
    until: float
    """Unix seconds at which the fault ends by itself, whatever became of who asked for it."""

    @property
    def hits(self) -> float:
        return self.share if self.share is not None else {"errors": 0.2, "latency": 0.5, "crash": 1.0}[self.kind]


class Faults:
    """The fault in force in this process, if any."""

    def __init__(
        self, now: Callable[[], float], crash: Callable[[], None], chance: random.Random | None = None
    ) -> None:
        self._now = now
        self._crash = crash
        self._chance = chance or random.Random()  # noqa: S311  no secret hangs on it
        self._fault: Fault | None = None
        self._crashing: asyncio.TimerHandle | None = None

    @property
    def active(self) -> Fault | None:
        fault = self._fault
        return fault if fault and self._now() < fault.until else None

    def set(self, fault: Fault | None) -> None:
        """Replace the fault in force. A crash exits the process two seconds from now unless it is taken back before."""
        self._fault = fault
        if self._crashing:
            self._crashing.cancel()
            self._crashing = None
        if fault and fault.kind == "crash" and self.active:
            self._crashing = asyncio.get_running_loop().call_later(CRASH_DELAY_SECONDS, self._crash)

    def draw(self) -> Fault | None:
        """Whether this request is hit, and by what."""
        fault = self.active
        return fault if fault and fault.kind != "crash" and self._chance.random() < fault.hits else None


class FaultLayer:
    """ASGI layer in which a drill's fault does its harm: behind slots and telemetry, as a service's own fault would."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self._faults = faults

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        fault = self._faults.draw() if scope["type"] == "http" else None
        if fault is None:
            await self._app(scope, receive, send)
            return
        if record := current_request():
            record.fault = fault.kind
        if fault.kind == "errors":
            response = problem_response(
                500, "Something broke on our side; it was logged.", fault="errors", path=scope["path"]
            )
            await response(scope, receive, send)
            return
        await asyncio.sleep(fault.delay_ms / 1000)

        async def marked(message: Message) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message["headers"], (FAULT_HEADER.encode(), fault.kind.encode())]
            await send(message)

        await self._app(scope, receive, marked)
