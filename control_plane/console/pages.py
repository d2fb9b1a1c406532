"""Pages for people. Each asks the host and renders; nothing is decided here."""

from __future__ import annotations

import json
import secrets
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Annotated, Any
from urllib.parse import quote

from fastapi import APIRouter, Form, HTTPException, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response, StreamingResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape
from markupsafe import Markup

from control_plane.clock import Monotonic
from control_plane.console import now, words
from control_plane.console.host import ConsoleHost, Login
from control_plane.console.security import COOKIE, LoginLimiter, login_of, safe_next
from control_plane.situation import Situation
from control_plane.slo.state import Interval, Kind, SloState, Verdict

HERE = Path(__file__).parent
WINDOWS = ("5m", "1h", "6h", "3d")
TIMELINE_LENGTH = 10


def _interval(value: Interval | None) -> str:
    """`99.93 %`, or the two ends where it is only known to lie between them."""
    if value is None:
        return "unknown"
    if value.lower == value.upper:
        return words.percent(value.estimate, 3)
    return f"{words.percent(value.lower, 2)} to {words.percent(value.upper, 2)}"


def _bar(state: SloState) -> float | None:
    if state.budget_remaining_ratio is None or state.verdict in (Verdict.UNKNOWN, Verdict.NO_TRAFFIC):
        return None
    return max(0.0, min(100.0, state.budget_remaining_ratio * 100))


