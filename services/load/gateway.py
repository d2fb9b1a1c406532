"""Requests of users to the gateway: each one sent, judged by what came back, and recorded."""

from __future__ import annotations

import time
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeVar

import aiohttp
import orjson

from services.load.recorder import Failure, Kind, Recorder
from services.load.settings import LoadSettings
from services.problems import CAUSE_HEADER, FAULT_HEADER, SHED_HEADER
from services.sse import Event, parse

USER_AGENT = "backstay-journeys/1"
CONNECT_TIMEOUT_SECONDS = 5.0
_SERVICES: Mapping[str, str] = {
    "/api/auth": "identity-service",
    "/api/users": "identity-service",
    "/api/conversations": "conversation-service",
    "/v1/": "ai-gateway-service",
    "/api/files": "file-service",
    "/api/search": "search-service",
    "/api/notifications": "notification-service",
    "/api/streams": "streaming-service",
}


def service_of(path: str) -> str:
    """The service that a path of the gateway leads to."""
    return next(service for prefix, service in _SERVICES.items() if path.startswith(prefix))


@dataclass(frozen=True, slots=True)
class Pin:
    """Sends the requests of one service to one backend, whatever the weights."""

    service: str
    backend: str  # "service" or "monolith"
    token: str = field(repr=False)


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer, read to its end."""

    status: int
    headers: Mapping[str, str]
    content: bytes

    def json(self) -> Any:
        return orjson.loads(self.content)


@dataclass(frozen=True, slots=True)
class EventStream:
    """What was read of an event stream."""

    events: tuple[Event, ...]
    done: bool  # it said that it is complete: `[DONE]`, or an event `done`
    reconnect: bool  # its replica is about to stop: come back with the last id

    @property
    def last_id(self) -> str | None:
        return next((event.id for event in reversed(self.events) if event.id is not None), None)


Answer = TypeVar("Answer", Reply, EventStream)
Check = Callable[[Reply], str | None]
"""What is wrong with an answer, in a sentence; None: nothing. A KeyError, TypeError or ValueError is wrong too."""


def has(field: str) -> Check:
    """A check that a JSON answer has something in `field`."""
    return lambda reply: None if reply.json()[field] else f"{field} is empty"


class StepFailed(Exception):
    """A request failed, was recorded, and ends its journey. The message is one plain sentence."""

    def __init__(self, failure: Failure) -> None:
        status = "" if failure.status is None else f" {failure.status}"
        marker = f", injected fault: {failure.fault}" if failure.fault else ""
        super().__init__(
            f"{failure.journey}, {failure.step}: {failure.method} {failure.path}: {failure.kind}{status}"
            f" {failure.detail} (request {failure.request_id}{marker})"
        )
        self.failure = failure


class Gateway:
    """One pooled HTTP session. The pool has no limit: waiting for a connection would slow arrivals down."""

    def __init__(self, settings: LoadSettings) -> None:
        self.settings = settings
        self._base = settings.gateway_url.rstrip("/")
        self.session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, keepalive_timeout=60),
            cookie_jar=aiohttp.DummyCookieJar(),
            trust_env=False,
            headers={"user-agent": USER_AGENT},
        )

    def url(self, path: str) -> str:
        return self._base + path

    async def close(self) -> None:
        await self.session.close()


class Visit:
    """The requests of one journey of one user, in order.

    `recorder` None keeps them out of the numbers: for journeys that check the stack rather than use it.
    A request that we cut short ourselves (cancelled) is not recorded at all.
    """

    def __init__(
        self,
        gateway: Gateway,
        recorder: Recorder | None,
        journey: str,
        *,
        due: float | None = None,
        pin: Pin | None = None,
    ) -> None:
        self._gateway = gateway
        self._recorder = recorder
        self._journey = journey
        self._due = due  # monotonic; the first request's latency counts from then, not from when we got round to it
        self._pin = pin
        self.token: str | None = None

    async def call(
        self,
        step: str,
        method: str,
        path: str,
        *,
        json: Any = None,
        form: Callable[[], aiohttp.FormData] | None = None,
        expect: int | tuple[int, ...] = 200,
        check: Check | None = None,
        patient: bool = False,
    ) -> Reply:
        """One request. Raises StepFailed unless the status is the expected one and `check` finds nothing wrong.

        `patient`: the answer waits for a model, so it may take longer.
        """
        attempt = _Attempt(self, step, method, path)
        settings = self._gateway.settings
        seconds = settings.chat_timeout_seconds if patient else settings.request_timeout_seconds
        expected = (expect,) if isinstance(expect, int) else expect
        async with attempt.judging():
            timeout = aiohttp.ClientTimeout(total=seconds, sock_connect=CONNECT_TIMEOUT_SECONDS)
            async with attempt.send(json, form() if form else None, timeout, {}) as response:
                reply = Reply(response.status, response.headers, await response.read())
            if reply.status not in expected:
                raise _refused(reply)
            if check and (problem := _problem(check, reply)):
                raise _Judged("wrong_body", problem)
        return reply

    async def stream(
        self,
        step: str,
        method: str,
        path: str,
        *,
        json: Any = None,
        last_event_id: str | None = None,
        stop_after: int | None = None,
        check: Callable[[EventStream], str | None] | None = None,
    ) -> EventStream:
        """One event stream, to its end, to `event: reconnect`, or until `stop_after` events were read."""
        attempt = _Attempt(self, step, method, path)
        headers = {"accept": "text/event-stream"}
        if last_event_id is not None:
            headers["last-event-id"] = last_event_id
        silence = self._gateway.settings.stream_silence_seconds
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_TIMEOUT_SECONDS, sock_read=silence)
        async with attempt.judging(breaks="broken_stream"):
            async with attempt.send(json, None, timeout, headers) as response:
                if response.status != 200:
                    raise _refused(Reply(response.status, response.headers, await response.read()))
                read = await _read_events(response, stop_after)
            if check and (problem := _problem(check, read)):
                raise _Judged("wrong_body", problem)
        return read


class _Judged(Exception):
    """What is wrong with an answer that arrived."""

    def __init__(self, kind: Kind, detail: str, fault: str | None = None, caused_by: str | None = None) -> None:
        super().__init__(detail)
        self.kind: Kind = kind
        self.detail = detail
        self.fault = fault
        self.caused_by = caused_by


class _Attempt:
    """One request on its way."""

    def __init__(self, visit: Visit, step: str, method: str, path: str) -> None:
        self._visit = visit
        self._step = step
        self._method = method
        self._path = path
        self._service = service_of(path)
        self._request_id = str(uuid.uuid4())  # ours, so that it is known even if no answer comes
        self._started = visit._due if visit._due is not None else time.monotonic()
        self._status: int | None = None
        self._fault: str | None = None
        self._caused_by: str | None = None
        visit._due = None

    @asynccontextmanager
    async def send(
        self, json: Any, form: aiohttp.FormData | None, timeout: aiohttp.ClientTimeout, headers: dict[str, str]
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        visit, gateway = self._visit, self._visit._gateway
        headers["x-request-id"] = self._request_id
        if visit.token:
            headers["authorization"] = f"Bearer {visit.token}"
        pin = visit._pin
        if pin and pin.service == self._service:
            headers["x-backstay-backend"] = pin.backend
            headers["x-backstay-token"] = pin.token
        data: bytes | aiohttp.FormData | None = form
        if json is not None:
            data = orjson.dumps(json)
            headers["content-type"] = "application/json"
        async with gateway.session.request(
            self._method, gateway.url(self._path), data=data, headers=headers, timeout=timeout, allow_redirects=False
        ) as response:
            self._status = response.status
            self._fault = response.headers.get(FAULT_HEADER)
            self._caused_by = response.headers.get(CAUSE_HEADER)
            self._request_id = response.headers.get("x-request-id", self._request_id)
            yield response

    @asynccontextmanager
    async def judging(self, breaks: Kind = "reset") -> AsyncIterator[None]:
        """Records how the request inside ends. `breaks` is what an answer that broke off is called."""
        try:
            yield
        except _Judged as judged:
            raise self._failed(judged.kind, judged.detail, judged.fault, judged.caused_by) from judged
        except TimeoutError as error:  # aiohttp's own time-outs are such, too
            raise self._failed("timeout", "no answer in time" if self._status is None else "too slow") from error
        except aiohttp.ClientError as error:
            kind: Kind = "reset" if self._status is None else breaks
            raise self._failed(kind, f"{type(error).__name__}: {error}"[:200]) from error
        else:
            if self._visit._recorder:
                self._visit._recorder.succeeded(self._service, self._elapsed)

    @property
    def _elapsed(self) -> float:
        return time.monotonic() - self._started

    def _failed(self, kind: Kind, detail: str, fault: str | None = None, caused_by: str | None = None) -> StepFailed:
        recorder = self._visit._recorder
        failure = Failure(
            at=recorder.now() if recorder else time.time(),
            service=self._service,
            journey=self._visit._journey,
            step=self._step,
            method=self._method,
            path=self._path.partition("?")[0],
            status=self._status,
            kind=kind,
            fault=fault or self._fault,
            request_id=self._request_id,
            caused_by=caused_by or self._caused_by,
            detail=detail,
        )
        if recorder:
            recorder.failed(failure, self._elapsed)
        return StepFailed(failure)


def _refused(reply: Reply) -> _Judged:
    kind: Kind = "status"
    if reply.status in (401, 403):
        kind = "auth"
    elif SHED_HEADER in reply.headers or "x-envoy-overloaded" in reply.headers:
        kind = "shed"
    try:
        detail = str(reply.json()["detail"])
    except (ValueError, KeyError, TypeError):  # the gateway's own answers are plain text
        detail = reply.content[:200].decode(errors="replace")
    return _Judged(kind, detail[:200])


def _problem(check: Callable[[Answer], str | None], answer: Answer) -> str | None:
    try:
        return check(answer)
    except (KeyError, IndexError, TypeError, ValueError) as error:
        return f"the answer has another shape than expected: {type(error).__name__} {error}"[:200]


async def _read_events(response: aiohttp.ClientResponse, stop_after: int | None) -> EventStream:
    events: list[Event] = []
    done = reconnect = False
    async for event in parse(response.content.iter_any()):  # after the last event too: so the connection can be kept
        if event.name == "error":
            raise _told_failure(event)
        if event.name == "reconnect":
            reconnect = True
        elif event.data == "[DONE]":
            done = True
        else:
            events.append(event)
            done = done or event.name == "done"
            if len(events) == stop_after:
                return EventStream(tuple(events), done, reconnect)
    if not (done or reconnect):
        raise _Judged("broken_stream", f"it ended before its end, after {len(events)} events")
    return EventStream(tuple(events), done, reconnect)


def _told_failure(event: Event) -> _Judged:
    """A stream that says itself why it ends. Headers are long gone by then, so the event carries what they would."""
    try:
        body = orjson.loads(event.data)
        detail, fault = str(body.get("error", body)["message"])[:200], body.get("fault")
        return _Judged("shed" if body.get("shed") else "broken_stream", detail, fault, body.get("caused_by"))
    except (ValueError, KeyError, TypeError, AttributeError):
        return _Judged("broken_stream", f"it ended with an error: {event.data[:150]}")
