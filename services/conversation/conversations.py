"""The conversation domain as its routes and its peers use it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress

from services.context import ServiceContext
from services.conversation.indexing import SearchRelay
from services.conversation.store import ConversationStore, Message
from services.peers import NewMessage


class Conversations:
    """Changes of conversations, each followed by word to search. Plain reads go to `store`."""

    def __init__(self, context: ServiceContext) -> None:
        self._context = context
        self.store = ConversationStore(context.storage, context.clock)
        self.relay = SearchRelay(self.store, context.peers.search)
        self._count_messages = context.telemetry.counter(
            "conversation_messages_total", "Messages appended to conversations", ["role"]
        )

    async def append(self, user_id: str, conversation_id: str, messages: Sequence[NewMessage]) -> list[str]:
        """Add messages in order, all or none, and give their ids. Search hears of them after the answer."""
        return [message.id for message in await self.add(user_id, conversation_id, messages)]

    async def add(self, user_id: str, conversation_id: str, messages: Sequence[NewMessage]) -> list[Message]:
        """The same, and gives the messages as they are kept."""
        conversation, appended = await self.store.append(user_id, conversation_id, messages)
        for message in appended:
            self._count_messages(message.role)
        self._context.in_background(
            self.relay.tell_appended(user_id, conversation, appended), "telling search of new messages"
        )
        return appended

    async def delete(self, user_id: str, conversation_id: str) -> None:
        """Delete a conversation with its messages; search forgets it after the answer."""
        await self.store.delete(user_id, conversation_id)
        self._context.in_background(
            self.relay.tell_deleted(user_id, conversation_id), "telling search of a deleted conversation"
        )

    @asynccontextmanager
    async def retrying(self, _: object = None) -> AsyncIterator[None]:
        """While the application runs, what search has not heard of is told again."""
        task = asyncio.create_task(self.relay.run())
        try:
            yield
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task


def conversations_of(context: ServiceContext) -> Conversations:
    """The one of this context."""
    return context.once(Conversations)
