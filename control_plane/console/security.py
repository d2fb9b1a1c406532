"""Who is asking, and the headers that every answer carries."""

from __future__ import annotations

import hmac
from collections import OrderedDict
from dataclasses import dataclass, field

from fastapi import HTTPException, Request
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from control_plane.clock import Monotonic
from control_plane.console.host import ConsoleHost, Login

COOKIE = "backstay_session"

HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "X-Frame-Options": "DENY",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class SecurityHeaders:
    """Pure ASGI middleware: a strict policy on every answer, and no caching of what a login protects."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in HEADERS.items():
                    headers.setdefault(name, value)
                if not scope["path"].startswith("/static/"):
                    headers.setdefault("Cache-Control", "no-store")
            await send(message)

        await self._app(scope, receive, send_with_headers)


@dataclass
class LoginLimiter:
    """At most `attempts` failures per key in `period_seconds`; remembers a bounded number of keys."""

    now: Monotonic
    attempts: int = 5
    period_seconds: float = 60.0
    remembered: int = 10_000
    _failures: OrderedDict[str, list[float]] = field(default_factory=OrderedDict)

    def wait_seconds(self, key: str) -> float:
        """How long this key must wait; 0 when it may try."""
        recent = [at for at in self._failures.get(key, []) if self.now() - at < self.period_seconds]
        if len(recent) < self.attempts:
            return 0.0
        return self.period_seconds - (self.now() - recent[0])

    def failed(self, key: str) -> None:
        recent = [at for at in self._failures.pop(key, []) if self.now() - at < self.period_seconds]
        self._failures[key] = [*recent, self.now()][-self.attempts :]
        while len(self._failures) > self.remembered:
            self._failures.popitem(last=False)

    def succeeded(self, key: str) -> None:
        self._failures.pop(key, None)


async def login_of(request: Request, host: ConsoleHost) -> Login | None:
    """The signed-in person, if any."""
    token = request.cookies.get(COOKIE)
    return await host.accounts.login_of(token) if token else None


def is_local_program(request: Request, host: ConsoleHost) -> bool:
    """Whether the request carries the token of this machine's state folder."""
    sent = request.headers.get("authorization", "")
    if host.local_token is None or not sent.startswith("Bearer "):
        return False
    return hmac.compare_digest(sent.removeprefix("Bearer ").encode(), host.local_token.encode())


async def reader(request: Request, host: ConsoleHost) -> str:
    """Name of whoever may read; 401 otherwise."""
    if is_local_program(request, host):
        return "local program"
    login = await login_of(request, host)
    if login is None:
        raise HTTPException(401, "Sign in, or send the bearer token of the state folder.")
    return login.username


def commander(request: Request, host: ConsoleHost) -> str:
    """Name of whoever may change things through the API: for now programs with the token of the state folder."""
    if not is_local_program(request, host):
        raise HTTPException(401, "Changes need the bearer token of the state folder (run/token).")
    return request.headers.get("x-backstay-by", "command line")[:100]


def safe_next(path: str) -> str:
    """Where to go after signing in: a path of this console, never another site."""
    if not path.startswith("/") or path.startswith(("//", "/\\")) or any(ord(c) < 32 for c in path):
        return "/"
    return path
