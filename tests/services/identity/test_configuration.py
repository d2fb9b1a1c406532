"""The identity service's configuration file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from control_plane.errors import InvalidDefinition
from services.identity.configuration import read_identity_configuration
from services.settings import SuiteSettings

DOCUMENT = {
    "ConnectionStrings": {
        "DefaultConnection": "Server=postgresql.librechat-infrastructure;Database=librechat_identity;",
        "Redis": "redis.librechat-infrastructure:6379",
    },
    "Jwt": {"SecretKey": None, "Issuer": "librechat-identity", "Audience": "librechat", "ExpirationMinutes": 60},
    "Email": {
        "SmtpServer": "smtp.gmail.com",
        "SmtpPort": 587,
        "Username": "noreply@librechat.example.com",
        "Password": None,
    },
}


def written(path: Path, **jwt: Any) -> Path:
    path.write_text(json.dumps({**DOCUMENT, "Jwt": {**DOCUMENT["Jwt"], **jwt}}))  # type: ignore[dict-item]
    return path


def test_the_documents_keys_are_understood(tmp_path: Path) -> None:
    read = read_identity_configuration(written(tmp_path / "appsettings.json", ExpirationMinutes=30))
    assert (read.jwt.issuer, read.jwt.audience, read.jwt.lifetime.total_seconds()) == (
        "librechat-identity",
        "librechat",
        1800,
    )
    assert read.email.smtp_port == 587


def test_the_shipped_file_is_right_and_holds_no_secret() -> None:
    shipped = read_identity_configuration(SuiteSettings().identity_config)
    assert shipped.jwt.secret_key is None
    assert shipped.email.password is None


@pytest.mark.parametrize(
    ("jwt", "said"),
    [
        ({"SecretKey": "your-super-secret-jwt-key-here"}, "placeholder"),
        ({"SecretKey": "too-short-a-key"}, "at least 32 bytes"),
        ({"ExpirationMinutes": 0}, "Jwt.ExpirationMinutes"),
        ({"Isuer": "typo"}, "Jwt.Isuer"),
    ],
)
def test_a_wrong_value_is_named_and_not_repeated(tmp_path: Path, jwt: dict[str, Any], said: str) -> None:
    with pytest.raises(InvalidDefinition, match=said) as refused:
        read_identity_configuration(written(tmp_path / "appsettings.json", **jwt))
    assert "too-short-a-key" not in str(refused.value)
    assert "appsettings.json" in str(refused.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidDefinition, match=r"appsettings\.json cannot be read"):
        read_identity_configuration(tmp_path / "appsettings.json")
