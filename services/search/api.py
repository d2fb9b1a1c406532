"""Routes of the search service."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Path, Query, Response
from pydantic import BaseModel, Field

from services.access import FromService, SignedIn
from services.context import ServiceContext
from services.peers import Document
from services.search.store import SearchStore

MAX_PAGE = 50
MAX_OFFSET = 1000
MAX_DOCUMENTS = 100


class DocumentToIndex(BaseModel):
    """Text that its owner wants to find again."""

    id: Annotated[str, Field(min_length=1, max_length=64)]
    kind: Literal["message", "conversation", "file"]
    title: Annotated[str, Field(max_length=1000)]
    text: Annotated[str, Field(max_length=200_000)]
    conversation_id: Annotated[str, Field(min_length=1, max_length=64)] | None = None


class DocumentsToIndex(BaseModel):
    """Documents of one user; indexing them again changes nothing."""

    documents: Annotated[list[DocumentToIndex], Field(min_length=1, max_length=MAX_DOCUMENTS)]


class Search:
    """The search domain as its routes and its peers use it."""

    def __init__(self, context: ServiceContext) -> None:
        self.store = SearchStore(context.storage, context.clock)
        self._count_indexed = context.telemetry.counter(
            "search_documents_indexed_total", "Documents taken into the index"
        )
        self._count_searches = context.telemetry.counter(
            "searches_total", "Searches, by whether they found", ["outcome"]
        )

    async def index(self, user_id: str, documents: Sequence[Document]) -> None:
        taken = await self.store.index(user_id, documents)
        for _ in range(taken):
            self._count_indexed()

    async def forget(self, user_id: str, conversation_id: str) -> None:
        await self.store.forget(user_id, conversation_id)

    async def search(self, user_id: str, text: str, limit: int, offset: int) -> dict[str, Any]:
        hits = await self.store.search(user_id, text, limit, offset)
        self._count_searches("found" if hits else "nothing")
        return {"query": text, "results": [asdict(hit) for hit in hits]}


def router(context: ServiceContext) -> APIRouter:
    """`/api/search`: words to documents of the caller; `/documents` and `/conversations` are for services."""
    domain = context.once(Search)
    routes = APIRouter(prefix="/api/search")

    @routes.get("")
    async def search(
        caller: SignedIn,
        q: str = "",
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
        offset: Annotated[int, Query(ge=0, le=MAX_OFFSET)] = 0,
    ) -> dict[str, Any]:
        return await domain.search(caller.user_id, q, limit, offset)

    @routes.post("/documents", status_code=204)
    async def index(caller: FromService, body: DocumentsToIndex) -> Response:
        await domain.index(caller.user_id, [Document(**document.model_dump()) for document in body.documents])
        return Response(status_code=204)

    @routes.delete("/conversations/{conversation_id}", status_code=204)
    async def forget(caller: FromService, conversation_id: Annotated[str, Path(max_length=64)]) -> Response:
        await domain.forget(caller.user_id, conversation_id)
        return Response(status_code=204)

    return routes


def in_process(context: ServiceContext) -> Search:
    """What the monolith's other domains index through, without HTTP."""
    return context.once(Search)
