"""The full-text index: one row a document, found by words of its title and text, by its owner only."""

# ruff: noqa: S608  what is put into statements are constants of this file

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta

from control_plane.clock import Clock
from services.peers import Document
from services.search.query import match_expression, owner_token
from services.storage import Storage

MIGRATIONS = (
    """
    CREATE TABLE documents (
        number INTEGER PRIMARY KEY,
        user_id TEXT NOT NULL,
        id TEXT NOT NULL,
        kind TEXT NOT NULL,
        conversation_id TEXT,
        owner TEXT NOT NULL,  -- the user's id as one token of the index
        title TEXT NOT NULL,
        text TEXT NOT NULL,
        indexed_at TEXT NOT NULL,
        UNIQUE (user_id, id)
    );
    CREATE INDEX documents_of_conversation ON documents (conversation_id) WHERE conversation_id IS NOT NULL;
    CREATE VIRTUAL TABLE words USING fts5 (
        owner, title, text, content = 'documents', content_rowid = 'number', tokenize = 'unicode61 remove_diacritics 2'
    );
    CREATE TRIGGER documents_added AFTER INSERT ON documents BEGIN
        INSERT INTO words (rowid, owner, title, text) VALUES (new.number, new.owner, new.title, new.text);
    END;
    CREATE TRIGGER documents_removed AFTER DELETE ON documents BEGIN
        INSERT INTO words (words, rowid, owner, title, text)
        VALUES ('delete', old.number, old.owner, old.title, old.text);
    END;
    CREATE TRIGGER documents_changed AFTER UPDATE OF title, text ON documents BEGIN
        INSERT INTO words (words, rowid, owner, title, text)
        VALUES ('delete', old.number, old.owner, old.title, old.text);
        INSERT INTO words (rowid, owner, title, text) VALUES (new.number, new.owner, new.title, new.text);
    END;
    -- A message on its way when its conversation was deleted must not come back.
    CREATE TABLE forgotten (
        conversation_id TEXT NOT NULL,
        user_id TEXT NOT NULL,
        at REAL NOT NULL,  -- unix seconds
        PRIMARY KEY (conversation_id, user_id)
    ) WITHOUT ROWID;
    CREATE INDEX forgotten_at ON forgotten (at);
    """,
)

REMEMBER_FORGOTTEN = timedelta(hours=1)
"""How long a deleted conversation is kept out; far longer than a message can be on its way."""

TITLE_WEIGHT = 2.0
SNIPPET_WORDS = 16


@dataclass(frozen=True, slots=True)
class Hit:
    """A document that matches, best first. `snippet` is the passage of its text that fits best."""

    id: str
    kind: str
    title: str
    snippet: str
    conversation_id: str | None
    indexed_at: str


class SearchStore:
    """State of the domain."""

    def __init__(self, storage: Storage, clock: Clock) -> None:
        self._database = storage.database("search", MIGRATIONS)
        self._clock = clock

    async def index(self, user_id: str, documents: Sequence[Document]) -> int:
        """Make documents findable, and say how many: one of a known id replaces the old one.

        Those of a deleted conversation are left out.
        """
        now = self._clock().isoformat(timespec="microseconds")

        def work(connection: sqlite3.Connection) -> int:
            taken = 0
            for document in documents:
                cursor = connection.execute(
                    "INSERT INTO documents (user_id, id, kind, conversation_id, owner, title, text, indexed_at)"
                    " SELECT ?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8"
                    " WHERE NOT EXISTS (SELECT 1 FROM forgotten WHERE conversation_id = ?4 AND user_id = ?1)"
                    " ON CONFLICT (user_id, id) DO UPDATE"
                    " SET kind = ?3, conversation_id = ?4, title = ?6, text = ?7, indexed_at = ?8",
                    (
                        user_id,
                        document.id,
                        document.kind,
                        document.conversation_id,
                        owner_token(user_id),
                        document.title,
                        document.text,
                        now,
                    ),
                )
                taken += cursor.rowcount
            return taken

        return await self._database.write(work)

    async def forget(self, user_id: str, conversation_id: str) -> None:
        """Remove a conversation's documents, and refuse those that are still on their way."""
        now = self._clock()

        def work(connection: sqlite3.Connection) -> None:
            connection.execute(
                "DELETE FROM documents WHERE conversation_id = ? AND user_id = ?", (conversation_id, user_id)
            )
            connection.execute(
                "INSERT INTO forgotten (conversation_id, user_id, at) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
                (conversation_id, user_id, now.timestamp()),
            )
            connection.execute("DELETE FROM forgotten WHERE at < ?", ((now - REMEMBER_FORGOTTEN).timestamp(),))

        await self._database.write(work)

    async def search(self, user_id: str, text: str, limit: int, offset: int) -> list[Hit]:
        """What the user owns that matches, best first. Text with nothing to look for finds nothing."""
        expression = match_expression(text, user_id)
        if expression is None:
            return []

        def work(connection: sqlite3.Connection) -> list[Hit]:
            rows = connection.execute(
                f"SELECT d.id, d.kind, d.title, snippet(words, 2, '', '', '…', {SNIPPET_WORDS}), d.conversation_id,"
                " d.indexed_at FROM words JOIN documents d ON d.number = words.rowid WHERE words MATCH ?"
                f" ORDER BY bm25(words, 0.0, {TITLE_WEIGHT}, 1.0), d.number DESC LIMIT ? OFFSET ?",
                (expression, limit, offset),
            )
            return [Hit(*row) for row in rows]

        return await self._database.read(work)
