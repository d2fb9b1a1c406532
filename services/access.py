"""Who may call: dependencies for routes."""

from typing import Annotated

from fastapi import Depends, Request

from services.problems import Problem, unauthorized
from services.tokens import Caller, InvalidToken, Tokens


async def caller_of(request: Request) -> Caller:
    """The caller behind the bearer token: a user, or a service that acts for one. 401 without a good token."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise unauthorized()
    tokens: Tokens = request.app.state.tokens
    try:
        return tokens.verify(token.strip())
    except InvalidToken as error:
        raise unauthorized() from error


SignedIn = Annotated[Caller, Depends(caller_of)]
"""Route parameter: a user, or a service acting for one. Ownership is checked against `user_id`."""


async def service_caller(caller: SignedIn) -> Caller:
    """Only another service; a user's own token gets 403."""
    if caller.service is None:
        raise Problem(403, "Only services of the suite may call this.")
    return caller


FromService = Annotated[Caller, Depends(service_caller)]
"""Route parameter: a service acting for `user_id`."""
