"""What a drill needs of the local stack: faults in, what users got out, and what the gateway saw."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any, BinaryIO, TypeVar

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from control_plane.actions.drills import FailedRequest, Fault
from control_plane.errors import ActuationRefused, SourceUnavailable
from control_plane.ports import Outcomes

ORDER_SECONDS = 10.0
"""Longest wait for an order or an answer about the past."""
MARKERS_SECONDS = 60.0
"""Longest wait for markers: a whole visit of a user, maybe while the machine is busy."""


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _Failure(_Reply):
    at: float  # Unix seconds
    service: str
    kind: str
    method: str
    path: str
    status: int | None
    fault: str | None
    request_id: str | None
    detail: str | None = None
    caused_by: str | None = None

    def plain(self) -> FailedRequest:
        return FailedRequest(
            at=datetime.fromtimestamp(self.at, UTC),
            service=self.service,
            kind=self.kind,
            status=self.status,
            fault=self.fault,
            request_id=self.request_id,
            detail=f"{self.method} {self.path} {self.detail or ''}".strip(),
            caused_by=self.caused_by,
        )


class _Outcomes(_Reply):
    began: Annotated[float, Field(alias="from")]  # Unix seconds
    sent: int
    failures: list[_Failure]
    truncated: bool


class _Written(_Reply):
    token: str


class _Read(_Reply):
    missing: list[str]


Reply = TypeVar("Reply", bound=_Reply)


class LocalDrillGround:
    """Cluster API for faults, load API for outcomes and journeys, access logs for upstreams. All of one local stack."""

    def __init__(self, cluster: httpx.AsyncClient, load: httpx.AsyncClient, access_logs: Sequence[Path]) -> None:
        """`access_logs` are the gateway's and the mesh listener's; a rotated one lies beside it as `NAME.1`."""
        self._cluster = cluster
        self._load = load
        self._access_logs = tuple(access_logs)

    async def inject(self, fault: Fault, service: str, limit: timedelta) -> None:
        """Puts the fault on every replica, now and later, until `limit` has passed or it is cleared."""
        body = {"kind": fault.name, "seconds": limit.total_seconds(), **fault.parameters}
        await _call(self._cluster, "PUT", f"/v1/faults/{service}", body)

    async def clear(self, service: str) -> None:
        """Takes the fault away; no error when there is none."""
        await _call(self._cluster, "DELETE", f"/v1/faults/{service}")

    async def overload(self, service: str, requests_per_second: float, limit: timedelta) -> None:
        """Adds open-loop load on top of what runs."""
        body = {"rate_per_second": requests_per_second, "seconds": limit.total_seconds()}
        await _call(self._load, "PUT", f"/v1/extra-load/{service}", body)

    async def end_overload(self, service: str) -> None:
        await _call(self._load, "DELETE", f"/v1/extra-load/{service}")

    async def outcomes(self, since: datetime, until: datetime | None = None) -> Outcomes:
        """Everything that ended in [since, until), whole seconds, of all users of the demo and the drill."""
        query = f"?since={since.timestamp():.3f}" + (f"&until={until.timestamp():.3f}" if until else "")
        answer = await _call(self._load, "GET", f"/v1/outcomes{query}")
        found = _read(_Outcomes, answer)
        # Users whose process was started again know nothing of what they saw before.
        complete = not found.truncated and found.began <= since.timestamp()
        return Outcomes(found.sent, tuple(failure.plain() for failure in found.failures), complete)

    async def write_markers(self) -> str:
        """Writes a user, a message, a file and a notification; the token finds them again."""
        return _read(_Written, await _call(self._load, "POST", "/v1/markers/write", {}, MARKERS_SECONDS)).token

    async def missing_markers(self, token: str) -> tuple[str, ...]:
        """What of the written cannot be read any more; empty when all is there."""
        answer = await _call(self._load, "POST", "/v1/markers/read", {"token": token}, MARKERS_SECONDS)
        return tuple(_read(_Read, answer).missing)

    def requests_seen_at(self, cluster: str, since: datetime) -> Collection[str]:
        """Ids of requests that the gateway sent to `cluster` (`<service>.<backend>`) and that failed there.

        Reads whole access logs, which the stack rotates; call it off the event loop. A call between services
        that failed is found in the mesh listener's log, under an id of its own.
        """
        found: set[str] = set()
        for log in self._access_logs:
            with ExitStack() as opened:
                # The newer one first: when they are rotated in between, both are the same file and none is missed.
                files = [_opened(name, opened) for name in (log, log.with_name(f"{log.name}.1"))]
                for lines in filter(None, files):
                    found.update(_failed_at(cluster, since, lines))
        return found


def _opened(file: Path, until: ExitStack) -> BinaryIO | None:
    try:
        return until.enter_context(file.open("rb"))
    except FileNotFoundError:
        return None


def _failed_at(cluster: str, since: datetime, lines: Iterable[bytes]) -> Iterator[str]:
    named = cluster.encode()
    for line in lines:
        entry = _entry(line) if named in line else None  # most lines are about others, and reading them takes time
        if entry is None or entry.get("upstream_cluster") != cluster or not _went_wrong(entry):
            continue
        ended, request_id = _ended_at(entry), entry.get("request_id")
        if ended is not None and ended >= since and isinstance(request_id, str):
            yield request_id


def _went_wrong(entry: Mapping[str, Any]) -> bool:
    """A 5xx, no answer, or one that broke off after its 200, as only flags tell. A caller who leaves is none."""
    code = _number(entry.get("response_code"))
    return code >= 500 or code == 0 or str(entry.get("response_flags") or "-") not in ("-", "DC")


def _ended_at(entry: Mapping[str, Any]) -> datetime | None:
    """When the request ended: one that began before a fault and broke by it counts. None when that is not said."""
    try:
        started = datetime.fromisoformat(str(entry.get("start_time")))
    except ValueError:
        return None
    started = started if started.tzinfo else started.replace(tzinfo=UTC)
    return started + timedelta(milliseconds=_number(entry.get("duration")))


def _number(value: object) -> float:
    """A number, however it is spelt; 0 for anything else, as Envoy writes what there was not."""
    try:
        return float(str(value))
    except ValueError:
        return 0.0


def _entry(line: bytes) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:  # the last line may be half written
        return None
    return entry if isinstance(entry, dict) else None


async def _call(
    http: httpx.AsyncClient,
    method: str,
    path: str,
    body: Mapping[str, Any] | None = None,
    seconds: float = ORDER_SECONDS,
) -> httpx.Response:
    """The answer, if it is a good one. ActuationRefused where the other side says no, so that nothing was changed."""
    try:
        answer = await http.request(method, path, json=body, timeout=seconds)
    except httpx.HTTPError as error:
        raise SourceUnavailable(f"{http.base_url}{path} did not answer: {error!r}") from error
    if answer.is_client_error:
        raise ActuationRefused(_sentence(answer))
    if not answer.is_success:
        raise SourceUnavailable(f"{http.base_url}{path} answered {answer.status_code}: {_sentence(answer)}")
    return answer


def _read(kind: type[Reply], answer: httpx.Response) -> Reply:
    try:
        return kind.model_validate_json(answer.content)
    except ValidationError as error:
        raise SourceUnavailable(f"{answer.url} answered in a way that is not known: {error}") from error


def _sentence(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:300]
