"""The monolith's peers: the same ports as over the mesh, joined directly to the code. No HTTP, no hop."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from services.app import service_api
from services.context import ServiceContext
from services.peers import Completions, Conversations, Identity, Notifications, SearchIndex


class InProcessPeers:
    """Looks a peer up when it is first needed, because the services of a monolith need each other."""

    def __init__(self) -> None:
        self.contexts: dict[str, ServiceContext] = {}

    @property
    def identity(self) -> Identity:
        return cast(Identity, self._peer("identity-service"))

    @property
    def conversations(self) -> Conversations:
        return cast(Conversations, self._peer("conversation-service"))

    @property
    def search(self) -> SearchIndex:
        return cast(SearchIndex, self._peer("search-service"))

    @property
    def notifications(self) -> Notifications:
        return cast(Notifications, self._peer("notification-service"))

    @property
    def completions(self) -> Completions:
        return cast(Completions, self._peer("ai-gateway-service"))

    def _peer(self, service: str) -> object:
        in_process: Callable[[ServiceContext], object] = vars(service_api(service))["in_process"]
        return in_process(self.contexts[service])
