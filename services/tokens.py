"""Signed tokens: what a user holds, and what one service shows to another when it acts for a user."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path

import jwt

from control_plane.clock import Clock
from services.ids import new_id

ALGORITHM = "HS256"
INTERNAL_AUDIENCE = "librechat-internal"
INTERNAL_LIFETIME = timedelta(seconds=60)
LEEWAY = timedelta(seconds=5)  # clocks of two machines are never equal
MIN_SECRET_BYTES = 32


class InvalidToken(Exception):
    """Not signed by us, expired, for another audience, or not a token at all."""


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks. `service` is set when a service acts for the user; `token` is what they showed."""

    user_id: str
    token: str
    token_id: str
    expires_at: int  # unix seconds
    email: str | None = None
    service: str | None = None


class Tokens:
    """Issues and verifies; holds the only copy of the key."""

    def __init__(self, secret: bytes, clock: Clock, issuer: str, audience: str, lifetime: timedelta) -> None:
        if len(secret) < MIN_SECRET_BYTES:
            raise ValueError(f"the token key has {len(secret)} bytes; at least {MIN_SECRET_BYTES} are needed")
        self._secret = secret
        self._clock = clock
        self._issuer = issuer
        self._audience = audience
        self.lifetime = lifetime

    def for_user(self, user_id: str, email: str) -> str:
        return self._issue(self._audience, self.lifetime, {"sub": user_id, "email": email})

    def acting_for(self, user_id: str, service: str) -> str:
        """A service's own token, good for a minute, in the name of a user (the `act` claim of RFC 8693)."""
        return self._issue(INTERNAL_AUDIENCE, INTERNAL_LIFETIME, {"sub": user_id, "act": {"sub": service}})

    def verify(self, token: str) -> Caller:
        """Who this token speaks for, by signature, issuer, audience and expiry. Raises InvalidToken.

        Revocation is not seen here: only identity knows it, and `introspect` asks.
        """
        try:
            claims = jwt.decode(
                token,
                self._secret,
                algorithms=[ALGORITHM],
                issuer=self._issuer,
                audience=[self._audience, INTERNAL_AUDIENCE],
                options={
                    "require": ["sub", "exp", "iat", "aud", "iss", "jti"],
                    "verify_exp": False,
                    "verify_iat": False,
                },
            )
            expires_at = int(claims["exp"])
            if expires_at + LEEWAY.total_seconds() < self._clock().timestamp():
                raise InvalidToken("expired")
            internal = claims["aud"] == INTERNAL_AUDIENCE
            return Caller(
                user_id=str(claims["sub"]),
                token=token,
                token_id=str(claims["jti"]),
                expires_at=expires_at,
                email=claims.get("email"),
                service=str(claims["act"]["sub"]) if internal else None,
            )
        except (jwt.InvalidTokenError, KeyError, TypeError, ValueError) as error:
            raise InvalidToken(str(error)) from error

    def _issue(self, audience: str, lifetime: timedelta, claims: dict[str, object]) -> str:
        now = int(self._clock().timestamp())
        standard = {"iss": self._issuer, "aud": audience, "iat": now, "exp": now + int(lifetime.total_seconds())}
        return jwt.encode({**standard, "jti": new_id(), **claims}, self._secret, algorithm=ALGORITHM)


def read_or_make_secret(path: Path) -> bytes:
    """The key in `path`. Of several processes that find none, exactly one makes it and the others read that one."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    if not path.exists():
        draft = path.with_name(f"{path.name}.{os.getpid()}")
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "w") as file:
            file.write(secrets.token_urlsafe(48))
        try:
            os.link(draft, path)  # fails if someone was first; a rename would replace their key
        except FileExistsError:
            pass
        finally:
            draft.unlink()
    return path.read_bytes().strip()
