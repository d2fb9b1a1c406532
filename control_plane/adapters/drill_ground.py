"""What a drill needs of the local stack: faults in, what users got out, and what the gateway saw."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx

from control_plane.actions.drills import FailedRequest, Fault
from control_plane.errors import ActuationRefused, SourceUnavailable
from control_plane.ports import Outcomes


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

        Reads whole access logs, which the stack rotates; call it off the event loop. A call between services
        that failed is found in the mesh listener's log, under an id of its own.
        """
        found: set[str] = set()
        for log in self._access_logs:
            for file in (log.with_name(f"{log.name}.1"), log):
                if file.exists():
                    with file.open("rb") as lines:
                        found.update(_failed_at(cluster, since, lines))
        return found


def _failed_at(cluster: str, since: datetime, lines: Iterable[bytes]) -> Iterator[str]:
    for line in lines:
        entry = _entry(line)
        if entry is None or entry.get("upstream_cluster") != cluster:
            continue
        started = _instant(entry.get("start_time"))
        if started is not None and started >= since and _went_wrong(entry):
            yield str(entry.get("request_id"))


def _went_wrong(entry: Mapping[str, Any]) -> bool:
    """A 5xx, no answer, or one that broke off after its 200, as only flags tell. A caller who leaves is none."""
    code = int(entry.get("response_code") or 0)
    return code >= 500 or code == 0 or str(entry.get("response_flags") or "-") not in ("-", "DC")


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
        caused_by=item.get("caused_by"),
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
