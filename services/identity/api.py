"""Routes of the identity service."""

from datetime import UTC, datetime
from typing import Annotated, Any

from fastapi import APIRouter
from pydantic import AfterValidator, BaseModel, Field, SecretStr

from services.access import FromService, SignedIn
from services.context import ServiceContext
from services.identity.accounts import User
from services.identity.identity import Identity


def _is_address(value: str) -> str:
    mailbox, at, domain = value.strip().rpartition("@")
    if not (mailbox and at and "." in domain.strip(".")) or any(c.isspace() for c in value.strip()):
        raise ValueError("this is no e-mail address")
    return value


Address = Annotated[str, Field(max_length=254), AfterValidator(_is_address)]


def _is_long_enough(value: SecretStr) -> SecretStr:
    if not 8 <= len(value.get_secret_value()) <= 1024:
        raise ValueError("a password has 8 to 1024 characters")
    return value


Password = Annotated[SecretStr, AfterValidator(_is_long_enough)]


class Registration(BaseModel):
    email: Address
    password: Password
    name: Annotated[str, Field(max_length=200)] = ""


class Credentials(BaseModel):
    email: Annotated[str, Field(max_length=254)]
    password: Annotated[SecretStr, Field(max_length=1024)]


class IntrospectionRequest(BaseModel):
    token: Annotated[str, Field(max_length=8192)]


class UserView(BaseModel):
    id: str
    email: str
    name: str
    created_at: datetime


class Session(BaseModel):
    access_token: str
    token_type: str = "Bearer"  # noqa: S105
    expires_in: int
    user: UserView


def _view(user: User) -> UserView:
    return UserView(
        id=user.id, email=user.email, name=user.name, created_at=datetime.fromtimestamp(user.created_at, UTC)
    )


def in_process(context: ServiceContext) -> Identity:
    """Identity for callers in the same process."""
    return context.once(Identity)


def router(context: ServiceContext) -> APIRouter:
    """Register, sign in, sign out, introspect, who am I."""
    identity = in_process(context)
    lifetime_seconds = int(context.tokens.lifetime.total_seconds())
    routes = APIRouter(tags=["identity"])

    @routes.post("/api/auth/register", status_code=201)
    async def register(body: Registration) -> UserView:
        return _view(await identity.register(body.email, body.password.get_secret_value(), body.name))

    @routes.post("/api/auth/login")
    async def login(body: Credentials) -> Session:
        user, token = await identity.login(body.email, body.password.get_secret_value())
        return Session(access_token=token, expires_in=lifetime_seconds, user=_view(user))

    @routes.post("/api/auth/logout", status_code=204)
    async def logout(caller: SignedIn) -> None:
        await identity.logout(caller)

    @routes.post("/api/auth/introspect")
    async def introspect(body: IntrospectionRequest, _: FromService) -> dict[str, Any]:
        found = await identity.introspect(body.token)
        if not found.active:  # RFC 7662: nothing more is said of a token that does not hold
            return {"active": False}
        return {"active": True, "user_id": found.user_id, "email": found.email, "expires_at": found.expires_at}

    @routes.get("/api/users/me")
    async def me(caller: SignedIn) -> UserView:
        return _view(await identity.me(caller))

    return routes
