"""Builders for tests of single services: a real application on a temporary folder, with recorded peers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from services.app import Replica, build_app
from services.context import ServiceContext
from services.drain import Drain
from services.peers import ChatDelta, ChatRequest, Document, Introspection, NewMessage, Notice
from services.problems import Problem
from services.settings import SuiteSettings
from services.storage import SqliteStorage
from services.telemetry import Metrics, ServiceTelemetry, Tracing
from services.tokens import Tokens

ANA = "0190-ana"
BOB = "0190-bob"


@dataclass
class SettableClock:
    now: datetime = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now

    def advance(self, by: timedelta) -> None:
        self.now += by


@dataclass
class RecordedPeers:
    """Every peer in one: it notes what it was told, and fails with `problem` while that is set."""

    problem: Problem | None = None
    indexed: list[tuple[str, Document]] = field(default_factory=list)
    forgotten: list[tuple[str, str]] = field(default_factory=list)
    was_told: asyncio.Event = field(default_factory=asyncio.Event)  # set by the first index call that succeeds

    @property
    def identity(self) -> RecordedPeers:
        return self

    @property
    def conversations(self) -> RecordedPeers:
        return self

    @property
    def search(self) -> RecordedPeers:
        return self

    @property
    def notifications(self) -> RecordedPeers:
        return self

    @property
    def completions(self) -> RecordedPeers:
        return self

    async def introspect(self, token: str) -> Introspection:
        raise AssertionError("these services check tokens themselves")

    async def append(self, user_id: str, conversation_id: str, messages: Sequence[NewMessage]) -> list[str]:
        raise AssertionError("not in the call graph")

    async def tell(self, user_id: str, notice: Notice) -> str:
        raise AssertionError("not in the call graph")

    def stream(self, token: str, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        raise AssertionError("not in the call graph")

    async def index(self, user_id: str, documents: Sequence[Document]) -> None:
        if self.problem:
            raise self.problem
        self.indexed += [(user_id, document) for document in documents]
        self.was_told.set()

    async def forget(self, user_id: str, conversation_id: str) -> None:
        if self.problem:
            raise self.problem
        self.forgotten.append((user_id, conversation_id))


@dataclass
class Service:
    """A running service and the callers it may have."""

    context: ServiceContext
    replica: Replica
    peers: RecordedPeers
    clock: SettableClock
    http: httpx.AsyncClient

    async def as_user(self, user_id: str, method: str, path: str, **options: Any) -> httpx.Response:
        token = self.context.tokens.for_user(user_id, f"{user_id}@example.org")
        return await self.http.request(method, path, headers={"authorization": f"Bearer {token}"}, **options)

    async def as_service(self, user_id: str, method: str, path: str, **options: Any) -> httpx.Response:
        token = self.context.tokens.acting_for(user_id, "ai-gateway-service")
        return await self.http.request(method, path, headers={"authorization": f"Bearer {token}"}, **options)


def a_context(service: str, folder: Path, peers: RecordedPeers, clock: SettableClock) -> ServiceContext:
    settings = SuiteSettings(data_dir=folder)
    return ServiceContext(
        service=service,
        settings=settings,
        storage=SqliteStorage(folder),
        peers=peers,
        telemetry=ServiceTelemetry(service, Metrics(), Tracing(0, None, {})),
        tokens=Tokens(b"k" * 32, clock, "librechat-identity", "librechat", timedelta(minutes=60)),
        drain=Drain(),
        clock=clock,
    )


@asynccontextmanager
async def a_service(service: str, folder: Path, clock: SettableClock | None = None) -> AsyncIterator[Service]:
    """One replica of `service` on the state in `folder`; closed afterwards."""
    peers, clock = RecordedPeers(), clock or SettableClock()
    context = a_context(service, folder, peers, clock)

    def no_crash() -> None:
        raise AssertionError("no fault was set")

    replica = build_app(service, [context], crash=no_crash)
    transport = httpx.ASGITransport(app=replica, raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as http:
        try:
            yield Service(context, replica, peers, clock, http)
        finally:
            await context.finish_background(5)
            await context.storage.close()
