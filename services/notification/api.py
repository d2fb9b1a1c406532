"""Routes of the notification service."""

from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query
from pydantic import BaseModel, Field

from services.access import SignedIn
from services.context import ServiceContext
from services.notification.store import NotificationStore
from services.peers import Notice
from services.problems import Problem

MAX_PAGE = 100
REMINDER = "reminder"
"""The one kind of entry that users write themselves, into their own inbox."""


class NewNotification(BaseModel):
    """An entry for the inbox of the user whom the token names."""

    kind: Annotated[str, Field(min_length=1, max_length=40, pattern=r"^[a-z][a-z0-9_.-]*$")]
    title: Annotated[str, Field(min_length=1, max_length=200)]
    body: Annotated[str, Field(max_length=5000)] = ""
    about: Annotated[str, Field(max_length=200)] | None = None
    event_id: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class Notifications:
    """The notification domain as its routes and its peers use it."""

    def __init__(self, context: ServiceContext) -> None:
        self.store = NotificationStore(context.storage, context.clock)
        self._count = context.telemetry.counter("notifications_told_total", "Notices put in inboxes", ["kind"])

    async def tell(self, user_id: str, notice: Notice) -> str:
        id_, is_new = await self.store.tell(user_id, notice)
        if is_new:
            self._count(notice.kind)
        return id_


def router(context: ServiceContext) -> APIRouter:
    """`/api/notifications`: the caller's inbox. Services put notices in, users read them and leave reminders."""
    domain = context.once(Notifications)
    store = domain.store
    routes = APIRouter(prefix="/api/notifications")

    @routes.post("", status_code=201)
    async def tell(caller: SignedIn, body: NewNotification) -> dict[str, Any]:
        if caller.service is None and body.kind != REMINDER:
            raise Problem(403, f"Users leave themselves entries of the kind {REMINDER!r} only.")
        return {"id": await domain.tell(caller.user_id, Notice(**body.model_dump()))}

    @routes.get("")
    async def list_(
        caller: SignedIn,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
        before: Annotated[str | None, Query(max_length=64)] = None,
        unread: bool = False,
    ) -> dict[str, Any]:
        page, next_before = await store.page(caller.user_id, limit, before, unread)
        return {"notifications": [asdict(entry) for entry in page], "next_before": next_before}

    @routes.get("/unread-count")
    async def unread_count(caller: SignedIn) -> dict[str, Any]:
        return {"unread": await store.unread(caller.user_id)}

    @routes.post("/read-all")
    async def read_all(caller: SignedIn) -> dict[str, Any]:
        return {"marked": await store.mark_all_read(caller.user_id)}

    @routes.post("/{notification_id}/read")
    async def read(caller: SignedIn, notification_id: Annotated[str, Path(max_length=64)]) -> dict[str, Any]:
        return asdict(await store.mark_read(caller.user_id, notification_id))

    return routes


def in_process(context: ServiceContext) -> Notifications:
    """What the monolith's other domains tell users through, without HTTP."""
    return context.once(Notifications)
