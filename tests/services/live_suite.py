"""The whole suite on real sockets: seven replicas and a monolith on one folder, behind a stand-in for the mesh."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
import uvicorn
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from starlette.types import Receive, Scope, Send

from control_plane.topology import SERVICES
from services.app import Replica, build_app
from services.context import ServiceContext
from services.settings import SuiteSettings
from services.telemetry import ROUTE_PREFIXES, Metrics, Tracing
from services.wiring import Wired, wire

QUICK_PROVIDERS = """
providers:
  - {name: builtin, kind: builtin, model: librechat-1, first_token_median: 20ms, token_interval: 1ms}
  - {name: builtin-small, kind: builtin, model: librechat-1-small, first_token_median: 10ms, token_interval: 1ms}
"""


T = TypeVar("T")


class QuietServer(uvicorn.Server):
    """Leaves the test process's signal handlers alone."""

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class OnDemand(dict[str, T]):
    """Makes what is asked for when it is first asked for: most tests need few of the eight deployments."""

    def __init__(self, make: Callable[[str], T]) -> None:
        super().__init__()
        self._make = make

    def __missing__(self, key: str) -> T:
        self[key] = made = self._make(key)
        return made


@dataclass
class Crowd:
    """Every replica, by deployment; requests find theirs by Host (mesh), by pin, or by path (gateway)."""

    replicas: OnDemand[Replica]
    away: set[str] = field(default_factory=set)  # deployments that answer as Envoy does without a healthy host
    asked: list[str] = field(default_factory=list)  # mesh calls, as "host method path"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = dict(scope["headers"])
        host = headers.get(b"host", b"").decode()
        deployment = host if host in SERVICES else None
        if deployment:
            self.asked.append(f"{host} {scope['method']} {scope['path']}")
        elif pin := headers.get(b"x-pin"):
            deployment = pin.decode()
        else:
            deployment = next(s for prefix, s in ROUTE_PREFIXES.items() if scope["path"].startswith(prefix))
        if deployment in self.away:
            await send({"type": "http.response.start", "status": 503, "headers": []})
            await send({"type": "http.response.body", "body": b"no healthy upstream"})
            return
        await self.replicas[deployment](scope, receive, send)


@dataclass
class LiveSuite:
    crowd: Crowd
    http: httpx.AsyncClient
    wired: OnDemand[Wired]
    spans: InMemorySpanExporter

    def start(self, *deployments: str) -> None:
        """Have these deployments run now; others start when they are first asked."""
        for deployment in deployments:
            self.crowd.replicas[deployment]

    def context(self, deployment: str) -> ServiceContext:
        return self.wired[deployment].contexts[0]

    def sample(self, deployment: str, name: str, **labels: str) -> float:
        """A metric's value on one replica, 0 when nothing was counted."""
        return self.wired[deployment].metrics.registry.get_sample_value(name, labels) or 0.0

    async def a_user(self, email: str = "ana@example.org", **pin: str) -> dict[str, str]:
        """Register and sign in; the headers of a signed-in user."""
        body = {"email": email, "password": "correct horse"}
        (await self.http.post("/api/auth/register", json=body)).raise_for_status()
        answer = await self.http.post("/api/auth/login", json=body)
        return {"authorization": f"Bearer {answer.raise_for_status().json()['access_token']}"}

    async def a_conversation(self, headers: dict[str, str]) -> str:
        answer = await self.http.post("/api/conversations", json={"title": "Sailing"}, headers=headers)
        return str(answer.raise_for_status().json()["id"])

    async def messages(self, conversation_id: str, headers: dict[str, str]) -> list[tuple[str, str]]:
        answer = await self.http.get(f"/api/conversations/{conversation_id}/messages", headers=headers)
        return [(m["role"], m["content"]) for m in answer.raise_for_status().json()["messages"]]


def a_chat(conversation_id: str | None = None, **changes: Any) -> dict[str, Any]:
    """A chat's body; each test states only what it is about."""
    body: dict[str, Any] = {"messages": [{"role": "user", "content": "How do I plan a sailing trip?"}], **changes}
    if conversation_id:
        body["metadata"] = {**body.get("metadata", {}), "conversation_id": conversation_id}
    return body


@asynccontextmanager
async def a_live_suite(folder: Path, **settings: Any) -> AsyncIterator[LiveSuite]:
    config = folder / "ai-gateway.yaml"
    if not config.exists():
        config.write_text(QUICK_PROVIDERS)
    spans = InMemorySpanExporter()

    def make_wired(deployment: str) -> Wired:
        values = {
            "data_dir": folder / "data",
            "mesh_url": url,
            "ai_gateway_config": config,
            "peer_timeout_seconds": 2,
            "drain_seconds": 2,
        }
        tracing = Tracing(1.0, SimpleSpanProcessor(spans), {"deployment.name": deployment})
        return wire(deployment, SuiteSettings(**{**values, **settings}), metrics=Metrics(), tracing=tracing)

    wired = OnDemand(make_wired)
    replicas = OnDemand(lambda name: build_app(name, wired[name].contexts, crash=lambda: None))
    crowd = Crowd(replicas)
    # verify=False: nothing here speaks TLS, and loading the world's certificates takes longer than most tests
    async with serving(crowd) as url, httpx.AsyncClient(base_url=url, timeout=20, verify=False) as http:  # noqa: S501
        try:
            yield LiveSuite(crowd, http, wired, spans)
        finally:
            while wired:  # what one finishes in the background may be the first to ask another
                each = wired.pop(next(iter(wired)))
                for context in each.contexts:
                    await context.close()
                await each.closing.aclose()


@asynccontextmanager
async def serving(app: Any) -> AsyncIterator[str]:
    """A server on a free port of loopback, and its URL."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    server = QuietServer(uvicorn.Config(app, http="httptools", ws="none", lifespan="off", log_config=None))
    server.config.timeout_graceful_shutdown = 2
    task = asyncio.create_task(server.serve(sockets=[listener]))
    try:
        while not server.started:  # noqa: ASYNC110  uvicorn offers no event
            await asyncio.sleep(0.01)
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        server.should_exit = True
        with contextlib.suppress(asyncio.CancelledError):
            await task
