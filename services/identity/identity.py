"""What identity does: register, sign in, sign out, and say whether a token holds."""

from __future__ import annotations

from datetime import timedelta

from services.context import ServiceContext
from services.identity.accounts import MIGRATIONS, Accounts, User, normal_email
from services.identity.passwords import Passwords
from services.ids import new_id
from services.peers import Introspection
from services.problems import Problem, unauthorized
from services.tokens import Caller, InvalidToken

MAX_FAILED_LOGINS = 10
FAILED_LOGIN_WINDOW = timedelta(minutes=15)


class Identity:
    """The identity domain on one context; also what others call in process."""

    def __init__(self, context: ServiceContext) -> None:
        self._tokens = context.tokens
        self._clock = context.clock
        self._accounts = Accounts(context.storage.database("identity", MIGRATIONS))
        self._passwords = Passwords(context.settings.password_hash_workers)
        context.on_close(self._passwords.close)
        self._registrations = context.telemetry.counter("user_registrations_total", "Accounts made", ["outcome"])
        self._logins = context.telemetry.counter("user_logins_total", "Attempts to sign in", ["outcome"])
        self._introspections = context.telemetry.counter("token_introspections_total", "Tokens asked about", ["active"])

    async def register(self, email: str, password: str, name: str) -> User:
        """A new user. 409 when the address is taken."""
        user = User(
            id=new_id(),
            email=normal_email(email),
            name=name.strip() or email.partition("@")[0],
            password_hash=await self._passwords.hash(password),
            created_at=self._clock().timestamp(),
        )
        if not await self._accounts.add(user):
            self._registrations("taken")
            raise Problem(409, "This address is registered already.")
        self._registrations("ok")
        return user

    async def login(self, email: str, password: str) -> tuple[User, str]:
        """The user and a token. One answer for a wrong password and for an unknown address, after the same time.

        After 10 failures within 15 minutes an address has to wait, known or not.
        """
        email = normal_email(email)
        now = self._clock().timestamp()
        since = now - FAILED_LOGIN_WINDOW.total_seconds()
        if await self._accounts.failed_logins(email, since) >= MAX_FAILED_LOGINS:
            self._logins("blocked")
            raise Problem(429, "Too many attempts for this address; try again later.", headers={"retry-after": "900"})
        user = await self._accounts.by_email(email)
        right = await self._passwords.matches(user.password_hash if user else None, password)
        if user is None or not right:
            await self._accounts.note_failed_login(email, now, forget_before=since)
            self._logins("refused")
            raise unauthorized("Address or password is wrong.")
        if self._passwords.outdated(user.password_hash):
            await self._accounts.set_password_hash(user.id, await self._passwords.hash(password))
        await self._accounts.clear_failed_logins(email)
        self._logins("ok")
        return user, self._tokens.for_user(user.id, user.email)

    async def me(self, caller: Caller) -> User:
        """The user behind a token that identity itself still accepts."""
        user = await self._accounts.holder_of(caller.user_id, caller.token_id)
        if user is None:
            raise unauthorized()
        return user

    async def logout(self, caller: Caller) -> None:
        """From now on this token is not active."""
        await self._accounts.revoke(caller.token_id, caller.expires_at, self._clock().timestamp())

    async def introspect(self, token: str) -> Introspection:
        """Whether a user's token holds now. Tokens of services are no users' tokens, so they are not active here."""
        found = await self._introspect(token)
        self._introspections("true" if found.active else "false")
        return found

    async def _introspect(self, token: str) -> Introspection:
        try:
            caller = self._tokens.verify(token)
        except InvalidToken:
            return Introspection(active=False)
        if caller.service is not None:
            return Introspection(active=False)
        user = await self._accounts.holder_of(caller.user_id, caller.token_id)
        if user is None:
            return Introspection(active=False)
        return Introspection(active=True, user_id=user.id, email=user.email, expires_at=caller.expires_at)
