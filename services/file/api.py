"""Routes of the file service."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Path, Query, Response, UploadFile
from fastapi.responses import FileResponse

from services.access import SignedIn
from services.context import ServiceContext
from services.file.contents import Contents, too_large
from services.file.names import safe_name
from services.file.store import FileStore
from services.ids import new_id
from services.problems import not_found

MAX_FILE_BYTES = 10 << 20
FORM_OVERHEAD_BYTES = 16 << 10
"""What a multipart form adds around the file: boundaries, headers, a few small fields."""

MAX_PAGE = 100
DEFAULT_MEDIA_TYPE = "application/octet-stream"
_MEDIA_TYPE = re.compile(r"[a-z0-9][a-z0-9!#$&^_.+-]{0,60}/[a-z0-9][a-z0-9!#$&^_.+-]{0,60}")


class Files:
    """The file domain."""

    def __init__(self, context: ServiceContext) -> None:
        self.context = context
        self.store = FileStore(context.storage, context.clock)
        self.contents = Contents(context.storage.folder("files"), MAX_FILE_BYTES)
        self.count = context.telemetry.counter("files_total", "Files uploaded, downloaded, deleted", ["action"])

    @asynccontextmanager
    async def cleaning_up(self, _: object = None) -> AsyncIterator[None]:
        """At the start, remove what a crash left behind."""
        self.context.in_background(self._remove_abandoned(), "removing abandoned files")
        yield

    async def _remove_abandoned(self) -> None:
        loop = asyncio.get_running_loop()

        def known(ids: list[str]) -> set[str]:
            return asyncio.run_coroutine_threadsafe(self.store.known(ids), loop).result()

        await asyncio.to_thread(self.contents.remove_abandoned, known)


def router(context: ServiceContext) -> APIRouter:
    """`/api/files`: upload, list, describe, download, delete; each user sees their own only."""
    files = context.once(Files)
    store, contents = files.store, files.contents
    routes = APIRouter(prefix="/api/files", lifespan=files.cleaning_up)

    @routes.post("", status_code=201, max_body_size=MAX_FILE_BYTES + FORM_OVERHEAD_BYTES)
    async def upload(caller: SignedIn, file: UploadFile) -> dict[str, Any]:
        if file.size is not None and file.size > MAX_FILE_BYTES:
            raise too_large(MAX_FILE_BYTES)
        file_id = new_id()
        stored = await asyncio.to_thread(contents.write, file_id, file.file)
        try:
            record = await store.add(caller.user_id, file_id, safe_name(file.filename or ""), _media_type(file), stored)
        except BaseException:
            await asyncio.to_thread(contents.remove, file_id)
            raise
        files.count("upload")
        return asdict(record)

    @routes.get("")
    async def list_(
        caller: SignedIn,
        limit: Annotated[int, Query(ge=1, le=MAX_PAGE)] = 20,
        before: Annotated[str | None, Query(max_length=64)] = None,
    ) -> dict[str, Any]:
        page, next_before = await store.page(caller.user_id, limit, before)
        return {"files": [asdict(record) for record in page], "next_before": next_before}

    @routes.get("/{file_id}")
    async def describe(caller: SignedIn, file_id: Annotated[str, Path(max_length=64)]) -> dict[str, Any]:
        return asdict(await store.get(caller.user_id, file_id))

    @routes.get("/{file_id}/content")
    async def download(caller: SignedIn, file_id: Annotated[str, Path(max_length=64)]) -> Response:
        record = await store.get(caller.user_id, file_id)
        path = contents.path(record.id)
        try:
            stat = await asyncio.to_thread(path.stat)
        except FileNotFoundError as error:  # deleted between the two looks
            raise not_found("file") from error
        files.count("download")
        return FileResponse(
            path,
            media_type=record.media_type,
            stat_result=stat,
            headers={
                "content-disposition": f"attachment; filename*=UTF-8''{quote(record.name, safe='')}",
                "etag": f'"{record.sha256}"',
                "x-content-sha256": record.sha256,
                "x-content-type-options": "nosniff",
                "content-security-policy": "sandbox",
                "cache-control": "private, no-cache",
            },
        )

    @routes.delete("/{file_id}", status_code=204)
    async def delete(caller: SignedIn, file_id: Annotated[str, Path(max_length=64)]) -> Response:
        await store.remove(caller.user_id, file_id)
        await asyncio.to_thread(contents.remove, file_id)
        files.count("delete")
        return Response(status_code=204)

    return routes


def _media_type(file: UploadFile) -> str:
    """What the sender says it is, if that is a media type at all; parameters are dropped."""
    claimed = (file.content_type or "").partition(";")[0].strip().lower()
    return claimed if _MEDIA_TYPE.fullmatch(claimed) else DEFAULT_MEDIA_TYPE
