"""User journeys, run by the suite's load process."""

from __future__ import annotations

from datetime import timedelta

import httpx
from pydantic import BaseModel, ConfigDict, ValidationError

from control_plane.errors import SourceUnavailable
from control_plane.ports import JourneyResult
from control_plane.topology import Backend

MOST_FAILURES = 10
MARGIN_SECONDS = 5.0  # beyond the journeys' own limit, for the answer to arrive


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")

    sent: int
    passed: int
    failures: list[str]


class LoadJourneys:
    """Asks the load API for journeys that are right by content."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        """`http` has the load API as base URL, and carries its token."""
        self._http = http

    async def run(self, service: str, backend: Backend | None, count: int, timeout: timedelta) -> JourneyResult:
        """Runs `count` journeys through the gateway. SourceUnavailable when nobody could run them."""
        body = {"service": service, "backend": backend, "count": count, "timeout_seconds": timeout.total_seconds()}
        try:
            answer = await self._http.post("/v1/journeys", json=body, timeout=timeout.total_seconds() + MARGIN_SECONDS)
            answer.raise_for_status()
            reply = _Reply.model_validate_json(answer.content)
        except httpx.HTTPStatusError as error:
            raise SourceUnavailable(f"The journeys did not run: {error.response.text[:300]}") from error
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"The load process at {self._http.base_url} did not answer: {error!r}") from error
        except ValidationError as error:
            raise SourceUnavailable(f"The load process answered in a way we do not know: {error}") from error
        return JourneyResult(reply.sent, reply.passed, tuple(reply.failures[:MOST_FAILURES]))
