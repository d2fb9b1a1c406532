"""Accounts: who exists, who may sign in, and which tokens were taken back before they expired."""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass

from services.storage import Database

MIGRATIONS = (
    """
    CREATE TABLE users (
        id TEXT PRIMARY KEY,
        email TEXT NOT NULL UNIQUE,
        name TEXT NOT NULL,
        password_hash TEXT NOT NULL,
        created_at REAL NOT NULL
    ) STRICT;
    CREATE TABLE revoked_tokens (
        token_id TEXT PRIMARY KEY,
        expires_at INTEGER NOT NULL
    ) STRICT, WITHOUT ROWID;
    CREATE INDEX revoked_tokens_by_expiry ON revoked_tokens (expires_at);
    CREATE TABLE failed_logins (
        email TEXT NOT NULL,
        at REAL NOT NULL
    ) STRICT;
    CREATE INDEX failed_logins_by_email ON failed_logins (email, at);
    """,
)


@dataclass(frozen=True, slots=True)
class User:
    """A registered person. `email` is unique, in the form that `normal_email` gives."""

    id: str
    email: str
    name: str
    password_hash: str
    created_at: float  # unix seconds


def normal_email(email: str) -> str:
    """One spelling for one mailbox."""
    return email.strip().casefold()


class Accounts:
    """Reads and writes of the identity database."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(self, user: User) -> bool:
        """Keep a new user; False when the address is taken."""

        def work(connection: sqlite3.Connection) -> bool:
            inserted = connection.execute(
                "INSERT INTO users (id, email, name, password_hash, created_at) VALUES (?, ?, ?, ?, ?)"
                " ON CONFLICT (email) DO NOTHING",
                (user.id, user.email, user.name, user.password_hash, user.created_at),
            )
            return inserted.rowcount == 1

        return await self._database.write(work)

    async def by_email(self, email: str) -> User | None:
        return await self._one("email", email)

    async def by_id(self, user_id: str) -> User | None:
        return await self._one("id", user_id)

    async def holder_of(self, user_id: str, token_id: str) -> User | None:
        """The user, unless they are gone or this token of theirs was taken back."""
        return await self._database.read(
            lambda connection: _user(
                connection.execute(
                    "SELECT * FROM users WHERE id = ? AND NOT EXISTS (SELECT 1 FROM revoked_tokens WHERE token_id = ?)",
                    (user_id, token_id),
                ).fetchone()
            )
        )

    async def set_password_hash(self, user_id: str, password_hash: str) -> None:
        await self._database.write(
            lambda connection: connection.execute(
                "UPDATE users SET password_hash = ? WHERE id = ?", (password_hash, user_id)
            )
        )

    async def revoke(self, token_id: str, expires_at: int, now: float) -> None:
        """Take a token back, and forget those that have expired by themselves."""

        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM revoked_tokens WHERE expires_at < ?", (now - 60,))
            connection.execute(
                "INSERT INTO revoked_tokens (token_id, expires_at) VALUES (?, ?) ON CONFLICT DO NOTHING",
                (token_id, expires_at),
            )

        await self._database.write(work)

    async def failed_logins(self, email: str, since: float) -> int:
        """How often signing in as `email` failed since then, whether or not such a user exists."""
        return await self._database.read(
            lambda connection: int(
                connection.execute(
                    "SELECT count(*) FROM failed_logins WHERE email = ? AND at >= ?", (email, since)
                ).fetchone()[0]
            )
        )

    async def note_failed_login(self, email: str, now: float, forget_before: float) -> None:
        def work(connection: sqlite3.Connection) -> None:
            connection.execute("DELETE FROM failed_logins WHERE email = ? AND at < ?", (email, forget_before))
            connection.execute("INSERT INTO failed_logins (email, at) VALUES (?, ?)", (email, now))

        await self._database.write(work)

    async def clear_failed_logins(self, email: str) -> None:
        await self._database.write(
            lambda connection: connection.execute("DELETE FROM failed_logins WHERE email = ?", (email,))
        )

    async def _one(self, column: str, value: str) -> User | None:
        query = f"SELECT * FROM users WHERE {column} = ?"  # noqa: S608  the column is ours
        return await self._database.read(lambda connection: _user(connection.execute(query, (value,)).fetchone()))


def _user(row: sqlite3.Row | None) -> User | None:
    return User(**dict(row)) if row else None
