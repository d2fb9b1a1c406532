"""Password hashes: slow on purpose, so they run off the event loop, few at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError

from services.problems import Problem

T = TypeVar("T")

MAX_WAITING = 32


class Passwords:
    """Argon2id with 19 MiB, two passes, one lane (OWASP's recommendation): tens of milliseconds of one core each."""

    def __init__(self, workers: int) -> None:
        self._hasher = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)
        self._pool = ThreadPoolExecutor(workers, thread_name_prefix="argon2")
        self._pending = 0

    async def hash(self, password: str) -> str:
        return await self._off_the_loop(self._hasher.hash, password)

    async def matches(self, password_hash: str | None, password: str) -> bool:
        """Whether the password is right. `None` (no such user) takes as long and is never right: time tells nothing."""
        right = await self._off_the_loop(self._verify, password_hash or self._nobodys_hash, password)
        return right and password_hash is not None

    def outdated(self, password_hash: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    async def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)

    @cached_property
    def _nobodys_hash(self) -> str:
        return self._hasher.hash("nobody has this password")

    def _verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, password)
        except (VerificationError, InvalidHashError):
            return False

    async def _off_the_loop(self, work: Callable[..., T], *arguments: str) -> T:
        if self._pending >= MAX_WAITING:
            raise Problem(503, "Too many people sign in at this moment; try again.", headers={"retry-after": "2"})
        self._pending += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work, *arguments)
        finally:
            self._pending -= 1
