"""A part of the stack that is started again whenever it ends, until it is told to stop."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress

import aiohttp

from control_plane.clock import monotonic
from control_plane.errors import SourceUnavailable
from control_plane.local.back_off import BackOff
from control_plane.local.log_files import last_words, size_of
from control_plane.local.processes import Command, Process, spawn
from control_plane.local.readiness import until_it_answers

log = logging.getLogger(__name__)


class KeptAlive:
    """Runs one command again and again, with growing waits while it fails."""

    def __init__(self, command: Command, ready_url: str, http: aiohttp.ClientSession, grace_seconds: float = 10.0):
        self.command = command
        self.ready_url = ready_url
        self.restarts = 0
        self.process: Process | None = None
        self.last_exit: int | None = None  # exit code of the latest run that ended; None: none has ended
        self._http = http
        self._grace_seconds = grace_seconds
        self._ready = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ended = asyncio.Event()
        self._said_before = 0  # bytes in the log before our first run

    @property
    def name(self) -> str:
        return self.command.name

    @property
    def ready(self) -> bool:
        return self._ready.is_set()

    def start(self) -> None:
        self._said_before = size_of(self.command.log_file)
        self._task = asyncio.create_task(self._keep_alive(), name=f"keep {self.name} alive")

    async def until_ready(self, deadline_seconds: float, give_up_after_exits: int = 3) -> None:
        """Waits for the first readiness. Raises SourceUnavailable after the deadline, or when it keeps exiting."""
        ready = asyncio.create_task(self._ready.wait())
        keeps_exiting = asyncio.create_task(self._until_exits(give_up_after_exits))
        try:
            await asyncio.wait({ready, keeps_exiting}, timeout=deadline_seconds, return_when=asyncio.FIRST_COMPLETED)
            if ready.done():
                return
            if keeps_exiting.done():
                raise SourceUnavailable(
                    f"{self.name} exits as soon as it starts (code {self.last_exit}). "
                    f"Its last words: {last_words(self.command.log_file, self._said_before)}"
                )
            raise SourceUnavailable(
                f"{self.name} was not ready after {deadline_seconds:.0f} s ({self.ready_url}): "
                f"see {self.command.log_file}"
            )
        finally:
            ready.cancel()
            keeps_exiting.cancel()

    async def stop(self) -> None:
        """Ends the process and stays down. Safe to call twice."""
        task, self._task = self._task, None
        if task is not None:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        process, self.process = self.process, None
        if process is not None:
            await process.stop(self._grace_seconds)

    async def _keep_alive(self) -> None:
        back_off = BackOff()
        while True:
            ready_seconds = await self._run_once()
            delay = back_off.next_delay(ready_seconds)
            log.warning("%s ended with code %s; starting it again in %.1f s", self.name, self.last_exit, delay)
            await asyncio.sleep(delay)
            self.restarts += 1

    async def _run_once(self) -> float:
        """One run, from start to exit; seconds that it was ready."""
        try:
            self.process = process = await spawn(self.command)
        except SourceUnavailable as error:
            log.warning("%s", error)
            self._note_exit(None)
            return 0.0
        watch = asyncio.create_task(self._watch_readiness())
        try:
            code = await process.exited()
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
        self._ready.clear()
        self.process = None
        self._note_exit(code)
        since = watch.result() if watch.done() and not watch.cancelled() else None
        return monotonic() - since if since is not None else 0.0

    async def _watch_readiness(self) -> float:
        await until_it_answers(self._http, self.ready_url)
        self._ready.set()
        return monotonic()

    def _note_exit(self, code: int | None) -> None:
        self.last_exit = code
        self._ended.set()

    async def _until_exits(self, count: int) -> None:
        for _ in range(count):
            self._ended.clear()
            await self._ended.wait()
