"""Every setting of the load generator, read once from the environment (prefix SUITE_LOAD_)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

REPOSITORY = Path(__file__).resolve().parent.parent.parent


class LoadSettings(BaseSettings):
    """Defaults are those of the local stack at its default ports."""

    model_config = SettingsConfigDict(
        env_prefix="SUITE_LOAD_", frozen=True, extra="ignore", use_attribute_docstrings=True
    )

    gateway_url: str = "http://127.0.0.1:7000"
    """Base URL of the gateway that the journeys go through."""

    host: str = "127.0.0.1"
    """Address that the load API listens on."""

    port: Annotated[int, Field(ge=0, le=65535)] = 7005
    """Port of the load API."""

    token_file: Path = REPOSITORY / ".backstay" / "run" / "token"
    """File with the token that guards the load API, and that lets requests be pinned to a backend at the gateway."""

    scale: Annotated[float, Field(ge=0, le=100)] = 1.0
    """Demo traffic as a multiple of the usual one (about 90 requests/s); 0 is none, and the API works all the same."""

    probe_seconds: Annotated[float, Field(ge=0, le=60)] = 20.0
    """Time between two synthetic probes of each service, so that its availability is known without users; 0: none."""

    ramp_seconds: Annotated[float, Field(ge=0, le=3600)] = 15.0
    """Time in which demo traffic grows from a tenth to its full rate."""

    users: Annotated[int, Field(ge=1, le=1000)] = 20
    """Accounts that the journeys share."""

    sign_ins_per_second: Annotated[float, Field(gt=0, le=100)] = 2.0
    """How fast the accounts are made ready: each sign-in costs identity tens of milliseconds of CPU."""

    request_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 10.0
    """Longest wait for a whole answer."""

    chat_timeout_seconds: Annotated[float, Field(gt=0, le=600)] = 30.0
    """Longest wait for a whole chat completion, which waits for a model."""

    stream_silence_seconds: Annotated[float, Field(gt=0, le=600)] = 20.0
    """Longest silence within an event stream."""

    seed: int | None = None
    """Start of the random schedule, for a run that can be repeated; None: another one each time."""
