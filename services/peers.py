"""What a service may ask of another one. Over the mesh or in process, the caller cannot tell.

Failures arrive as `Problem`: a peer's 4xx keeps its status and sentence; a peer that failed, timed out or could not be
reached is a 502, 504 or 503 that carries the peer's fault marker on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Never, Protocol

CALL_GRAPH: Mapping[str, frozenset[str]] = {
    "identity-service": frozenset(),
    "conversation-service": frozenset({"search-service"}),
    "ai-gateway-service": frozenset({"identity-service", "conversation-service", "notification-service"}),
    "file-service": frozenset(),
    "search-service": frozenset(),
    "notification-service": frozenset(),
    "streaming-service": frozenset({"identity-service", "ai-gateway-service"}),
}
"""Who calls whom; nobody else calls anybody."""

Role = Literal["system", "user", "assistant"]


@dataclass(frozen=True, slots=True)
class Introspection:
    """What identity says of a token (after RFC 7662). Not active: expired, revoked, malformed or of an unknown user."""

    active: bool
    user_id: str | None = None
    email: str | None = None
    expires_at: int | None = None  # unix seconds


@dataclass(frozen=True, slots=True)
class NewMessage:
    """A message about to join a conversation. A sender that may repeat itself gives an `id`: it then joins once."""

    role: Role
    content: str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Document:
    """Text that its owner wants to find again. `id` is the message's or file's: indexing it again replaces it."""

    id: str
    kind: str  # "message", "conversation" or "file"
    title: str
    text: str
    conversation_id: str | None = None


@dataclass(frozen=True, slots=True)
class Notice:
    """An entry for someone's inbox. `about` points at what it is of, e.g. a conversation's id.

    `event_id` names the event behind it: the same event told twice makes one entry. None: each telling is an event
    of its own.
    """

    kind: str
    title: str
    body: str = ""
    about: str | None = None
    event_id: str | None = None


@dataclass(frozen=True, slots=True)
class ChatMessage:
    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class ChatRequest:
    """One chat, as OpenAI's API words it.

    `conversation_id` (there: in `metadata`) is where the exchange is kept; None: nowhere. `exchange_id` (likewise)
    names the exchange, so that one which is answered again after a crash joins the conversation once.
    """

    messages: Sequence[ChatMessage]
    model: str = "librechat-1"
    conversation_id: str | None = None
    exchange_id: str | None = None
    max_tokens: int | None = None
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class ChatDelta:
    """A piece of a reply as it is written. The last one has a finish reason."""

    text: str
    finish_reason: str | None = None


class Identity(Protocol):
    async def introspect(self, token: str) -> Introspection:
        """Whether a user's token holds now. POST /api/auth/introspect"""
        ...


class Conversations(Protocol):
    async def append(self, user_id: str, conversation_id: str, messages: Sequence[NewMessage]) -> list[str]:
        """Add messages in order, all or none, and give their ids. 404 when the conversation is not this user's.

        POST /api/conversations/{conversation_id}/messages
        """
        ...


class SearchIndex(Protocol):
    async def index(self, user_id: str, documents: Sequence[Document]) -> None:
        """Make documents findable by their owner. POST /api/search/documents"""
        ...

    async def forget(self, user_id: str, conversation_id: str) -> None:
        """Make a deleted conversation unfindable for good: what is indexed of it later is ignored.

        DELETE /api/search/conversations/{conversation_id}
        """
        ...


class Notifications(Protocol):
    async def tell(self, user_id: str, notice: Notice) -> str:
        """Put a notice in someone's inbox and give its id. POST /api/notifications"""
        ...


class Completions(Protocol):
    def stream(self, token: str, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Answer a chat in the name of the token's user, piece by piece.

        POST /v1/chat/completions with `stream: true`
        """
        ...


class Peers(Protocol):
    """The other services, as one service sees them."""

    @property
    def identity(self) -> Identity: ...
    @property
    def conversations(self) -> Conversations: ...
    @property
    def search(self) -> SearchIndex: ...
    @property
    def notifications(self) -> Notifications: ...
    @property
    def completions(self) -> Completions: ...


class NoPeers:
    """For a service that calls nobody: it then needs no HTTP client, which costs a sixth of its start and memory."""

    @property
    def identity(self) -> Identity:
        return self._nobody()

    @property
    def conversations(self) -> Conversations:
        return self._nobody()

    @property
    def search(self) -> SearchIndex:
        return self._nobody()

    @property
    def notifications(self) -> Notifications:
        return self._nobody()

    @property
    def completions(self) -> Completions:
        return self._nobody()

    def _nobody(self) -> Never:
        raise LookupError("this service calls nobody; the call graph in services/peers.py says who may")
