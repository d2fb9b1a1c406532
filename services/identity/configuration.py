"""The identity service's configuration file, key for key as the migration document writes it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator
from pydantic.alias_generators import to_pascal

from control_plane.errors import InvalidDefinition
from services.tokens import MIN_SECRET_BYTES

DOCUMENT_PLACEHOLDER = "your-super-secret-jwt-key-here"


class _Section(BaseModel):
    model_config = ConfigDict(alias_generator=to_pascal, extra="forbid", frozen=True, use_attribute_docstrings=True)


class Jwt(_Section):
    """How users' tokens are made."""

    secret_key: str | None = None
    """Key that signs tokens. None, as it should be in a file that is shared: the key is in SUITE_JWT_SECRET_FILE."""
    issuer: str = "librechat-identity"
    audience: str = "librechat"
    expiration_minutes: Annotated[int, Field(ge=1, le=1440)] = 60

    @field_validator("secret_key")
    @classmethod
    def _is_a_secret(cls, value: str | None) -> str | None:
        if not value:
            return None
        if value == DOCUMENT_PLACEHOLDER:
            raise ValueError("this is the placeholder of the documentation, which everybody knows")
        if len(value.encode()) < MIN_SECRET_BYTES:
            raise ValueError(f"a key needs at least {MIN_SECRET_BYTES} bytes")
        return value

    @property
    def lifetime(self) -> timedelta:
        return timedelta(minutes=self.expiration_minutes)


class ConnectionStrings(_Section):
    """Where state lives once it outgrows SQLite. Accepted and checked for form; the embedded backend reads neither."""

    default_connection: str | None = None
    redis: str | None = None

    @field_validator("default_connection")
    @classmethod
    def _is_key_value(cls, value: str | None) -> str | None:
        if value and not all("=" in part for part in value.strip(";").split(";")):
            raise ValueError("write it as `Server=...;Database=...;`")
        return value


class Email(_Section):
    """Outgoing mail. Accepted and checked; nothing sends mail yet."""

    smtp_server: str | None = None
    smtp_port: Annotated[int, Field(ge=1, le=65535)] = 587
    username: str | None = None
    password: str | None = None


class IdentityConfiguration(_Section):
    """The whole file."""

    connection_strings: ConnectionStrings = ConnectionStrings()
    jwt: Jwt = Jwt()
    email: Email = Email()


def read_identity_configuration(path: Path) -> IdentityConfiguration:
    """The file at `path`. Raises InvalidDefinition, which never repeats a value: it may be a secret."""
    try:
        return IdentityConfiguration.model_validate_json(path.read_bytes())
    except OSError as error:
        raise InvalidDefinition(f"{path} cannot be read: {error.strerror}") from error
    except ValidationError as error:
        first = error.errors(include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the file"
        raise InvalidDefinition(f"{path}: {where}: {first['msg']}") from None
