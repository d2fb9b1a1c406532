"""What a drill needs of the local stack: faults in, what users got out, and what the gateway saw."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from control_plane.actions.drills import FailedRequest, Fault
from control_plane.errors import ActuationRefused, SourceUnavailable


@dataclass(frozen=True, slots=True)
class Outcomes:
    """What the senders of a stretch of traffic got. `complete` is False when failures were too many to keep."""

    sent: int
    failures: tuple[FailedRequest, ...]
    complete: bool


class LocalDrillGround:
    """Cluster API for faults, load API for outcomes and journeys, access log for upstreams. All of one local stack."""

    def __init__(self, cluster: httpx.AsyncClient, load: httpx.AsyncClient, access_log: Path) -> None:
        self._cluster = cluster
        self._load = load
        self._access_log = access_log

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
        """Everything that was sent in [since, until), by all users of the demo and the drill."""
        query = f"?since={since.timestamp():.3f}" + (f"&until={until.timestamp():.3f}" if until else "")
        body = await _call(self._load, "GET", f"/v1/outcomes{query}")
        return Outcomes(int(body["sent"]), tuple(map(_failed, body["failures"])), not body["truncated"])

    async def write_markers(self) -> str:
        """Writes a user, a message, a file and a notification; the token finds them again."""
        token: str = (await _call(self._load, "POST", "/v1/markers/write", {}))["token"]
        return token

    async def missing_markers(self, token: str) -> tuple[str, ...]:
        """What of the written cannot be read any more; empty when all is there."""
        body = await _call(self._load, "POST", "/v1/markers/read", {"token": token})
        return tuple(body["missing"])

    def requests_seen_at(self, cluster: str, since: datetime) -> Collection[str]:
        """Ids of requests that the gateway sent to `cluster` (`<service>.<backend>`) and that failed there.

        Reads the whole access log, which the stack rotates; call it off the event loop.
        """
        found: set[str] = set()
        try:
            with self._access_log.open("rb") as lines:
                for line in lines:
                    entry = _entry(line)
                    if entry is None or entry.get("upstream_cluster") != cluster:
                        continue
                    started = _instant(entry.get("start_time"))
                    code = int(entry.get("response_code") or 0)
                    if started is not None and started >= since and (code >= 500 or code == 0):
                        found.add(str(entry.get("request_id")))
        except FileNotFoundError as error:
            raise SourceUnavailable(f"The gateway's access log {self._access_log} is missing.") from error
        return found


def _entry(line: bytes) -> Mapping[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:  # the last line may be half written
        return None
    return entry if isinstance(entry, dict) else None


def _instant(text: object) -> datetime | None:
    try:
        return datetime.fromisoformat(str(text))
    except ValueError:
        return None


def _failed(item: Mapping[str, Any]) -> FailedRequest:
    return FailedRequest(
        at=datetime.fromtimestamp(float(item["at"]), UTC),
        service=item["service"],
        kind=item["kind"],
        status=item["status"],
        fault=item["fault"],
        request_id=item["request_id"],
        detail=f"{item['method']} {item['path']} {item['detail'] or ''}".strip(),
    )


async def _call(
    http: httpx.AsyncClient, method: str, path: str, body: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    try:
        answer = await http.request(method, path, json=body)
    except httpx.HTTPError as error:
        raise SourceUnavailable(f"{http.base_url}{path} did not answer: {error!r}") from error
    if answer.status_code == 409:
        raise ActuationRefused(answer.json().get("error", answer.text))
    if answer.is_error:
        raise SourceUnavailable(f"{http.base_url}{path} answered {answer.status_code}: {answer.text[:300]}")
    result: dict[str, Any] = answer.json() if answer.content else {}
    return result
