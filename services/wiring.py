"""Builds what a replica needs, once, and closes it: the only place that knows which adapter stands behind a port."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass

from control_plane.clock import Clock, utc_now
from control_plane.topology import MONOLITH, SERVICES
from services.context import ServiceContext
from services.drain import Drain
from services.identity.configuration import IdentityConfiguration, read_identity_configuration
from services.monolith.in_process import InProcessPeers
from services.peers import CALL_GRAPH, NoPeers, Peers
from services.settings import SuiteSettings
from services.storage import SqliteStorage
from services.telemetry import Metrics, ServiceTelemetry, Tracing, otlp_tracing
from services.tokens import Tokens, read_or_make_secret


@dataclass(frozen=True, slots=True)
class Wired:
    """The contexts of one process, and what to close after them."""

    contexts: list[ServiceContext]
    metrics: Metrics
    closing: AsyncExitStack


def wire(
    deployment: str,
    settings: SuiteSettings,
    replica: str = "local",
    clock: Clock = utc_now,
    metrics: Metrics | None = None,
    tracing: Tracing | None = None,
) -> Wired:
    """Contexts for `deployment`: one service with peers behind the mesh, or the monolith's seven with peers inside."""
    metrics = metrics or Metrics()
    tracing = tracing or otlp_tracing(settings.otlp_url, settings.sampling_rate, metrics, resource(deployment, replica))
    storage = SqliteStorage(settings.data_dir, settings.busy_timeout_seconds)
    tokens = issuing_tokens(settings, read_identity_configuration(settings.identity_config), clock)
    drain = Drain()
    closing = AsyncExitStack()
    closing.callback(tracing.close)
    closing.push_async_callback(storage.close)
    services = SERVICES if deployment == MONOLITH else (deployment,)
    telemetries = {service: ServiceTelemetry(service, metrics, tracing) for service in services}
    peers: Peers
    if deployment == MONOLITH:
        peers = inside = InProcessPeers()
    elif CALL_GRAPH[deployment]:
        from services.peers_mesh import MeshClient, MeshPeers  # slow to import, and most services call nobody

        client = MeshClient(settings.mesh_url, settings.peer_timeout_seconds)
        closing.push_async_callback(client.close)
        peers, inside = MeshPeers(client, telemetries[deployment], tokens), None
    else:
        peers, inside = NoPeers(), None
    contexts = [
        ServiceContext(service, settings, storage, peers, telemetries[service], tokens, drain, clock=clock)
        for service in services
    ]
    if inside:
        inside.contexts.update({context.service: context for context in contexts})
    return Wired(contexts, metrics, closing)


def resource(deployment: str, replica: str) -> Mapping[str, str]:
    """What every span says of the process that it comes from."""
    backend = "monolith" if deployment == MONOLITH else "service"
    return {"service.instance.id": replica, "deployment.name": deployment, "backstay.backend": backend}


def issuing_tokens(settings: SuiteSettings, configuration: IdentityConfiguration, clock: Clock) -> Tokens:
    """Tokens as the identity service's configuration words them, signed with the key all replicas share."""
    jwt = configuration.jwt
    secret = (
        jwt.secret_key.encode()
        if jwt.secret_key
        else read_or_make_secret(settings.jwt_secret_file or settings.data_dir / "jwt.secret")
    )
    return Tokens(secret, clock, jwt.issuer, jwt.audience, jwt.lifetime)
