"""Conversations and their messages, and which messages the search index has yet to hear of."""

# ruff: noqa: S608  what is put into statements are constants of this file

from __future__ import annotations

import base64
import binascii
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from control_plane.clock import Clock
from services.ids import new_id
from services.peers import NewMessage
from services.problems import Problem, not_found
from services.storage import Database, Storage

MIGRATIONS = (
    """
    CREATE TABLE conversations (
        id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL,
        title TEXT NOT NULL,
        created_at TEXT NOT NULL,
        updated_at TEXT NOT NULL,
        messages INTEGER NOT NULL DEFAULT 0  -- how many were ever appended, so also the last position
    ) WITHOUT ROWID;
    CREATE INDEX conversations_of_user ON conversations (user_id, updated_at, id);
    CREATE TABLE messages (
        id TEXT PRIMARY KEY,
        conversation_id TEXT NOT NULL REFERENCES conversations (id) ON DELETE CASCADE,
        position INTEGER NOT NULL,
        role TEXT NOT NULL,
        content TEXT NOT NULL,
        created_at TEXT NOT NULL,
        UNIQUE (conversation_id, position)
    );
    -- Written in the transaction that makes it necessary, deleted once search has confirmed: nothing stays unindexed.
    CREATE TABLE unindexed_messages (
        message_id TEXT PRIMARY KEY REFERENCES messages (id) ON DELETE CASCADE,
        due_at REAL NOT NULL,  -- unix seconds; before that, whoever put it there is at work on it
        attempts INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX unindexed_messages_due ON unindexed_messages (due_at);
    CREATE TABLE unforgotten_conversations (
        conversation_id TEXT PRIMARY KEY,
        user_id TEXT NOT NULL,
        due_at REAL NOT NULL,
        attempts INTEGER NOT NULL DEFAULT 0
    ) WITHOUT ROWID;
    CREATE INDEX unforgotten_conversations_due ON unforgotten_conversations (due_at);
    """,
)

_CONVERSATION = "id, title, created_at, updated_at, messages"
_MESSAGE = "id, conversation_id, position, role, content, created_at"

LEASE = timedelta(seconds=15)
"""How long one process has a message to itself while it tells search; longer than a call to a peer may take."""

LONGEST_PAUSE = timedelta(seconds=60)
"""Longest wait between two attempts to tell search."""


@dataclass(frozen=True, slots=True)
class Conversation:
    id: str
    title: str
    created_at: str
    updated_at: str
    messages: int


@dataclass(frozen=True, slots=True)
class Message:
    id: str
    conversation_id: str
    position: int  # 1 for the first of its conversation, without gaps
    role: str
    content: str
    created_at: str


@dataclass(frozen=True, slots=True)
class Unindexed:
    """A message that search has to be told of."""

    user_id: str
    conversation_title: str
    message: Message
    attempts: int


@dataclass(frozen=True, slots=True)
class Unforgotten:
    """A deleted conversation that search has to be told of."""

    user_id: str
    conversation_id: str
    attempts: int