def templates() -> Environment:
    """Escapes everything; an undefined name is an error, not an empty string."""
    environment = Environment(
        loader=FileSystemLoader(HERE / "templates"),
        autoescape=select_autoescape(default=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "clock": words.clock_time,
        "percent": words.percent,
        "burn": words.burn,
        "interval": _interval,
        "bar": _bar,
    }
    environment.globals["asset_version"] = secrets.token_hex(4)  # a new process may bring new assets
    return environment


class SignInFirst(Exception):
    """Raised by a page that needs a person."""

    def __init__(self, path: str) -> None:
        self.path = path


def sign_in_first(_: Request, error: Exception) -> Response:
    """Sends a person without a session to the login form, and back afterwards."""
    path = error.path if isinstance(error, SignInFirst) else "/"
    return RedirectResponse(f"/login?next={quote(path)}", 303)


class LivePage:
    """Renders the live part of the first page once a situation, however many consoles are open."""

    def __init__(self, host: ConsoleHost, environment: Environment) -> None:
        self._host = host
        self._template = environment.get_template("now_live.html")
        self._of: Situation | None = None
        self._html = ""

    async def html(self, situation: Situation) -> str:
        if self._of is not situation:
            page = now.now_page(situation, await self._host.moments(TIMELINE_LENGTH))
            self._html = self._template.render(page=page, columns=now.COLUMNS)
            self._of = situation
        return self._html


def as_event(name: str, data: str) -> bytes:
    """One server-sent event; each line of data gets its own field, as the format wants."""
    lines = "".join(f"data: {line}\n" for line in data.splitlines())
    return f"event: {name}\n{lines}\n".encode()


def router(host: ConsoleHost, monotonic: Monotonic) -> APIRouter:
    """Every page."""
    environment = templates()
    live = LivePage(host, environment)
    limiter = LoginLimiter(monotonic)
    routes = APIRouter(default_response_class=HTMLResponse, include_in_schema=False)

    def render(template: str, login: Login | None, section: str = "", status: int = 200, **values: Any) -> HTMLResponse:
        situation = host.situation()
        html = environment.get_template(template).render(
            user=login.username if login else None,
            csrf=login.csrf if login else "",
            environment=host.environment,
            as_of=situation.at if situation else None,
            section=section,
            **values,
        )
        return HTMLResponse(html, status)

    async def person(request: Request) -> Login:
        login = await login_of(request, host)
        if login is None:
            raise SignInFirst(request.url.path)
        return login

    @routes.get("/login")
    async def login_form(request: Request, next: str = "/") -> Response:
        if await login_of(request, host) is not None:
            return RedirectResponse(safe_next(next), 303)
        return render("login.html", None, problem=None, username="", next=safe_next(next))

    @routes.post("/login")
    async def sign_in(
        request: Request,
        username: Annotated[str, Form(max_length=100)] = "",
        password: Annotated[str, Form(max_length=1000)] = "",
        next: Annotated[str, Form()] = "/",
    ) -> Response:
        key = f"{username}@{request.client.host if request.client else ''}"
        wait = limiter.wait_seconds(key)
        if wait > 0:
            problem = f"Too many wrong passwords. Try again in {wait:.0f} s."
            response = render("login.html", None, status=429, problem=problem, username=username, next=safe_next(next))
            response.headers["Retry-After"] = f"{wait:.0f}"
            return response
        token = await host.accounts.sign_in(username, password)
        if token is None:
            limiter.failed(key)
            problem = "That name and password do not match."
            return render("login.html", None, status=401, problem=problem, username=username, next=safe_next(next))
        limiter.succeeded(key)
        answer = RedirectResponse(safe_next(next), 303)
        answer.set_cookie(COOKIE, token, httponly=True, samesite="strict", secure=host.secure_cookies, path="/")
        return answer

    @routes.post("/logout")
    async def sign_out(request: Request, csrf: Annotated[str, Form()] = "") -> Response:
        login = await person(request)
        if not secrets.compare_digest(csrf.encode(), login.csrf.encode()):
            raise HTTPException(403, "This form is from another session: reload the page and try again.")
        await host.accounts.sign_out(request.cookies[COOKIE])
        answer = RedirectResponse("/login", 303)
        answer.delete_cookie(COOKIE, path="/")
        return answer

    @routes.get("/")
    async def first_page(request: Request) -> Response:
        login = await person(request)
        situation = host.situation()
        if situation is None:
            text = "Backstay has just started and takes its first look within a few seconds. Reload this page."
            return render("problem.html", login, "/", title="Not yet", text=text)
        page = now.now_page(situation, await host.moments(TIMELINE_LENGTH))
        return render("now.html", login, "/", page=page, columns=now.COLUMNS)

    @routes.get("/events")
    async def events(request: Request) -> Response:
        if await login_of(request, host) is None:
            raise HTTPException(401, "Sign in first.")
        token = request.cookies[COOKIE]

        async def stream() -> AsyncIterator[bytes]:
            async for situation in host.situations():
                if await host.accounts.login_of(token) is None:  # signed out or expired while the page was open
                    yield as_event("bye", "signed out")
                    return
                yield as_event("now", await live.html(situation))

        return StreamingResponse(stream(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"})

    @routes.get("/slos")
    async def slos(request: Request, service: str | None = None) -> Response:
        login = await person(request)
        situation = host.situation()
        states = [s for s in (situation.states if situation else ()) if service in (None, s.service)]
        states.sort(key=lambda s: (s.kind is Kind.THROUGHPUT, now.SEVERITY[s.verdict], s.name))
        return render("slos.html", login, "/slos", states=states, service=service, windows=WINDOWS, signs=now.SIGN)

    @routes.get("/decisions")
    async def decisions(request: Request) -> Response:
        login = await person(request)
        return render("decisions.html", login, "/decisions", decisions=await host.decisions(200))

    @routes.get("/decisions/{decision_id}")
    async def decision(request: Request, decision_id: str) -> Response:
        login = await person(request)
        item = await host.decision(decision_id)
        if item is None:
            text = "No decision has this id. It may have been typed wrong, or be older than what is kept."
            return render("problem.html", login, "/decisions", 404, title="No such decision", text=text)
        evidence = json.dumps(item.evidence, indent=2, ensure_ascii=False, sort_keys=True)
        return render("decision.html", login, "/decisions", item=item, evidence=evidence)

    @routes.get("/runbooks")
    async def runbooks(request: Request) -> Response:
        return render("runbooks.html", await person(request), "/runbooks", names=host.runbook_names())

    @routes.get("/runbooks/{name}")
    async def runbook(request: Request, name: str) -> Response:
        login = await person(request)
        body = host.runbook(name)
        if body is None:
            text = f"There is no runbook named {name}. The list of runbooks has every page there is."
            return render("problem.html", login, "/runbooks", 404, title="No such runbook", text=text)
        return render("runbook.html", login, "/runbooks", name=name, body=Markup(body))  # noqa: S704 -- made safe by its renderer

    return routes
