"""A provider behind OpenAI's protocol, which most hosted and self-hosted models speak."""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator

import aiohttp
import orjson

from services.ai_gateway.configuration import Http, OpenAiProviderSettings
from services.ai_gateway.providers import ProviderFailed
from services.peers import ChatDelta, ChatRequest
from services.sse import parse


class OpenAiProvider:
    """Asks `POST {base_url}/chat/completions`, always streamed."""

    def __init__(self, settings: OpenAiProviderSettings, http: Http) -> None:
        self.name = settings.name
        self.model = settings.model
        self._url = f"{settings.base_url.rstrip('/')}/chat/completions"
        self._api_key_env = settings.api_key_env
        self._silence_seconds = http.read_timeout.total_seconds()
        self._session: aiohttp.ClientSession | None = None

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        key = os.environ.get(self._api_key_env)
        if not key:
            raise ProviderFailed(f"provider {self.name}: the environment has no {self._api_key_env}")
        body = {
            "model": self.model,
            "stream": True,
            "messages": [{"role": m.role, "content": m.content} for m in request.messages],
            **({"max_tokens": request.max_tokens} if request.max_tokens is not None else {}),
            **({"seed": request.seed} if request.seed is not None else {}),
        }
        timeout = aiohttp.ClientTimeout(total=None, sock_connect=5, sock_read=self._silence_seconds)
        headers = {"authorization": f"Bearer {key}", "content-type": "application/json"}
        if self._session is None:
            self._session = aiohttp.ClientSession(trust_env=True)
        try:
            async with self._session.post(
                self._url, data=orjson.dumps(body), headers=headers, timeout=timeout
            ) as response:
                if response.status != 200:
                    raise ProviderFailed(f"provider {self.name} answered {response.status}")
                async for event in parse(response.content.iter_any()):
                    if event.data == "[DONE]":
                        return
                    for choice in orjson.loads(event.data).get("choices", ()):
                        text = choice.get("delta", {}).get("content") or ""
                        if text or choice.get("finish_reason"):
                            yield ChatDelta(text, choice.get("finish_reason"))
                raise ProviderFailed(f"provider {self.name} broke off its answer")
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            raise ProviderFailed(f"provider {self.name}: {type(error).__name__}") from error

    async def close(self) -> None:
        if self._session:
            await self._session.close()
