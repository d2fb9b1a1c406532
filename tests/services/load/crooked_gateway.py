"""A gateway that misbehaves in every way a real one can, over a real socket."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from aiohttp.test_utils import TestServer

from services.load.gateway import Gateway
from services.load.settings import LoadSettings


@dataclass
class CrookedGateway:
    """`/v1/WAY` misbehaves in the way it names, and notes the headers it was sent, their names in small letters."""

    asked: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    release: asyncio.Event = field(default_factory=asyncio.Event)

    async def handle(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.path, {name.lower(): value for name, value in request.headers.items()}))
        way = request.path.rpartition("/")[2]
        return await getattr(self, way.replace("-", "_"), self.fine)(request)

    async def fine(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"answer": "sailing"}, headers={"x-request-id": request.headers["x-request-id"]})

    async def fault(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": "Broken."}, status=500, headers={"x-backstay-fault": "errors"})

    async def shed(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": "Full."}, status=503, headers={"x-librechat-shed": "slots"})

    async def overloaded(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="upstream connect error", status=503, headers={"x-envoy-overloaded": "true"})

    async def away(self, request: web.Request) -> web.StreamResponse:
        return web.Response(text="no healthy upstream", status=503)

    async def stranger(self, request: web.Request) -> web.StreamResponse:
        return web.json_response({"detail": "Sign in."}, status=401)

    async def silent(self, request: web.Request) -> web.StreamResponse:
        await self.release.wait()
        return await self.fine(request)

    async def reset(self, request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def half(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-length": "100"})
        await response.prepare(request)
        await response.write(b'{"answer"')
        assert request.transport is not None
        request.transport.close()
        return response

    async def stream(self, request: web.Request) -> web.StreamResponse:
        return await self._events(request, b'id: 1\ndata: {"n":1}\n\nid: 2\ndata: {"n":2}\n\ndata: [DONE]\n\n')

    async def stream_cut(self, request: web.Request) -> web.StreamResponse:
        return await self._events(request, b'id: 1\ndata: {"n":1}\n\n')

    async def stream_half_done(self, request: web.Request) -> web.StreamResponse:
        return await self._events(request, b'data: {"n":1}\n\ndata: [DONE]')

    async def stream_error(self, request: web.Request) -> web.StreamResponse:
        return await self._events(
            request, b'id: 1\ndata: {"n":1}\n\nevent: error\ndata: {"error":{"message":"Broken."},"fault":"errors"}\n\n'
        )

    async def stream_shed(self, request: web.Request) -> web.StreamResponse:
        return await self._events(request, b'event: error\ndata: {"message":"Full.","fault":null,"shed":true}\n\n')

    async def stream_reconnect(self, request: web.Request) -> web.StreamResponse:
        return await self._events(request, b'id: 7\ndata: {"n":1}\n\nevent: reconnect\ndata: {}\n\n')

    async def stream_silent(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"content-type": "text/event-stream"})
        await response.prepare(request)
        await response.write(b'id: 1\ndata: {"n":1}\n\n')
        await self.release.wait()
        return response

    async def _events(self, request: web.Request, content: bytes) -> web.StreamResponse:
        return web.Response(body=content, content_type="text/event-stream")


@asynccontextmanager
async def a_crooked_gateway(**settings: Any) -> AsyncIterator[tuple[CrookedGateway, Gateway]]:
    """The server, and our client of it; time-outs are short."""
    crooked = CrookedGateway()
    app = web.Application()
    app.router.add_route("*", "/{rest:.*}", crooked.handle)
    async with TestServer(app) as server:
        short = {"request_timeout_seconds": 1.0, "chat_timeout_seconds": 1.5, "stream_silence_seconds": 1.0}
        gateway = Gateway(LoadSettings(**{**short, "gateway_url": str(server.make_url("/")), **settings}))
        try:
            yield crooked, gateway
        finally:
            crooked.release.set()
            await gateway.close()
