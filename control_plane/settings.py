"""Every setting of the control plane, read once from the environment (prefix BACKSTAY_)."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parent.parent


class Settings(BaseSettings):
    """Defaults serve the local stack of `backstay up`; each field says its unit."""

    model_config = SettingsConfigDict(
        env_prefix="BACKSTAY_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    port_base: Annotated[int, Field(ge=1024, le=64000)] = 7000
    """First port of the local stack; the others follow at fixed offsets, so that two stacks can run side by side."""

    bind_host: str = "127.0.0.1"
    """Address that the console listens on. Anything but loopback should stand behind TLS."""

    state_dir: Path = REPOSITORY / ".backstay"
    """Folder of everything that the local stack and the control plane remember: database, token, logs, metrics."""

    slos_dir: Path = REPOSITORY / "slos"
    """Folder of OpenSLO v1 files."""

    policy_file: Path = REPOSITORY / "slos" / "policy.yaml"
    """The decision policy."""

    policy_profile: str = "default"
    """Which profile of the policy file holds: `default` only observes, `local` acts by itself."""

    runbooks_dir: Path = REPOSITORY / "runbooks"
    """Folder of runbook pages."""

    database_url: str | None = None
    """SQLAlchemy URL of Backstay's own state; None is SQLite in the state folder."""

    prometheus_url: str | None = None
    """Base URL of the Prometheus API; None is the local stack's."""

    alertmanager_url: str | None = None
    """Base URL of Alertmanager; None is the local stack's."""

    jaeger_query_url: str | None = None
    """Base URL of a Jaeger query API; None is the embedded trace store."""

    trace_store_port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """Port of the embedded trace store; None is the local stack's."""

    trace_store_megabytes: Annotated[int, Field(ge=8, le=65536)] = 128
    """Memory that the embedded trace store gives to traces, in MiB; the oldest traces go first."""

    trace_store_minutes: Annotated[float, Field(gt=0, le=10080)] = 60.0
    """Minutes that the embedded trace store keeps a trace at most."""

    public_url: str | None = None
    """URL under which people reach the console, used in links of alerts; None is the console's own address."""

    tick_seconds: Annotated[float, Field(ge=1, le=300)] = 5.0
    """Seconds from the start of one evaluation to the next; ticks never overlap."""

    query_timeout_seconds: Annotated[float, Field(gt=0, le=60)] = 3.0
    """Longest wait for one answer of Prometheus, in seconds."""

    trace_timeout_seconds: Annotated[float, Field(gt=0, le=10)] = 2.0
    """Longest wait for traces within a tick, in seconds; attribution from call metrics stands without them."""

    session_hours: Annotated[float, Field(gt=0, le=720)] = 12.0
    """Hours until a console login ends."""

    log_level: str = "INFO"
    """Python log level of the control plane."""

    def local_url(self, offset: int) -> str:
        """URL of a part of the local stack, by its offset from `port_base`."""
        return f"http://127.0.0.1:{self.port_base + offset}"

    @cached_property
    def gateway_at(self) -> str:
        return self.local_url(0)

    @cached_property
    def cluster_at(self) -> str:
        return self.local_url(3)

    @cached_property
    def load_at(self) -> str:
        return self.local_url(5)

    @property
    def console_port(self) -> int:
        return self.port_base + 10

    @cached_property
    def console_at(self) -> str:
        return self.public_url or self.local_url(10)

    @property
    def trace_store_at_port(self) -> int:
        return self.trace_store_port or self.port_base + 18

    @cached_property
    def jaeger_at(self) -> str:
        return self.jaeger_query_url or f"http://127.0.0.1:{self.trace_store_at_port}"

    @cached_property
    def prometheus_at(self) -> str:
        return self.prometheus_url or self.local_url(90)

    @cached_property
    def alertmanager_at(self) -> str:
        return self.alertmanager_url or self.local_url(93)

    @cached_property
    def database_at(self) -> str:
        return self.database_url or f"sqlite:///{self.state_dir / 'backstay.db'}"

    @property
    def token_file(self) -> Path:
        """Bearer token of the local cluster and load APIs; made by the stack, mode 0600."""
        return self.state_dir / "run" / "token"
