"""A chat from end to end: who asks, may they, who answers, and who else is told."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator
from contextlib import aclosing
from uuid import NAMESPACE_URL, uuid5

from services.ai_gateway.builtin import BuiltInProvider
from services.ai_gateway.circuit import Circuit, CircuitState
from services.ai_gateway.configuration import (
    GatewayConfiguration,
    OpenAiProviderSettings,
    ProviderSettings,
    read_gateway_configuration,
)
from services.ai_gateway.providers import Provider, ProviderFailed
from services.ai_gateway.token_bucket import TokenBucket
from services.context import ServiceContext
from services.ids import new_id
from services.peers import ChatDelta, ChatRequest, NewMessage, Notice
from services.problems import Problem, unauthorized

log = logging.getLogger(__name__)

RETRY_PAUSE_SECONDS = 0.1


class Completions:
    """The gateway's domain on one context; also what others call in process."""

    def __init__(self, context: ServiceContext, providers: list[Provider], configuration: GatewayConfiguration) -> None:
        self._context = context
        self._providers = providers
        context.on_close(self.close)
        self._resilience = configuration.resilience
        limit = configuration.rate_limit
        self._bucket = TokenBucket(
            limit.requests_per_second / limit.window.total_seconds(), limit.burst, context.monotonic
        )
        self._circuits = {
            provider.name: Circuit(
                self._resilience.open_after_failures, self._resilience.open_for.total_seconds(), context.monotonic
            )
            for provider in providers
        }
        self._chats = context.telemetry.counter("chat_completions_total", "Chats answered", ["provider", "outcome"])
        self._limited = context.telemetry.counter("chat_rate_limited_total", "Chats refused by the rate limit")

    @property
    def models(self) -> list[str]:
        return [provider.model for provider in self._providers]

    async def stream(self, token: str, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """Answer one chat, piece by piece.

        The exchange joins its conversation after the last piece and before the end, both messages or none: a caller who
        sees the end finds it there, and one who tries a broken chat again does not double it.
        """
        user_id = await self.admit(token)
        async with aclosing(self.answer(user_id, request)) as deltas:
            async for delta in deltas:
                yield delta

    async def admit(self, token: str) -> str:
        """The id of the user who may chat now. 429 beyond the rate limit, 401 for a token that does not hold."""
        if (wait := self._bucket.take()) is not None:
            self._limited()
            raise Problem(
                429, "Too many chats at this moment; try again.", headers={"retry-after": str(max(1, round(wait)))}
            )
        found = await self._context.peers.identity.introspect(token)
        if not found.active or found.user_id is None:
            raise unauthorized()
        return found.user_id

    async def answer(self, user_id: str, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """As `stream`, for a user who was admitted."""
        text = ""
        last: ChatDelta | None = None
        async with aclosing(self._from_providers(request)) as deltas:
            async for delta in deltas:
                if not text:
                    self._context.telemetry.first_token()
                text += delta.text
                if delta.finish_reason:
                    last = delta
                else:
                    yield delta
        await self._keep(user_id, request, text)
        yield last or ChatDelta("", "stop")

    async def _keep(self, user_id: str, request: ChatRequest, text: str) -> None:
        exchange = request.exchange_id or new_id()
        if request.conversation_id is not None:
            question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
            messages = [
                NewMessage("user", question, id=_message_id(user_id, exchange, "user")),
                NewMessage("assistant", text, id=_message_id(user_id, exchange, "assistant")),
            ]
            await self._context.peers.conversations.append(user_id, request.conversation_id, messages)
        notice = Notice(
            kind="chat.answered",
            title="Your answer is ready",
            body=text[:140],
            about=request.conversation_id,
            event_id=_message_id(user_id, exchange, "notice"),
        )
        self._context.in_background(
            self._context.peers.notifications.tell(user_id, notice), "telling the user of an answer"
        )

    async def _from_providers(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """The first provider that answers. Once one has begun, there is no other: two halves make no reply."""
        last_failure: ProviderFailed | None = None
        for provider in self._in_order(request.model):
            circuit = self._circuits[provider.name]
            for attempt in range(self._resilience.attempts):
                if not circuit.admit():
                    self._chats(provider.name, "circuit_open")
                    break
                if attempt:
                    await asyncio.sleep(RETRY_PAUSE_SECONDS)
                begun = False
                try:
                    async with aclosing(self._timed(provider, request)) as deltas:
                        async for delta in deltas:
                            begun = True
                            yield delta
                    circuit.succeeded()
                    self._chats(provider.name, "ok")
                    return
                except ProviderFailed as error:
                    circuit.failed()
                    self._chats(provider.name, "failed")
                    log.warning("%s", error)
                    if begun:
                        raise Problem(502, "The model broke off its answer; try again.") from error
                    last_failure = error
        raise Problem(
            503, "No model answers at this moment; try again.", headers={"retry-after": "5"}
        ) from last_failure

    async def _timed(self, provider: Provider, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        """The provider's pieces, with the wait for each of them counted as the provider's."""
        first_token_seconds = self._resilience.first_token_timeout.total_seconds()
        begun = False
        with self._context.telemetry.provider_call(provider.name) as call:
            async with aclosing(provider.reply(request)) as deltas:
                while True:
                    try:
                        with call.waiting():
                            async with asyncio.timeout(None if begun else first_token_seconds):
                                delta = await anext(deltas)
                    except StopAsyncIteration:
                        return
                    except TimeoutError as error:
                        raise ProviderFailed(f"provider {provider.name} was silent too long") from error
                    begun = True
                    yield delta

    def _in_order(self, model: str) -> list[Provider]:
        """Who is asked first for `model`, then the others, whose circuits are closed before those with trials."""
        asked = [p for p in self._providers if p.model == model]
        others = [p for p in self._providers if p.model != model]
        others.sort(key=lambda provider: self._circuits[provider.name].state is not CircuitState.CLOSED)
        return asked + others

    async def close(self) -> None:
        for provider in self._providers:
            await provider.close()


def _message_id(user_id: str, exchange_id: str, part: str) -> str:
    """The same for the same exchange of the same user, and for nobody else's."""
    return str(uuid5(NAMESPACE_URL, f"librechat:{user_id}:{exchange_id}:{part}"))


def completions_of(context: ServiceContext) -> Completions:
    """The gateway as its configuration file words it."""
    configuration = read_gateway_configuration(context.settings.ai_gateway_config)
    providers = [_provider(settings, configuration) for settings in configuration.providers]
    return Completions(context, providers, configuration)


def _provider(settings: ProviderSettings, configuration: GatewayConfiguration) -> Provider:
    if isinstance(settings, OpenAiProviderSettings):
        from services.ai_gateway.openai import OpenAiProvider  # brings an HTTP client, which the built-in one needs not

        return OpenAiProvider(settings, configuration.http)
    return BuiltInProvider(settings)
