"""The accounts that journeys share: made ready one by one, so that no storm of sign-ins comes, and kept signed in."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import random
import secrets
import time
from dataclasses import dataclass, field

from services.load.gateway import Gateway, Reply, StepFailed, Visit, has
from services.load.recorder import Recorder

log = logging.getLogger(__name__)

FIRST_RETRY_SECONDS = 0.5
LONGEST_RETRY_SECONDS = 5.0
LOGBOOK = "Logbook"


@dataclass
class User:
    """An account that is signed in."""

    id: str
    email: str
    password: str = field(repr=False)
    token: str = field(repr=False)
    renew_at: float  # monotonic; sign in again then
    word: str = ""  # a word that search finds in this user's logbook, and nowhere else


class Accounts:
    """The pool. Journeys take anyone from it; nobody is ever exclusively theirs, as real users have several tabs."""

    def __init__(self, gateway: Gateway, recorder: Recorder, secret: bytes, chance: random.Random) -> None:
        self._gateway = gateway
        self._recorder = recorder
        self._secret = secret
        self._chance = chance
        self._users: list[User] = []
        self._some = asyncio.Event()

    def __len__(self) -> int:
        return len(self._users)

    async def anyone(self) -> User:
        """A user at random; waits for the first one."""
        await self._some.wait()
        return self._chance.choice(self._users)

    async def keep_ready(self, count: int, per_second: float) -> None:
        """Until cancelled: make accounts ready one after another, then renew their tokens before they expire."""
        number, pause = 0, FIRST_RETRY_SECONDS
        while number < count:
            try:
                self._users.append(await self._ready(number))
            except StepFailed as failure:  # the gateway may not be up yet: try again, more and more slowly
                log.info("account %d is not ready yet: %s", number, failure)
                await asyncio.sleep(pause)
                pause = min(2 * pause, LONGEST_RETRY_SECONDS)
                continue
            self._some.set()
            number, pause = number + 1, FIRST_RETRY_SECONDS
            await asyncio.sleep(1 / per_second)
        while True:
            await asyncio.sleep(1 / per_second)
            oldest = min(self._users, key=lambda user: user.renew_at)
            if time.monotonic() >= oldest.renew_at:
                await self._renew(oldest)

    async def _ready(self, number: int) -> User:
        """The same account at each start, so that starts do not fill the database with accounts."""
        email = f"journeys-{number:03d}@librechat.example"
        password = hmac.new(self._secret, email.encode(), hashlib.sha256).hexdigest()
        visit = self._uncounted("account")
        try:
            user = await sign_up(visit, email, password)
        except StepFailed as failure:
            if failure.failure.kind != "auth":
                raise
            # Known under another password: the database is older than the secret.
            email = f"journeys-{secrets.token_hex(6)}@librechat.example"
            user = await sign_up(visit, email, password)
        user.word = f"logbook{hashlib.sha256(user.email.encode()).hexdigest()[:12]}"
        await self._keep_logbook(user)
        return user

    async def _keep_logbook(self, user: User) -> None:
        """A conversation that search finds by the user's own word; the one of an earlier start if there is one."""
        visit = self._uncounted("logbook")
        visit.token = user.token
        if await is_found(visit, user.word):
            return
        body = {"title": LOGBOOK}
        opened = await visit.call("open", "POST", "/api/conversations", json=body, expect=201, check=has("id"))
        path = f"/api/conversations/{opened.json()['id']}/messages"
        text = f"The word of this logbook is {user.word}."
        await visit.call("write", "POST", path, json={"messages": [{"content": text}]}, expect=201)
        await wait_until_found(visit, user.word)

    def doubt(self, user: User) -> None:
        """A token of this user was refused: get another one soon."""
        user.renew_at = 0.0

    async def _renew(self, user: User) -> None:
        try:
            renewed = await sign_up(self._uncounted("renewal"), user.email, user.password)
        except StepFailed as failure:
            log.warning("a token could not be renewed: %s", failure)
            user.renew_at = time.monotonic() + LONGEST_RETRY_SECONDS
        else:
            user.id, user.token, user.renew_at = renewed.id, renewed.token, renewed.renew_at

    def _uncounted(self, journey: str) -> Visit:
        """Set-up is no demo traffic: while the stack starts it fails, and nobody is harmed."""
        return Visit(self._gateway, None, journey)


async def sign_up(visit: Visit, email: str, password: str) -> User:
    """Register, unless that was done before, and sign in."""
    body = {"email": email, "password": password, "name": "Journeys"}
    await visit.call("register", "POST", "/api/auth/register", json=body, expect=(201, 409))
    return await sign_in(visit, email, password)


async def sign_in(visit: Visit, email: str, password: str) -> User:
    """A fresh token, to be renewed somewhere between half and three quarters of its life: not all at once."""

    def has_token(reply: Reply) -> str | None:
        session = reply.json()
        return None if session["access_token"] and session["user"]["id"] else "no token"

    body = {"email": email, "password": password}
    session = (await visit.call("login", "POST", "/api/auth/login", json=body, check=has_token)).json()
    share = random.uniform(0.5, 0.75)  # noqa: S311
    return User(
        id=session["user"]["id"],
        email=email,
        password=password,
        token=session["access_token"],
        renew_at=time.monotonic() + share * session["expires_in"],
    )


FOUND_WITHIN_SECONDS = 15.0
"""Longest time from the append of a message until search must find it."""

LOOK_AGAIN_SECONDS = 0.25


async def wait_until_found(visit: Visit, word: str, conversation_id: str | None = None) -> None:
    """Search for a word until it is found: indexing comes after the answer. Raises StepFailed when that is too late."""
    deadline = time.monotonic() + FOUND_WITHIN_SECONDS
    while True:
        if await is_found(visit, word, conversation_id, deadline):
            return
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


async def is_found(visit: Visit, word: str, conversation_id: str | None = None, deadline: float | None = None) -> bool:
    """Whether search finds a word (in that conversation). From `deadline` (monotonic) on, not to is a failure."""
    found = False

    def finds(reply: Reply) -> str | None:
        nonlocal found
        found = any(conversation_id in (None, hit["conversation_id"]) for hit in reply.json()["results"])
        if found or deadline is None or time.monotonic() < deadline:
            return None
        return f"{word!r} was not found within {FOUND_WITHIN_SECONDS:.0f} s of its append"

    await visit.call("find", "GET", f"/api/search?q={word}", check=finds)
    return found