class ConversationStore:
    """State of the domain. What belongs to another user is not found, exactly as what does not exist."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._database: Database = storage.database("conversation", MIGRATIONS)
        self._clock = clock

    async def create(self, user_id: str, title: str) -> Conversation:
        now = _stamp(self._clock())
        made = Conversation(new_id(), title, now, now, 0)

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "INSERT INTO conversations (id, user_id, title, created_at, updated_at) VALUES (?, ?, ?, ?, ?)",
                (made.id, user_id, title, now, now),
            )

        await self._database.write(work)
        return made

    async def get(self, user_id: str, conversation_id: str) -> Conversation:
        return await self._database.read(lambda connection: _owned(connection, user_id, conversation_id))

    async def page(self, user_id: str, limit: int, cursor: str | None) -> tuple[list[Conversation], str | None]:
        """The page after `cursor`, most recently changed first, and the next cursor (None: this was the last page)."""
        updated_at, last_id = _read_cursor(cursor) if cursor else ("￿", "")  # later than any stamp

        def work(connection: sqlite3.Connection) -> list[Conversation]:
            rows = connection.execute(
                f"SELECT {_CONVERSATION} FROM conversations"
                " WHERE user_id = ? AND (updated_at, id) < (?, ?) ORDER BY updated_at DESC, id DESC LIMIT ?",
                (user_id, updated_at, last_id, limit + 1),
            )
            return [Conversation(*row) for row in rows]

        found = await self._database.read(work)
        page = found[:limit]
        return page, _cursor(page[-1]) if len(found) > limit else None

    async def messages(
        self, user_id: str, conversation_id: str, limit: int, after: int
    ) -> tuple[list[Message], int | None]:
        """Messages at positions above `after` in order, and the position to go on from (None: there are no more)."""

        def work(connection: sqlite3.Connection) -> list[Message]:
            _owned(connection, user_id, conversation_id)
            rows = connection.execute(
                f"SELECT {_MESSAGE} FROM messages WHERE conversation_id = ? AND position > ? ORDER BY position LIMIT ?",
                (conversation_id, after, limit + 1),
            )
            return [Message(*row) for row in rows]

        found = await self._database.read(work)
        page = found[:limit]
        return page, page[-1].position if len(found) > limit else None

    async def append(
        self, user_id: str, conversation_id: str, messages: Sequence[NewMessage]
    ) -> tuple[Conversation, list[Message]]:
        """Add messages in order, all or none. One whose id the conversation has already is left as it is."""
        now = self._clock()
        stamp = _stamp(now)

        def work(connection: sqlite3.Connection) -> tuple[Conversation, list[Message]]:
            conversation = _owned(connection, user_id, conversation_id)
            position = conversation.messages
            appended = []
            for new in messages:
                known = connection.execute(f"SELECT {_MESSAGE} FROM messages WHERE id = ?", (new.id,)).fetchone()
                if known:
                    if known["conversation_id"] != conversation_id:
                        raise Problem(409, "A message of this id exists elsewhere.")
                    appended.append(Message(*known))
                    continue
                position += 1
                message = Message(new.id or new_id(), conversation_id, position, new.role, new.content, stamp)
                connection.execute(
                    "INSERT INTO messages (id, conversation_id, position, role, content, created_at)"
                    " VALUES (?, ?, ?, ?, ?, ?)",
                    (message.id, conversation_id, position, message.role, message.content, stamp),
                )
                connection.execute(
                    "INSERT INTO unindexed_messages (message_id, due_at) VALUES (?, ?)",
                    (message.id, (now + LEASE).timestamp()),
                )
                appended.append(message)
            connection.execute(
                "UPDATE conversations SET messages = ?, updated_at = ? WHERE id = ?", (position, stamp, conversation_id)
            )
            return replace(conversation, messages=position, updated_at=stamp), appended

        return await self._database.write(work)

    async def delete(self, user_id: str, conversation_id: str) -> None:
        """Delete a conversation with its messages."""
        due_at = (self._clock() + LEASE).timestamp()

        def work(connection: sqlite3.Connection) -> None:
            _owned(connection, user_id, conversation_id)
            connection.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))
            connection.execute(
                "INSERT INTO unforgotten_conversations (conversation_id, user_id, due_at) VALUES (?, ?, ?)",
                (conversation_id, user_id, due_at),
            )

        await self._database.write(work)

    async def take_unindexed(self, limit: int) -> list[Unindexed]:
        """Due messages, oldest first; they are the caller's alone for the length of a lease."""
        now = self._clock()

        def work(connection: sqlite3.Connection) -> list[Unindexed]:
            rows = connection.execute(
                "SELECT c.user_id, c.title, u.attempts, m.id, m.conversation_id, m.position, m.role, m.content,"
                " m.created_at"
                " FROM unindexed_messages u JOIN messages m ON m.id = u.message_id"
                " JOIN conversations c ON c.id = m.conversation_id WHERE u.due_at <= ? ORDER BY u.due_at LIMIT ?",
                (now.timestamp(), limit),
            ).fetchall()
            taken = [Unindexed(row[0], row[1], Message(*row[3:]), row[2] + 1) for row in rows]
            connection.executemany(
                "UPDATE unindexed_messages SET due_at = ?, attempts = ? WHERE message_id = ?",
                [((now + LEASE).timestamp(), item.attempts, item.message.id) for item in taken],
            )
            return taken

        return await self._database.write(work)

    async def take_unforgotten(self, limit: int) -> list[Unforgotten]:
        """Due deletions, oldest first; they are the caller's alone for the length of a lease."""
        now = self._clock()

        def work(connection: sqlite3.Connection) -> list[Unforgotten]:
            rows = connection.execute(
                "SELECT user_id, conversation_id, attempts + 1 FROM unforgotten_conversations"
                " WHERE due_at <= ? ORDER BY due_at LIMIT ?",
                (now.timestamp(), limit),
            ).fetchall()
            taken = [Unforgotten(*row) for row in rows]
            connection.executemany(
                "UPDATE unforgotten_conversations SET due_at = ?, attempts = ? WHERE conversation_id = ?",
                [((now + LEASE).timestamp(), item.attempts, item.conversation_id) for item in taken],
            )
            return taken

        return await self._database.write(work)

    async def anything_due(self) -> bool:
        """Whether search has to be told of anything now; a cheap look that takes no write lock."""
        now = self._clock().timestamp()

        def work(connection: sqlite3.Connection) -> bool:
            row = connection.execute(
                "SELECT EXISTS (SELECT 1 FROM unindexed_messages WHERE due_at <= ?)"
                " OR EXISTS (SELECT 1 FROM unforgotten_conversations WHERE due_at <= ?)",
                (now, now),
            ).fetchone()
            return bool(row[0])

        return await self._database.read(work)

    async def indexed(self, message_ids: Sequence[str]) -> None:
        """Search knows these messages now."""
        await self._run_many("DELETE FROM unindexed_messages WHERE message_id = ?", [(id_,) for id_ in message_ids])

    async def index_later(self, attempts: dict[str, int]) -> None:
        """Search could not be told; `attempts` (by message id) sets the pause before the next try."""
        await self._run_many(
            "UPDATE unindexed_messages SET due_at = ? WHERE message_id = ?",
            [(self._next_try(made), id_) for id_, made in attempts.items()],
        )

    async def forgotten(self, conversation_id: str) -> None:
        """Search has forgotten this conversation."""
        await self._run_many("DELETE FROM unforgotten_conversations WHERE conversation_id = ?", [(conversation_id,)])

    async def forget_later(self, conversation_id: str, attempts: int) -> None:
        await self._run_many(
            "UPDATE unforgotten_conversations SET due_at = ? WHERE conversation_id = ?",
            [(self._next_try(attempts), conversation_id)],
        )

    def _next_try(self, attempts: int) -> float:
        pause = min(timedelta(seconds=2 ** min(attempts, 10)), LONGEST_PAUSE)
        return (self._clock() + pause).timestamp()

    async def _run_many(self, statement: str, parameters: Sequence[tuple[object, ...]]) -> None:
        await self._database.write(lambda connection: connection.executemany(statement, parameters) and None)


def _owned(connection: sqlite3.Connection, user_id: str, conversation_id: str) -> Conversation:
    row = connection.execute(
        f"SELECT {_CONVERSATION} FROM conversations WHERE id = ? AND user_id = ?",
        (conversation_id, user_id),
    ).fetchone()
    if row is None:
        raise not_found("conversation")
    return Conversation(*row)


def _stamp(moment: datetime) -> str:
    """ISO 8601 of one fixed width, so that stamps sort as text."""
    return moment.isoformat(timespec="microseconds")


def _cursor(last: Conversation) -> str:
    return base64.urlsafe_b64encode(f"{last.updated_at} {last.id}".encode()).decode().rstrip("=")


def _read_cursor(cursor: str) -> tuple[str, str]:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
    except (binascii.Error, ValueError) as error:
        raise Problem(400, "The cursor is not one that a list gave.") from error
    updated_at, _, id_ = text.partition(" ")
    return updated_at, id_
