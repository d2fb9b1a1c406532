"""Routes of the streaming service: a chat whose reply survives broken connections, restarts and moves."""

from typing import Annotated

from fastapi import APIRouter, Header
from pydantic import BaseModel, Field
from starlette.responses import Response

from services.access import SignedIn
from services.chat_format import ChatBody
from services.context import ServiceContext
from services.problems import unauthorized
from services.sse import event_stream
from services.streaming.relay import Relay
from services.tokens import Caller


class Started(BaseModel):
    id: str
    url: Annotated[str, Field(description="Where to read the stream; send Last-Event-ID to go on after an event")]


def router(context: ServiceContext) -> APIRouter:
    """Start a stream, read it, read on."""
    relay = context.once(Relay)
    routes = APIRouter(tags=["streaming"])

    async def holds(caller: Caller) -> str:
        """The user's id, if identity says now that the token holds."""
        found = await context.peers.identity.introspect(caller.token)
        if not found.active or found.user_id is None:
            raise unauthorized()
        return found.user_id

    @routes.post("/api/streams", status_code=201)
    async def start(body: ChatBody, caller: SignedIn) -> Started:
        user_id = await holds(caller)
        stream_id = await relay.start(user_id, caller.token, body.request())
        return Started(id=stream_id, url=f"/api/streams/{stream_id}")

    @routes.get("/api/streams/{stream_id}")
    async def read(
        stream_id: str,
        caller: SignedIn,
        last_event_id: Annotated[int, Header(ge=0)] = 0,
    ) -> Response:
        user_id = await holds(caller)
        stream = await relay.find(stream_id, user_id)
        return await event_stream(relay.read(stream, caller.token, last_event_id))

    return routes
