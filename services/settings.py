"""Every setting of a replica of the suite, read once from the environment (prefix SUITE_)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parent.parent


class SuiteSettings(BaseSettings):
    """Defaults are the document's production values; the local stack sets what differs on one machine."""

    model_config = SettingsConfigDict(env_prefix="SUITE_", frozen=True, extra="ignore", use_attribute_docstrings=True)

    bind_host: str = "127.0.0.1"
    """Address that a replica listens on."""

    data_dir: Path = REPOSITORY / ".backstay" / "data"
    """Folder of the databases and uploaded files, shared by every replica and by the monolith."""

    jwt_secret_file: Path | None = None
    """File with the key that signs tokens (at least 32 bytes). None: `jwt.secret` in `data_dir`, made at first use."""

    mesh_url: str = "http://127.0.0.1:7001"
    """Base URL of the mesh listener: calls between services go there with the peer's name as Host, and obey weights."""

    otlp_url: str | None = None
    """Base URL of an OTLP/HTTP receiver (`/v1/traces` is added); None keeps traces off."""

    sampling_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    """Share of traces that are recorded, decided where a trace begins; a caller's own decision is followed."""

    slots: Annotated[int, Field(ge=1, le=10_000)] = 16
    """Requests that a replica serves at a time."""

    stream_slots: Annotated[int, Field(ge=0, le=10_000)] = 16
    """Event streams that a replica keeps open at a time."""

    queue_seconds: Annotated[float, Field(ge=0, le=60)] = 5.0
    """Longest wait for a slot, in seconds; then the request is shed with 503."""

    drain_seconds: Annotated[float, Field(ge=0, le=600)] = 20.0
    """Longest wait for requests in flight once a replica was told to stop, in seconds."""

    keep_alive_seconds: Annotated[int, Field(ge=1, le=3600)] = 75
    """Seconds that an idle connection stays open: above the gateway's own limit (3 s), so the gateway closes first."""

    peer_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Longest wait for the answer of another service, in seconds. Streams have no limit on their whole length."""

    busy_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 5.0
    """Longest wait for the write lock of a shared database file, in seconds; then the request is answered 503."""

    password_hash_workers: Annotated[int, Field(ge=1, le=16)] = 1
    """Password hashes computed at a time in one replica; each takes 19 MiB and a core for tens of milliseconds."""

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    """Lowest level that is written to the log."""

    identity_config: Path = REPOSITORY / "services" / "identity" / "appsettings.json"
    """Configuration of the identity service, with the keys of the migration document."""

    ai_gateway_config: Path = REPOSITORY / "services" / "ai_gateway" / "config.yaml"
    """Configuration of the AI gateway, with the keys of the migration document."""
