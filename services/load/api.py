"""The load API: what became of requests, extra load, checks and markers. Loopback, and guarded by the stack's token."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import orjson
from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.load import markers
from services.load.gateway import Gateway, StepFailed
from services.load.journeys import CHECKS
from services.load.recorder import Recorder
from services.load.traffic import EXTRA, Traffic
from services.load.users import Accounts

log = logging.getLogger(__name__)

Body = TypeVar("Body", bound=BaseModel)


class ExtraLoadOrder(BaseModel):
    """Requests of one service, on top of the demo's."""

    model_config = ConfigDict(extra="forbid")

    rate_per_second: Annotated[float, Field(gt=0, le=500)]
    seconds: Annotated[float, Field(gt=0, le=600)]


class JourneysOrder(BaseModel):
    """Journeys that check a service. `backend` null follows the weights."""

    model_config = ConfigDict(extra="forbid")

    service: str
    backend: Literal["service", "monolith"] | None = None
    count: Annotated[int, Field(ge=1, le=500)]
    timeout_seconds: Annotated[float, Field(gt=0, le=300)]


class MarkersToRead(BaseModel):
    model_config = ConfigDict(extra="forbid")

    token: Annotated[str, Field(max_length=10_000)]


class LoadApi:
    """Handlers over the parts that do the work."""

    def __init__(
        self, gateway: Gateway, recorder: Recorder, accounts: Accounts, traffic: Traffic, token_file: Path
    ) -> None:
        self._gateway = gateway
        self._recorder = recorder
        self._accounts = accounts
        self._traffic = traffic
        self._token_file = token_file

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=1 << 16)
        app.add_routes(
            [
                web.get("/health", self._health),
                web.get("/v1/outcomes", self._outcomes),
                web.get("/v1/extra-load", self._extra_load),
                web.put("/v1/extra-load/{service}", self._add_extra_load),
                web.delete("/v1/extra-load/{service}", self._remove_extra_load),
                web.post("/v1/journeys", self._journeys),
                web.post("/v1/markers/write", self._write_markers),
                web.post("/v1/markers/read", self._read_markers),
            ]
        )
        return app

    @web.middleware
    async def _guard(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        """Lets in who knows the token, and makes every refusal `{"error": "a sentence"}`."""
        try:
            if request.path != "/health" and not self._knows_token(request):
                return _json({"error": "The bearer token is missing or wrong; it is in .backstay/run/token."}, 401)
            return await handler(request)
        except _Refused as refused:
            return _json({"error": str(refused)}, refused.status)
        except web.HTTPException as error:
            return _json({"error": f"{error.reason}: {request.method} {request.path}"}, error.status)
        except Exception:  # the outer turn of one request
            log.exception("%s %s failed", request.method, request.path)
            return _json({"error": "The load generator failed; it was logged."}, 500)

    def _knows_token(self, request: web.Request) -> bool:
        scheme, _, shown = request.headers.get("authorization", "").partition(" ")
        known = read_token(self._token_file)
        return scheme.lower() == "bearer" and bool(known) and hmac.compare_digest(shown.encode(), known.encode())

    async def _health(self, _: web.Request) -> web.Response:
        return _json({"status": "ok", "accounts": len(self._accounts)})

    async def _outcomes(self, request: web.Request) -> web.Response:
        since, until = _seconds(request, "since"), _seconds(request, "until")
        return _json(self._recorder.outcomes(since, until))

    async def _extra_load(self, _: web.Request) -> web.Response:
        return _json({service: asdict(extra) for service, extra in self._traffic.extra.items()})

    async def _add_extra_load(self, request: web.Request) -> web.Response:
        service = _named(request.match_info["service"], EXTRA)
        order = await _body(request, ExtraLoadOrder)
        return _json(asdict(self._traffic.add_extra(service, order.rate_per_second, order.seconds)))

    async def _remove_extra_load(self, request: web.Request) -> web.Response:
        return _json({"removed": self._traffic.remove_extra(_named(request.match_info["service"], EXTRA))})

    async def _journeys(self, request: web.Request) -> web.Response:
        order = await _body(request, JourneysOrder)
        service = _named(order.service, CHECKS)
        token = read_token(self._token_file)
        result = await self._traffic.check(service, order.count, order.timeout_seconds, order.backend, token)
        return _json(asdict(result))

    async def _write_markers(self, _: web.Request) -> web.Response:
        try:
            written = await markers.write(self._gateway)
        except StepFailed as failure:
            raise _Refused(502, f"The markers could not be written: {failure}") from failure
        return _json({"token": written.token()})

    async def _read_markers(self, request: web.Request) -> web.Response:
        order = await _body(request, MarkersToRead)
        try:
            written = markers.Markers.of(order.token)
        except ValueError as error:
            raise _Refused(422, str(error)) from error
        return _json({"missing": await markers.missing(self._gateway, written)})


class _Refused(Exception):
    """A request that is answered with a sentence."""

    def __init__(self, status: int, sentence: str) -> None:
        super().__init__(sentence)
        self.status = status


def read_token(path: Path) -> str:
    """The token in force; empty while there is none, and then nobody is let in."""
    try:
        return path.read_text().strip()
    except OSError:
        return ""


def _json(value: Any, status: int = 200) -> web.Response:
    return web.Response(body=orjson.dumps(value), status=status, content_type="application/json")


def _named(service: str, known: Any) -> str:
    if service not in known:
        raise _Refused(404, f"There is no service {service!r} here; there are {', '.join(known)}.")
    return service


def _seconds(request: web.Request, name: str) -> float | None:
    text = request.query.get(name)
    if text is None:
        return None
    try:
        seconds = float(text)
    except ValueError:
        seconds = float("nan")
    if not 0 <= seconds < 1e11:
        raise _Refused(422, f"{name} is a time in unix seconds, not {text[:50]!r}.")
    return seconds


async def _body(request: web.Request, kind: type[Body]) -> Body:
    try:
        return kind.model_validate_json(await request.read())
    except ValidationError as error:
        findings = "; ".join(f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()[:3])
        raise _Refused(422, findings) from error
