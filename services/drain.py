"""The way a replica stops without losing anything."""

from __future__ import annotations

import asyncio


class Drain:
    """Set once, when the replica was told to stop: new work goes elsewhere, long streams say `reconnect` and end."""

    def __init__(self) -> None:
        self._event = asyncio.Event()

    @property
    def started(self) -> bool:
        return self._event.is_set()

    def start(self) -> None:
        self._event.set()

    async def wait(self) -> None:
        await self._event.wait()
