"""Routes of the conversation service."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, ConfigDict, Field

from services.access import SignedIn
from services.context import ServiceContext
from services.conversation.conversations import Conversations, conversations_of
from services.peers import NewMessage, Role
from services.problems import Problem

MAX_TITLE = 200
MAX_CONTENT = 100_000
MAX_MESSAGES = 50
MAX_PAGE = 100

Id = Annotated[str, Field(min_length=1, max_length=64, pattern=r"^[A-Za-z0-9_.:-]+$")]
ConversationId = Annotated[str, Path(max_length=64)]


class NewConversation(BaseModel):
    """A conversation to open."""

    model_config = ConfigDict(str_strip_whitespace=True)

    title: Annotated[str, Field(min_length=1, max_length=MAX_TITLE)] = "New chat"


class MessageToAppend(BaseModel):
    """A message; `id` makes a repeated request harmless."""

    role: Role = "user"
    content: Annotated[str, Field(min_length=1, max_length=MAX_CONTENT)]
    id: Id | None = None


class MessagesToAppend(BaseModel):
    """Messages that join a conversation together or not at all."""

    messages: Annotated[list[MessageToAppend], Field(min_length=1, max_length=MAX_MESSAGES)]


def router(context: ServiceContext) -> APIRouter:
    """`/api/conversations`: open, list, read, append, delete; each user sees their own only."""
    conversations = conversations_of(context)
    store = conversations.store
    routes = APIRouter(prefix="/api/conversations", lifespan=conversations.retrying)

    @routes.post("", status_code=201)
    async def create(caller: SignedIn, body: NewConversation) -> dict[str, Any]:
        return asdict(await store.create(caller.user_id, body.title))

    @routes.get("")
    async def list_(
        caller: SignedIn,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
        cursor: Annotated[str | None, Query(max_length=200)] = None,
    ) -> dict[str, Any]:
        page, next_cursor = await store.page(caller.user_id, limit, cursor)
        return {"conversations": [asdict(conversation) for conversation in page], "next_cursor": next_cursor}

    @routes.get("/{conversation_id}")
    async def read(caller: SignedIn, conversation_id: ConversationId) -> dict[str, Any]:
        return asdict(await store.get(caller.user_id, conversation_id))

    @routes.delete("/{conversation_id}", status_code=204)
    async def delete(caller: SignedIn, conversation_id: ConversationId) -> Response:
        await conversations.delete(caller.user_id, conversation_id)
        return Response(status_code=204)

    @routes.get("/{conversation_id}/messages")
    async def messages(
        caller: SignedIn,
        conversation_id: ConversationId,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 50,
        after: Annotated[int, Query(ge=0, le=2**62)] = 0,
    ) -> dict[str, Any]:
        page, next_after = await store.messages(caller.user_id, conversation_id, limit, after)
        return {"messages": [asdict(message) for message in page], "next_after": next_after}

    @routes.post("/{conversation_id}/messages", status_code=201)
    async def append(caller: SignedIn, conversation_id: ConversationId, body: MessagesToAppend) -> dict[str, Any]:
        if caller.service is None and any(message.role != "user" for message in body.messages):
            raise Problem(403, "Only services of the suite may write in another voice than the user's.")
        new = [NewMessage(message.role, message.content, message.id) for message in body.messages]
        appended = await conversations.add(caller.user_id, conversation_id, new)
        return {"ids": [message.id for message in appended], "messages": [asdict(message) for message in appended]}

    return routes


def in_process(context: ServiceContext) -> Conversations:
    """What the monolith's other domains append through, without HTTP."""
    return conversations_of(context)
