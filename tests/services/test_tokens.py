"""Tokens: who may make them, who may read them, and for how long."""

from __future__ import annotations

import stat
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import jwt
import pytest

from services.tokens import InvalidToken, Tokens, read_or_make_secret

NOON = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
SECRET = b"s" * 32


def tokens_at(now: datetime, secret: bytes = SECRET, issuer: str = "librechat-identity") -> Tokens:
    return Tokens(secret, lambda: now, issuer, "librechat", timedelta(minutes=60))


def test_a_users_token_carries_the_documents_names() -> None:
    claims = jwt.decode(tokens_at(NOON).for_user("ana", "ana@example.org"), options={"verify_signature": False})
    assert (claims["iss"], claims["aud"], claims["sub"]) == ("librechat-identity", "librechat", "ana")
    assert claims["exp"] - claims["iat"] == 3600


def test_a_token_holds_for_an_hour() -> None:
    token = tokens_at(NOON).for_user("ana", "ana@example.org")
    assert tokens_at(NOON + timedelta(minutes=59)).verify(token).user_id == "ana"
    with pytest.raises(InvalidToken):
        tokens_at(NOON + timedelta(minutes=61)).verify(token)


def test_a_clock_that_is_a_little_behind_accepts_a_fresh_token() -> None:
    token = tokens_at(NOON + timedelta(seconds=3)).for_user("ana", "ana@example.org")
    assert tokens_at(NOON).verify(token).user_id == "ana"


def test_two_tokens_of_one_user_differ_so_that_one_can_be_taken_back() -> None:
    tokens = tokens_at(NOON)
    assert tokens.for_user("ana", "a@x.org") != tokens.for_user("ana", "a@x.org")


def test_a_service_names_itself_and_the_user_it_acts_for() -> None:
    caller = tokens_at(NOON).verify(tokens_at(NOON).acting_for("ana", "ai-gateway-service"))
    assert (caller.user_id, caller.service) == ("ana", "ai-gateway-service")


@pytest.mark.parametrize(
    "token",
    [
        "",
        "not.a.token",
        tokens_at(NOON, secret=b"x" * 32).for_user("ana", "a@x.org"),
        tokens_at(NOON, issuer="someone-else").for_user("ana", "a@x.org"),
        jwt.encode({"sub": "ana", "aud": "librechat", "iss": "librechat-identity", "jti": "1"}, SECRET, "HS256"),
        jwt.encode({"sub": "ana"}, None, algorithm="none"),
    ],
    ids=["empty", "noise", "other key", "other issuer", "never expires", "unsigned"],
)
def test_what_we_did_not_sign_speaks_for_nobody(token: str) -> None:
    with pytest.raises(InvalidToken):
        tokens_at(NOON).verify(token)


def test_a_users_token_does_not_become_a_services_by_a_claim() -> None:
    now = int(NOON.timestamp())
    forged = {"sub": "ana", "aud": "librechat", "iss": "librechat-identity", "jti": "1", "iat": now, "exp": now + 60}
    token = jwt.encode({**forged, "act": {"sub": "ai-gateway-service"}}, SECRET, "HS256")
    assert tokens_at(NOON).verify(token).service is None


def test_a_short_key_is_refused() -> None:
    with pytest.raises(ValueError, match="at least 32"):
        tokens_at(NOON, secret=b"short")


def test_a_key_is_made_once_for_its_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "run" / "jwt.secret"
    assert read_or_make_secret(path) == read_or_make_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert len(list(path.parent.iterdir())) == 1


@pytest.mark.stack
def test_processes_that_start_together_agree_on_one_key(tmp_path: Path) -> None:
    code = "import sys, pathlib, services.tokens as t; print(t.read_or_make_secret(pathlib.Path(sys.argv[1])).decode())"
    path = str(tmp_path / "jwt.secret")
    started = [
        subprocess.Popen([sys.executable, "-c", code, path], stdout=subprocess.PIPE, text=True) for _ in range(3)
    ]
    assert len({each.communicate(timeout=30)[0] for each in started}) == 1
