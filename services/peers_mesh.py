"""The other services over HTTP: calls go to the mesh listener with the peer's name as Host, and obey the weights."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import orjson

from services.peers import ChatDelta, ChatRequest, Document, Introspection, NewMessage, Notice
from services.problems import CAUSE_HEADER, FAULT_HEADER, SHED_HEADER, Problem, not_found
from services.sse import parse
from services.telemetry import PeerCall, ServiceTelemetry
from services.tokens import Tokens

CONNECT_ATTEMPTS = 3
CONNECT_PAUSE_SECONDS = 0.05
CONNECT_TIMEOUT_SECONDS = 1.0
STREAM_SILENCE_SECONDS = 30.0
STATUSES_OF_OUR_MAKING = frozenset({401, 403})  # about our own service token: not the user's fault
PASSED_HEADERS = ("retry-after", "www-authenticate", SHED_HEADER, CAUSE_HEADER)


class MeshClient:
    """One pooled HTTP session for the whole process, made at its first call."""

    def __init__(self, base_url: str, timeout_seconds: float) -> None:
        self._base_url = base_url.rstrip("/")
        self._timeout_seconds = timeout_seconds
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session:
            await self._session.close()

    def _open(self) -> aiohttp.ClientSession:
        if self._session is None:
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(limit=256, keepalive_timeout=20),
                cookie_jar=aiohttp.DummyCookieJar(),
                trust_env=False,
                json_serialize=lambda value: orjson.dumps(value).decode(),
            )
        return self._session

    @asynccontextmanager
    async def call(
        self,
        telemetry: ServiceTelemetry,
        peer: str,
        method: str,
        path: str,
        *,
        route: str,
        token: str,
        body: Any = None,
        streams: bool = False,
        internal: bool = True,
    ) -> AsyncIterator[tuple[aiohttp.ClientResponse, PeerCall]]:
        """One call, counted and traced; yields a 2xx answer or raises a Problem. `route` is `path` without its ids.

        Only a failure to connect is tried again: then the request never left, so nothing happens twice.
        """
        timeout = aiohttp.ClientTimeout(
            total=None if streams else self._timeout_seconds,
            sock_connect=CONNECT_TIMEOUT_SECONDS,
            sock_read=STREAM_SILENCE_SECONDS if streams else None,
        )
        with telemetry.calling(peer, f"{method} {route}") as call:
            request_id = str(uuid.uuid4())
            headers = {**call.headers, "host": peer, "authorization": f"Bearer {token}", "x-request-id": request_id}
            if body is not None:
                headers["content-type"] = "application/json"
            data = orjson.dumps(body) if body is not None else None
            cause = {CAUSE_HEADER: request_id}
            try:
                response = await self._connect(method, f"{self._base_url}{path}", headers, data, timeout)
                async with response:
                    call.answered(response.status)
                    if response.status >= 400:
                        raise await _problem_of(peer, response, internal)
                    yield response, call
            except Problem as problem:
                problem.headers.setdefault(CAUSE_HEADER, request_id)  # unless the peer itself passed a failure on
                raise
            except TimeoutError as error:
                call.outcome = "timeout"
                raise Problem(504, f"{peer} did not answer in time.", headers=cause) from error
            except aiohttp.ClientConnectorError as error:
                call.outcome = "unreachable"
                raise Problem(
                    503, f"{peer} cannot be reached; try again.", headers={"retry-after": "1", **cause}
                ) from error
            except aiohttp.ClientError as error:
                call.outcome = "error"
                raise Problem(502, f"{peer} broke off its answer.", headers=cause) from error

    async def _connect(
        self, method: str, url: str, headers: dict[str, str], data: bytes | None, timeout: aiohttp.ClientTimeout
    ) -> aiohttp.ClientResponse:
        session = self._open()
        for attempt in range(1, CONNECT_ATTEMPTS + 1):
            try:
                return await session.request(
                    method, url, headers=headers, data=data, timeout=timeout, allow_redirects=False
                )
            except aiohttp.ClientConnectorError:
                if attempt == CONNECT_ATTEMPTS:
                    raise
                await asyncio.sleep(CONNECT_PAUSE_SECONDS * attempt)
        raise AssertionError("unreachable")


async def _problem_of(peer: str, response: aiohttp.ClientResponse, internal: bool) -> Problem:
    fault = response.headers.get(FAULT_HEADER)
    status = response.status
    headers = {name: response.headers[name] for name in PASSED_HEADERS if name in response.headers}
    if status in (429, 503):
        return Problem(status, f"{peer} is saturated or away; try again.", headers=headers, fault=fault)
    if status >= 500 or (internal and status in STATUSES_OF_OUR_MAKING):
        return Problem(502, f"{peer} failed.", fault=fault)
    try:
        detail = str((await response.json(content_type=None, loads=orjson.loads))["detail"])
    except (ValueError, KeyError, TypeError):
        detail = f"{peer} refused the request."
    return Problem(status, detail, headers=headers, fault=fault)


class MeshPeers:
    """Every peer of one service. One object serves all ports: they differ by name, not by state."""

    def __init__(self, client: MeshClient, telemetry: ServiceTelemetry, tokens: Tokens) -> None:
        self.identity = MeshIdentity(client, telemetry, tokens)
        self.conversations = MeshConversations(client, telemetry, tokens)
        self.search = MeshSearchIndex(client, telemetry, tokens)
        self.notifications = MeshNotifications(client, telemetry, tokens)
        self.completions = MeshCompletions(client, telemetry, tokens)


class _MeshPeer:
    peer: str

    def __init__(self, client: MeshClient, telemetry: ServiceTelemetry, tokens: Tokens) -> None:
        self._client = client
        self._telemetry = telemetry
        self._tokens = tokens

    async def _ask(self, user_id: str, method: str, path: str, *, route: str | None = None, body: Any = None) -> Any:
        """A JSON answer, asked for in the name of a user; None for an empty one."""
        token = self._tokens.acting_for(user_id, self._telemetry.service)
        async with self._client.call(
            self._telemetry, self.peer, method, path, route=route or path, token=token, body=body
        ) as (response, call):
            raw = await response.read()
            try:
                return orjson.loads(raw) if raw else None
            except ValueError as error:
                call.outcome = "error"
                raise Problem(502, f"{self.peer} gave an answer that cannot be read.") from error


class MeshIdentity(_MeshPeer):
    peer = "identity-service"

    async def introspect(self, token: str) -> Introspection:
        body = await self._ask("-", "POST", "/api/auth/introspect", body={"token": token})
        return Introspection(
            active=body["active"] is True,
            user_id=body.get("user_id"),
            email=body.get("email"),
            expires_at=body.get("expires_at"),
        )


class MeshConversations(_MeshPeer):
    peer = "conversation-service"

    async def append(self, user_id: str, conversation_id: str, messages: Sequence[NewMessage]) -> list[str]:
        body = {
            "messages": [
                {"role": m.role, "content": m.content, **({"id": m.id} if m.id is not None else {})} for m in messages
            ]
        }
        answer = await self._ask(
            user_id,
            "POST",
            f"/api/conversations/{_segment(conversation_id)}/messages",
            route="/api/conversations/{conversation_id}/messages",
            body=body,
        )
        return list(answer["ids"])


class MeshSearchIndex(_MeshPeer):
    peer = "search-service"

    async def index(self, user_id: str, documents: Sequence[Document]) -> None:
        body = {
            "documents": [
                {"id": d.id, "kind": d.kind, "title": d.title, "text": d.text, "conversation_id": d.conversation_id}
                for d in documents
            ]
        }
        await self._ask(user_id, "POST", "/api/search/documents", body=body)

    async def forget(self, user_id: str, conversation_id: str) -> None:
        await self._ask(
            user_id,
            "DELETE",
            f"/api/search/conversations/{_segment(conversation_id)}",
            route="/api/search/conversations/{conversation_id}",
        )


class MeshNotifications(_MeshPeer):
    peer = "notification-service"

    async def tell(self, user_id: str, notice: Notice) -> str:
        body = {
            "kind": notice.kind,
            "title": notice.title,
            "body": notice.body,
            "about": notice.about,
            "event_id": notice.event_id,
        }
        answer = await self._ask(user_id, "POST", "/api/notifications", body=body)
        return str(answer["id"])


class MeshCompletions(_MeshPeer):
    peer = "ai-gateway-service"

    async def stream(self, token: str, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        metadata = {"conversation_id": request.conversation_id, "exchange_id": request.exchange_id}
        body = {
            "model": request.model,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            "stream": True,
            "metadata": {key: value for key, value in metadata.items() if value is not None},
            **({"max_tokens": request.max_tokens} if request.max_tokens is not None else {}),
            **({"seed": request.seed} if request.seed is not None else {}),
        }
        path = "/v1/chat/completions"
        async with self._client.call(
            self._telemetry, self.peer, "POST", path, route=path, token=token, body=body, streams=True, internal=False
        ) as (response, call):
            call.outcome = "error"  # until the stream says that it is whole
            async for event in parse(response.content.iter_any()):
                if event.data == "[DONE]":
                    call.outcome = "ok"
                    return
                chunk = orjson.loads(event.data)
                if "error" in chunk:
                    cause = {CAUSE_HEADER: chunk["caused_by"]} if "caused_by" in chunk else None
                    raise Problem(502, f"{self.peer} broke off its answer.", headers=cause, fault=chunk.get("fault"))
                for choice in chunk.get("choices", ()):
                    text = choice.get("delta", {}).get("content") or ""
                    if text or choice.get("finish_reason"):
                        yield ChatDelta(text, choice.get("finish_reason"))
            raise Problem(502, f"{self.peer} broke off its answer.")


def _segment(identifier: str) -> str:
    """An id as one segment of a path. Whatever else a caller put there (`..`, a slash) names nothing of ours."""
    if not _IDENTIFIER.fullmatch(identifier):
        raise not_found("conversation")
    return identifier


_IDENTIFIER = re.compile(r"[A-Za-z0-9_-]{1,64}")
