"""Routes of the AI gateway: OpenAI's chat completions."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Any

import orjson
from fastapi import APIRouter
from starlette.responses import Response

from services.access import SignedIn
from services.ai_gateway.completions import Completions, completions_of
from services.chat_format import ChatBody
from services.context import ServiceContext
from services.ids import new_id
from services.peers import ChatDelta, ChatRequest
from services.problems import Problem
from services.sse import DONE, event_stream


def in_process(context: ServiceContext) -> Completions:
    """The gateway for callers in the same process."""
    return context.once(completions_of)


def router(context: ServiceContext) -> APIRouter:
    """Chat completions, plain and streamed, and the models to choose from."""
    completions = in_process(context)
    routes = APIRouter(tags=["ai-gateway"])

    @routes.post("/v1/chat/completions")
    async def chat(body: ChatBody, caller: SignedIn) -> Response:
        request = body.request()
        if request.model not in completions.models:
            raise Problem(404, f"There is no model {request.model!r}; see /v1/models.")
        user_id = await completions.admit(caller.token)
        reply = _Reply(request, int(context.clock().timestamp()))
        if body.stream:
            return await event_stream(reply.streamed(completions.answer(user_id, request)))
        return Response(await reply.whole(completions.answer(user_id, request)), media_type="application/json")

    @routes.get("/v1/models")
    async def models(_: SignedIn) -> dict[str, Any]:
        return {
            "object": "list",
            "data": [
                {"id": model, "object": "model", "created": _RELEASED, "owned_by": "librechat"}
                for model in completions.models
            ],
        }

    return routes


_RELEASED = 1_767_225_600  # 2026-01-01, in unix seconds


class _Reply:
    """One reply in OpenAI's words."""

    def __init__(self, request: ChatRequest, created: int) -> None:
        self._request = request
        self._common = {"id": f"chatcmpl-{new_id()}", "created": created, "model": request.model}

    async def whole(self, deltas: AsyncIterator[ChatDelta]) -> bytes:
        text, reason = "", "stop"
        async for delta in deltas:
            text += delta.text
            reason = delta.finish_reason or reason
        asked = sum(len(m.content.split()) for m in self._request.messages)
        written = len(text.split())
        return orjson.dumps(
            {
                **self._common,
                "object": "chat.completion",
                "choices": [{"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": reason}],
                "usage": {"prompt_tokens": asked, "completion_tokens": written, "total_tokens": asked + written},
            }
        )

    async def streamed(self, deltas: AsyncGenerator[ChatDelta, None]) -> AsyncGenerator[bytes, None]:
        first = True
        async with aclosing(deltas) as pieces:
            async for delta in pieces:
                content: dict[str, str] = {"role": "assistant"} if first else {}
                first = False
                if delta.text:
                    content["content"] = delta.text
                yield self._chunk(content, delta.finish_reason)
        yield DONE

    def _chunk(self, delta: dict[str, str], finish_reason: str | None) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish_reason}
        chunk = {**self._common, "object": "chat.completion.chunk", "choices": [choice]}
        return b"data: " + orjson.dumps(chunk) + b"\n\n"
