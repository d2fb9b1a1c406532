"""The local cluster as a runtime: its HTTP API behind the port that the core knows."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from control_plane.errors import ActuationRefused, InvalidDefinition, SourceUnavailable
from control_plane.topology import SERVICES, Backend, BackendTraffic, Deployment, RuntimeState, Weights

STATE_SECONDS = 3.0
WRITE_SECONDS = 10.0  # the cluster waits up to 5 s for the gateway's word


def local_client(url: str, token_file: Path) -> httpx.AsyncClient:
    """Client of one of the stack's guarded APIs; the caller closes it. Raises SourceUnavailable without a token."""
    try:
        token = token_file.read_text().strip()
    except OSError as error:
        raise SourceUnavailable(
            f"{token_file} cannot be read, so no stack was started here: {error.strerror}"
        ) from error
    return httpx.AsyncClient(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=STATE_SECONDS)


class _Reply(BaseModel):
    model_config = ConfigDict(extra="ignore")


class _DeploymentReply(_Reply):
    desired: Annotated[int, Field(ge=0)]
    ready: Annotated[int, Field(ge=0)]
    min: int
    max: int
    slots: int
    stream_slots: int
    restarts: int
    draining: int


class _WeightsReply(_Reply):
    service: int
    monolith: int


class _TrafficReply(_Reply):
    completed: int
    server_errors: int
    active: int


class _StateReply(_Reply):
    at: datetime
    deployments: Mapping[str, _DeploymentReply]
    weights: Mapping[str, _WeightsReply]
    traffic: Mapping[str, Mapping[Backend, _TrafficReply]] | None
    traffic_problem: str | None = None


class LocalRuntime:
    """Reads and steers the local cluster. Every failure to reach it is SourceUnavailable, every refusal a sentence."""

    def __init__(self, http: httpx.AsyncClient) -> None:
        """`http` has the cluster API as base URL, and carries its token."""
        self._http = http

    async def state(self) -> RuntimeState:
        """One reading. SourceUnavailable too when the gateway gave no counters: a part is no evidence."""
        answer = await self._ask("GET", "/v1/state", STATE_SECONDS)
        try:
            reply = _StateReply.model_validate_json(answer.content)
            if reply.traffic is None:
                raise SourceUnavailable(f"The local cluster has no traffic counters: {reply.traffic_problem}")
            return RuntimeState(
                at=reply.at,
                deployments={name: _deployment(name, body) for name, body in reply.deployments.items()},
                weights={name: Weights(body.service, body.monolith) for name, body in reply.weights.items()},
                traffic={service: _traffic(reply.traffic[service]) for service in SERVICES},
            )
        except (ValidationError, KeyError, ValueError) as error:
            raise SourceUnavailable(f"The local cluster's state is not what was expected: {error}") from error

    async def scale(self, deployment: str, replicas: int, *, fence: int, by: str) -> None:
        """Sets desired replicas; returns when recorded, not when ready."""
        body = {"replicas": replicas, "fence": fence, "by": by}
        await self._ask("PUT", f"/v1/deployments/{deployment}/replicas", WRITE_SECONDS, body)

    async def set_weights(self, service: str, weights: Weights, *, fence: int, by: str) -> None:
        """Sets routing for gateway and mesh; returns when Envoy said that it routes so.

        SourceUnavailable may mean that it happened all the same (recorded, not yet confirmed): repeating is safe.
        """
        body = {"service": weights.service, "monolith": weights.monolith, "fence": fence, "by": by}
        await self._ask("PUT", f"/v1/weights/{service}", WRITE_SECONDS, body)

    async def _ask(
        self, method: str, path: str, seconds: float, body: Mapping[str, Any] | None = None
    ) -> httpx.Response:
        try:
            answer = await self._http.request(method, path, json=body, timeout=seconds)
        except httpx.HTTPError as error:
            raise SourceUnavailable(f"The local cluster at {self._http.base_url} did not answer: {error!r}") from error
        if answer.is_success:
            return answer
        sentence = _sentence(answer)
        if answer.status_code == 409:
            raise ActuationRefused(sentence)
        if answer.status_code == 422:
            raise InvalidDefinition(sentence)
        raise SourceUnavailable(f"The local cluster answered {answer.status_code}: {sentence}")


def _deployment(name: str, body: _DeploymentReply) -> Deployment:
    return Deployment(
        name=name,
        desired=body.desired,
        ready=body.ready,
        min_replicas=body.min,
        max_replicas=body.max,
        slots_per_replica=body.slots,
        stream_slots_per_replica=body.stream_slots,
        restarts=body.restarts,
        draining=body.draining,
    )


def _traffic(backends: Mapping[Backend, _TrafficReply]) -> dict[Backend, BackendTraffic]:
    return {
        backend: BackendTraffic(
            completed=backends[backend].completed,
            server_errors=backends[backend].server_errors,
            active=backends[backend].active,
        )
        for backend in Backend
    }


def _sentence(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["error"])
    except (ValueError, KeyError, TypeError):
        return answer.text[:300]
