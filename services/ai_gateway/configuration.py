"""The AI gateway's configuration file, key for key as the migration document writes it."""

from __future__ import annotations

import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from control_plane.errors import InvalidDefinition

_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}


def _duration(value: Any) -> Any:
    """`30s`, `500ms`, `1m30s`, as Go writes them."""
    if isinstance(value, timedelta):
        return value
    if not isinstance(value, str):
        raise ValueError("write a duration with its unit, such as 30s or 500ms")
    parts = re.findall(r"(\d+(?:\.\d+)?)(ms|s|m|h)", value)
    if not parts or "".join(number + unit for number, unit in parts) != value:
        raise ValueError(f"{value!r} is no duration; write 30s, 500ms or 1m30s")
    return timedelta(seconds=sum(float(number) * _UNITS[unit] for number, unit in parts))


Duration = Annotated[timedelta, BeforeValidator(_duration)]
Port = Annotated[int, Field(ge=1, le=65535)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class Logging(_Section):
    """Accepted and checked; a replica's log is always JSON on standard output, its level SUITE_LOG_LEVEL."""

    level: Literal["debug", "info", "warn", "warning", "error"] = "info"
    format: Literal["json"] = "json"
    output: Literal["console"] = "console"


class Http(_Section):
    """`port` is where a container listens; locally the launcher gives each replica a port of its own."""

    port: Port = 8080
    read_timeout: Duration = timedelta(seconds=30)
    """Longest silence of a remote provider within an answer."""
    write_timeout: Duration = timedelta(seconds=30)
    idle_timeout: Duration = timedelta(seconds=120)


class Grpc(_Section):
    """For a later backend: accepted and checked, nothing listens."""

    port: Port = 9090
    max_concurrent_streams: Annotated[int, Field(ge=1)] = 1000
    max_connection_idle: Duration = timedelta(seconds=300)
    max_connection_age: Duration = timedelta(seconds=600)


class Redis(_Section):
    """For a later backend: accepted and checked, nothing connects."""

    pool_size: Annotated[int, Field(ge=1)] = 100
    min_idle_conns: Annotated[int, Field(ge=0)] = 10
    max_retries: Annotated[int, Field(ge=0)] = 3
    dial_timeout: Duration = timedelta(seconds=5)
    read_timeout: Duration = timedelta(seconds=3)
    write_timeout: Duration = timedelta(seconds=3)

    @model_validator(mode="after")
    def _idle_fits_pool(self) -> Redis:
        if self.min_idle_conns > self.pool_size:
            raise ValueError("min_idle_conns is larger than pool_size")
        return self


class RateLimit(_Section):
    """Chats that one replica accepts: `requests_per_second` on average over time, `burst` at once."""

    requests_per_second: Annotated[float, Field(gt=0)] = 1000
    burst: Annotated[int, Field(ge=1)] = 2000
    window: Duration = timedelta(seconds=1)
    """Time in which `requests_per_second` x window tokens come back; with a token bucket only the ratio matters."""


class Jaeger(_Section):
    endpoint: str = "http://jaeger.librechat-monitoring:14268/api/traces"


class Tracing(_Section):
    """Accepted and checked; spans leave over OTLP (SUITE_OTLP_URL) at SUITE_SAMPLING_RATE, for all services alike."""

    enabled: bool = True
    sampling_rate: Annotated[float, Field(ge=0, le=1)] = 0.1
    backend: Literal["jaeger"] = "jaeger"
    jaeger: Jaeger = Jaeger()


class BuiltInProviderSettings(_Section):
    """The provider that ships with the suite."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
    kind: Literal["builtin"]
    model: str
    first_token_median: Duration = timedelta(milliseconds=300)
    token_interval: Duration = timedelta(milliseconds=10)
    """Mean time from one token to the next."""


class OpenAiProviderSettings(_Section):
    """Any API that speaks OpenAI's protocol."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
    kind: Literal["openai"]
    model: str
    """Model that is asked for there, whatever the caller called it."""
    base_url: Annotated[str, Field(pattern=r"^https?://")]
    api_key_env: str
    """Environment variable that holds the key; the key itself never stands in a file."""


ProviderSettings = Annotated[BuiltInProviderSettings | OpenAiProviderSettings, Field(discriminator="kind")]


class Resilience(_Section):
    """What happens when a provider fails."""

    attempts: Annotated[int, Field(ge=1, le=5)] = 2
    """Times that one provider is asked, as long as it has not begun to answer."""
    first_token_timeout: Duration = timedelta(seconds=10)
    open_after_failures: Annotated[int, Field(ge=1)] = 5
    """Failures in a row that open a provider's circuit: it is not asked for `open_for`."""
    open_for: Duration = timedelta(seconds=10)


class GatewayConfiguration(_Section):
    """The whole file."""

    logging: Logging = Logging()
    http: Http = Http()
    grpc: Grpc = Grpc()
    redis: Redis = Redis()
    rate_limit: RateLimit = RateLimit()
    tracing: Tracing = Tracing()
    providers: Annotated[tuple[ProviderSettings, ...], Field(min_length=1)]
    resilience: Resilience = Resilience()

    @model_validator(mode="after")
    def _names_differ(self) -> GatewayConfiguration:
        names = [provider.name for provider in self.providers]
        if len(set(names)) < len(names):
            raise ValueError("two providers have the same name")
        return self


def read_gateway_configuration(path: Path) -> GatewayConfiguration:
    """The file at `path`. Raises InvalidDefinition with file, key and reason."""
    try:
        content = yaml.safe_load(path.read_text())
        return GatewayConfiguration.model_validate(content)
    except OSError as error:
        raise InvalidDefinition(f"{path} cannot be read: {error.strerror}") from error
    except yaml.YAMLError as error:
        raise InvalidDefinition(f"{path} is no YAML: {error}") from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidDefinition(f"{path}: {where}: {first['msg']}") from None
