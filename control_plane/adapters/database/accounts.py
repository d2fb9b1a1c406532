"""Users and sessions of the console. Passwords are kept as argon2 hashes, session tokens as SHA-256."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
from datetime import timedelta
from functools import cache

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerificationError
from sqlalchemy import Connection, delete, insert, select, update

from control_plane.adapters.database.connection import Connections
from control_plane.adapters.database.schema import sessions, users
from control_plane.clock import Clock
from control_plane.ports import Login

# 19 MiB, two passes, one lane: OWASP's choice; the library's defaults cost ten times the processor.
HASHER = PasswordHasher(time_cost=2, memory_cost=19 * 1024, parallelism=1)


class DatabaseAccounts:
    """What the console asks of accounts. Hashes are made off the loop, one at a time: each takes 19 MiB."""

    def __init__(self, connections: Connections, clock: Clock, session_length: timedelta) -> None:
        self._connections = connections
        self._clock = clock
        self._session_length = session_length
        self._hashing = asyncio.Semaphore(1)

    async def sign_in(self, username: str, password: str) -> str | None:
        """Token of a new session; None when name or password is wrong."""
        query = select(users.c.password_hash).where(users.c.username == username)
        stored = await self._connections.read(lambda connection: connection.execute(query).scalar())
        async with self._hashing:
            matches = await asyncio.to_thread(_matches, stored, password)
        if stored is None or not matches:
            return None
        token = secrets.token_urlsafe(32)
        now = self._clock()

        def change(connection: Connection) -> None:
            connection.execute(delete(sessions).where(sessions.c.expires_at <= now))
            values = {"token_hash": _digest(token), "username": username, "began_at": now}
            connection.execute(insert(sessions).values(**values, expires_at=now + self._session_length))

        await self._connections.write(change)
        return token

    async def login_of(self, token: str) -> Login | None:
        """The session behind a token; None when it is unknown, ended or expired."""
        query = select(sessions).where(sessions.c.token_hash == _digest(token))
        row = await self._connections.read(lambda connection: connection.execute(query).first())
        if row is None or row.expires_at <= self._clock():
            return None
        return Login(row.username, csrf=_digest(f"csrf {token}"))

    async def sign_out(self, token: str) -> None:
        ended = delete(sessions).where(sessions.c.token_hash == _digest(token))
        await self._connections.write(lambda connection: connection.execute(ended))

    async def new_password(self, username: str) -> str:
        """Sets a random password, ends the user's sessions and returns the password: the only time it is seen."""
        password = secrets.token_urlsafe(15)
        async with self._hashing:
            hashed = await asyncio.to_thread(HASHER.hash, password)
        now = self._clock()

        def change(connection: Connection) -> None:
            connection.execute(delete(sessions).where(sessions.c.username == username))
            values = {"password_hash": hashed, "changed_at": now}
            mine = users.c.username == username
            if not connection.execute(update(users).where(mine).values(values)).rowcount:
                connection.execute(insert(users).values(username=username, **values))

        await self._connections.write(change)
        return password

    async def exists(self, username: str) -> bool:
        query = select(users.c.username).where(users.c.username == username)
        return await self._connections.read(lambda connection: connection.execute(query).scalar() is not None)


@cache
def _nobody() -> str:
    """What the password of an unknown user is compared with, so that the time of an answer tells nothing."""
    return HASHER.hash(secrets.token_hex(16))


def _matches(hashed: str | None, password: str) -> bool:
    try:
        return HASHER.verify(hashed or _nobody(), password)
    except (VerificationError, InvalidHashError):
        return False


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
