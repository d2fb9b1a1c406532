"""Refusals and failures as problem details (RFC 9457), and nothing in them that helps an attacker."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from typing import Any

import orjson
from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.responses import Response

from services.telemetry import current_trace_id

FAULT_HEADER = "x-backstay-fault"

SHED_HEADER = "x-librechat-shed"
"""On a 503 that says: this replica is full. Others say 503 for other reasons."""

CAUSE_HEADER = "x-librechat-caused-by"
"""Request id of the call to a peer whose failure this answer passes on: it stands in the access log of the mesh."""

_TITLES = {status.value: status.phrase for status in HTTPStatus}


class Problem(Exception):
    """A request that ends with an error which its caller can read.

    `detail` is a sentence for the caller; `extra` adds members to the JSON body. `fault` names the injected fault
    behind it, here or in a peer, and becomes a header: so a drill can tell its own failures from others.
    """

    def __init__(
        self,
        status: int,
        detail: str,
        *,
        headers: Mapping[str, str] | None = None,
        fault: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.headers = dict(headers or {})
        self.fault = fault
        self.extra = dict(extra or {})


def unauthorized(detail: str = "Sign in: the bearer token is missing, invalid or has expired.") -> Problem:
    return Problem(401, detail, headers={"www-authenticate": "Bearer"})


def not_found(what: str) -> Problem:
    """Also for what belongs to someone else: whether it exists is nobody's business."""
    return Problem(404, f"No such {what}.")


def problem_response(
    status: int,
    detail: str,
    *,
    headers: Mapping[str, str] | None = None,
    fault: str | None = None,
    extra: Mapping[str, Any] | None = None,
    path: str = "",
) -> Response:
    """The body every error has; paths below /v1 add `error`, where OpenAI clients look for the message."""
    title = _TITLES.get(status, "Error")
    body: dict[str, Any] = {"type": "about:blank", "title": title, "status": status, "detail": detail, **(extra or {})}
    if trace_id := current_trace_id():
        body["trace_id"] = trace_id
    if path.startswith("/v1/"):
        kind = "invalid_request_error" if status < 500 else "server_error"
        body["error"] = {"message": detail, "type": kind, "code": title.lower().replace(" ", "_"), "param": None}
    sent = dict(headers or {})
    if fault:
        sent[FAULT_HEADER] = fault
    return Response(orjson.dumps(body), status, sent, media_type="application/problem+json")


def answer_problem(request: Request, problem: Problem) -> Response:
    return problem_response(
        problem.status,
        problem.detail,
        headers=problem.headers,
        fault=problem.fault,
        extra=problem.extra,
        path=request.url.path,
    )


async def _on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)  # noqa: S101  the handler is registered for this type only
    return answer_problem(request, error)


async def _on_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)  # noqa: S101
    return problem_response(error.status_code, str(error.detail), headers=error.headers, path=request.url.path)


async def _on_invalid_request(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    # The offending value stays out: it may be a password.
    findings = [
        {"at": ".".join(str(part) for part in e["loc"]), "message": e["msg"].removeprefix("Value error, ")}
        for e in error.errors()
    ]
    detail = "; ".join(f"{finding['at']}: {finding['message']}" for finding in findings[:3])
    return problem_response(422, detail or "The request is invalid.", extra={"errors": findings}, path=request.url.path)


async def _on_unexpected(request: Request, error: Exception) -> Response:
    return problem_response(500, "Something broke on our side; it was logged.", path=request.url.path)


def install_problem_handlers(app: FastAPI) -> None:
    """Every way a request can fail ends in the same shape."""
    app.add_exception_handler(Problem, _on_problem)
    app.add_exception_handler(HTTPException, _on_http_exception)
    app.add_exception_handler(RequestValidationError, _on_invalid_request)
    app.add_exception_handler(Exception, _on_unexpected)
