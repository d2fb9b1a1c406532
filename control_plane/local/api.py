"""The cluster over HTTP, for the control plane, drills and the command line. Loopback and bearer token only."""

from __future__ import annotations

import hmac
import logging
from collections.abc import Awaitable, Callable, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeVar

from aiohttp import web
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from control_plane.clock import Clock
from control_plane.errors import ActuationRefused, BackstayError, InvalidDefinition, SourceUnavailable
from control_plane.local.cluster import Cluster
from control_plane.local.deployments import Phase, ReplicaSet
from control_plane.local.gateway import Gateway
from control_plane.local.layout import LOOPBACK
from control_plane.local.resources import usage
from control_plane.topology import Weights

log = logging.getLogger(__name__)

LONGEST_FAULT_SECONDS = 600.0
LARGEST_BODY_BYTES = 64 * 1024

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
Body = TypeVar("Body", bound=BaseModel)


class _Strict(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ReplicasOrder(_Strict):
    """Desired replicas of a deployment."""

    replicas: Annotated[int, Field(strict=True, ge=0)]
    fence: Annotated[int, Field(strict=True, ge=0)]
    by: Annotated[str, Field(min_length=1, max_length=200)]


class WeightsOrder(_Strict):
    """Weights of a service, in whole percent."""

    service: Annotated[int, Field(strict=True, ge=0, le=100)]
    monolith: Annotated[int, Field(strict=True, ge=0, le=100)]
    fence: Annotated[int, Field(strict=True, ge=0)]
    by: Annotated[str, Field(min_length=1, max_length=200)]


class FaultOrder(_Strict):
    """A fault for every replica of a deployment."""

    kind: Literal["errors", "latency", "crash"]
    seconds: Annotated[float, Field(gt=0, le=LONGEST_FAULT_SECONDS)]
    share: Annotated[float, Field(gt=0, le=1)] | None = None
    delay_ms: Annotated[float, Field(ge=0, le=60_000)] | None = None


class ClusterApi:
    """Routes of the API, bound to one cluster."""

    def __init__(
        self,
        cluster: Cluster,
        gateway: Gateway,
        token: str,
        clock: Clock,
        parts: Callable[[], Mapping[str, int]],
        shut_down: Callable[[], None],
    ) -> None:
        """`parts` names the running processes that are no replicas, with their ids; `shut_down` stops the stack."""
        self._cluster = cluster
        self._gateway = gateway
        self._token = token
        self._clock = clock
        self._parts = parts
        self._shut_down = shut_down

    def application(self) -> web.Application:
        app = web.Application(middlewares=[self._guard], client_max_size=LARGEST_BODY_BYTES)
        app.router.add_get("/v1/state", self._state)
        app.router.add_put("/v1/deployments/{name}/replicas", self._scale)
        app.router.add_put("/v1/weights/{service}", self._set_weights)
        app.router.add_put("/v1/faults/{deployment}", self._set_fault)
        app.router.add_delete("/v1/faults/{deployment}", self._clear_fault)
        app.router.add_post("/v1/down", self._down)
        return app

    async def serve(self, port: int) -> web.AppRunner:
        """Starts listening on loopback; `cleanup()` of the result ends it. Raises OSError for a taken port."""
        runner = web.AppRunner(self.application(), access_log=None, shutdown_timeout=2.0)
        await runner.setup()
        await web.TCPSite(runner, LOOPBACK, port).start()
        return runner

    @web.middleware
    async def _guard(self, request: web.Request, handler: Handler) -> web.StreamResponse:
        """Lets only holders of the token in, and turns errors into sentences."""
        sent = request.headers.get("Authorization", "")
        if not hmac.compare_digest(sent.encode(), f"Bearer {self._token}".encode()):
            return _error(401, "a bearer token is needed: the stack keeps it in its state folder, run/token")
        try:
            return await handler(request)
        except ActuationRefused as error:
            return _error(409, str(error))
        except InvalidDefinition as error:
            return _error(422, str(error))
        except SourceUnavailable as error:
            return _error(503, str(error))
        except BackstayError as error:
            return _error(500, str(error))
        except web.HTTPException as error:
            return _error(error.status, error.reason)

    async def _state(self, _: web.Request) -> web.Response:
        traffic, problem = None, None
        try:
            traffic = {
                service: {
                    backend: {"completed": c.completed, "server_errors": c.server_errors, "active": c.active}
                    for backend, c in backends.items()
                }
                for service, backends in (await self._gateway.traffic()).items()
            }
        except SourceUnavailable as error:  # replicas and weights are known all the same
            problem = str(error)
        return web.json_response(
            {
                "at": self._clock().isoformat(),
                "deployments": {name: _deployment(s) for name, s in self._cluster.deployments.items()},
                "weights": {name: _weights(weights) for name, weights in self._cluster.weights.items()},
                "traffic": traffic,
                "traffic_problem": problem,
                "fence": self._cluster.fence,
                "faults": self._cluster.faults,
                "processes": self._processes(),
            }
        )

    async def _scale(self, request: web.Request) -> web.Response:
        order = await _body(request, ReplicasOrder)
        name = request.match_info["name"]
        await self._cluster.scale(name, order.replicas, fence=order.fence, by=order.by)
        return web.json_response({"deployment": name, "desired": order.replicas})

    async def _set_weights(self, request: web.Request) -> web.Response:
        order = await _body(request, WeightsOrder)
        try:
            weights = Weights(order.service, order.monolith)
        except ValueError as error:
            raise InvalidDefinition(str(error)) from error
        service = request.match_info["service"]
        await self._cluster.set_weights(service, weights, fence=order.fence, by=order.by)
        return web.json_response({"service": service, "weights": _weights(weights)})

    async def _set_fault(self, request: web.Request) -> web.Response:
        order = await _body(request, FaultOrder)
        fault = order.model_dump(exclude={"seconds"}, exclude_none=True)
        deployment = request.match_info["deployment"]
        await self._cluster.set_fault(deployment, fault, timedelta(seconds=order.seconds))
        return web.json_response({"deployment": deployment, "fault": self._cluster.faults.get(deployment)})

    async def _clear_fault(self, request: web.Request) -> web.Response:
        deployment = request.match_info["deployment"]
        await self._cluster.clear_fault(deployment)
        return web.json_response({"deployment": deployment, "fault": None})

    async def _down(self, _: web.Request) -> web.Response:
        self._shut_down()
        return web.json_response({"stopping": True}, status=202)

    def _processes(self) -> dict[str, dict[str, float]]:
        pids = dict(self._parts())
        for replica_set in self._cluster.deployments.values():
            pids |= {replica.id: replica.pid for replica in replica_set.replicas if replica.pid is not None}
        measured = {name: usage(pid) for name, pid in pids.items()}
        return {
            name: {"pid": cost.pid, "rss_bytes": cost.rss_bytes, "cpu_seconds": round(cost.cpu_seconds, 2)}
            for name, cost in measured.items()
            if cost is not None
        }


def _deployment(replica_set: ReplicaSet) -> dict[str, Any]:
    spec = replica_set.spec
    return {
        "desired": replica_set.desired,
        "ready": len(replica_set.in_phase(Phase.READY)),
        "min": spec.min,
        "max": spec.max,
        "slots": spec.slots,
        "stream_slots": spec.stream_slots,
        "restarts": replica_set.restarts,
        "draining": len(replica_set.in_phase(Phase.DRAINING)),
        "replicas": [
            {
                "id": replica.id,
                "port": replica.port,
                "pid": replica.pid,
                "state": replica.phase,
                "started_at": replica.started_at.isoformat() if replica.started_at else None,
                "restarts": replica.restarts,
            }
            for replica in replica_set.replicas
        ],
    }


def _weights(weights: Weights) -> dict[str, int]:
    return {"service": weights.service, "monolith": weights.monolith}


async def _body(request: web.Request, model: type[Body]) -> Body:
    try:
        return model.model_validate_json(await request.read())
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(str(part) for part in first["loc"]) or "the body"
        raise InvalidDefinition(f"{field}: {first['msg']}") from error


def _error(status: int, sentence: str) -> web.Response:
    return web.json_response({"error": sentence}, status=status)
