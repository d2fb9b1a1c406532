"""Who writes the replies."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Protocol

from services.peers import ChatDelta, ChatRequest


class ProviderFailed(Exception):
    """A provider gave no answer, or broke it off."""


class Provider(Protocol):
    """A model behind an API. Waiting for it is waiting for a remote machine: it takes time and no CPU."""

    @property
    def name(self) -> str:
        """Label of its metrics and spans."""
        ...

    @property
    def model(self) -> str:
        """Model that callers may ask for by this name."""
        ...

    def reply(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """The reply, piece by piece; the last piece has a finish reason. Raises ProviderFailed."""
        ...

    async def close(self) -> None: ...
