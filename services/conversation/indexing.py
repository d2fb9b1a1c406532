"""Tells search what was written and what was deleted, at once where it can, later where it must.

The store remembers what search has yet to hear of, in the transaction that caused it. So search may be down, slow or
moving: no append fails for it, and nothing stays unfindable.
"""

from __future__ import annotations

import asyncio
import logging
from collections import defaultdict
from collections.abc import Sequence

from services.conversation.store import Conversation, ConversationStore, Message, Unindexed
from services.peers import Document, SearchIndex
from services.problems import Problem

log = logging.getLogger(__name__)

LOOK_EVERY_SECONDS = 2.0
BATCH = 50
_TRANSIENT = frozenset({401, 403, 404, 408, 425, 429})
"""Refusals that say something of the moment or of the route (a peer half started, say), not of the text."""


class SearchRelay:
    """Delivers at least once; search takes a repeated document as the same one."""

    def __init__(self, store: ConversationStore, search: SearchIndex) -> None:
        self._store = store
        self._search = search

    async def tell_appended(self, user_id: str, conversation: Conversation, messages: Sequence[Message]) -> None:
        """First try, right after the append. What fails here is tried again by `run`, in any replica."""
        await self._index(user_id, [Unindexed(user_id, conversation.title, message, 1) for message in messages])

    async def tell_deleted(self, user_id: str, conversation_id: str) -> None:
        """First try, right after the deletion."""
        await self._forget(user_id, conversation_id, attempts=1)

    async def run(self) -> None:
        """Until cancelled: look for what is due, and tell search of it."""
        while True:
            await asyncio.sleep(LOOK_EVERY_SECONDS)
            try:
                while await self._store.anything_due() and await self.tell_due():
                    pass
            except Exception as error:  # noqa: BLE001  the outer turn of this loop
                log.warning("could not look for messages to index: %s", error)

    async def tell_due(self) -> bool:
        """Tell search of one batch of what is due. False when it took none: then leave it alone for a while."""
        by_user: dict[str, list[Unindexed]] = defaultdict(list)
        for item in await self._store.take_unindexed(BATCH):
            by_user[item.user_id].append(item)
        told = [await self._index(user_id, items) for user_id, items in by_user.items()]
        told += [
            await self._forget(item.user_id, item.conversation_id, item.attempts)
            for item in await self._store.take_unforgotten(BATCH)
        ]
        return any(told)

    async def _index(self, user_id: str, items: Sequence[Unindexed]) -> bool:
        documents = [_document(item) for item in items]
        try:
            await self._search.index(user_id, documents)
        except Problem as problem:
            if _is_final(problem):
                log.error("search refuses %d messages for good: %s", len(items), problem.detail)
            else:
                await self._store.index_later({item.message.id: item.attempts for item in items})
                return False
        await self._store.indexed([item.message.id for item in items])
        return True

    async def _forget(self, user_id: str, conversation_id: str, attempts: int) -> bool:
        try:
            await self._search.forget(user_id, conversation_id)
        except Problem as problem:
            if not _is_final(problem):
                await self._store.forget_later(conversation_id, attempts)
                return False
            log.error("search refuses to forget a conversation for good: %s", problem.detail)
        await self._store.forgotten(conversation_id)
        return True


def _document(item: Unindexed) -> Document:
    message = item.message
    return Document(message.id, "message", item.conversation_title, message.content, message.conversation_id)


def _is_final(problem: Problem) -> bool:
    """Whether trying again is pointless: search understood what it was sent, and does not want it."""
    return 400 <= problem.status < 500 and problem.status not in _TRANSIENT
