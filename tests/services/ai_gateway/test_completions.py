"""Chats through the gateway: providers that fail, limits, and OpenAI's words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import httpx
import pytest
from fastapi import FastAPI, Request
from starlette.responses import Response, StreamingResponse

from services.ai_gateway.completions import Completions
from services.ai_gateway.configuration import GatewayConfiguration, RateLimit, Resilience
from services.ai_gateway.providers import ProviderFailed
from services.peers import ChatDelta, ChatRequest
from tests.services.live_suite import QUICK_PROVIDERS, LiveSuite, a_chat, a_live_suite, serving

GATEWAY = "ai-gateway-service"


@dataclass
class ScriptedProvider:
    """Answers with its pieces, after failing as often as it is told; a piece that is an error breaks the reply off."""

    name: str
    model: str = "librechat-1"
    failures: int = 0
    pieces: list[str | Exception] = field(default_factory=lambda: ["Ahoy ", "there"])
    delay: float = 0.0
    asked: int = 0

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        self.asked += 1
        if self.asked <= self.failures:
            raise ProviderFailed(f"{self.name} is out of order")
        await asyncio.sleep(self.delay)
        for piece in self.pieces:
            if isinstance(piece, Exception):
                raise piece
            yield ChatDelta(piece)
        yield ChatDelta("", "stop")

    async def close(self) -> None:
        return None


@pytest.fixture
async def suite(tmp_path: Path) -> AsyncIterator[LiveSuite]:
    async with a_live_suite(tmp_path) as suite:
        yield suite


def a_gateway(suite: LiveSuite, *providers: ScriptedProvider, **changes: object) -> Completions:
    configuration = GatewayConfiguration.model_validate(
        {"providers": [{"name": "builtin", "kind": "builtin", "model": "m"}]}
    ).model_copy(update=changes)
    return Completions(suite.context(GATEWAY), list(providers), configuration)


async def answer(gateway: Completions) -> str:
    request = ChatRequest([], model="librechat-1")
    return "".join([delta.text async for delta in gateway.answer("ana", request)])


async def test_a_provider_that_fails_once_is_asked_again(suite: LiveSuite) -> None:
    provider = ScriptedProvider("one", failures=1)
    assert await answer(a_gateway(suite, provider)) == "Ahoy there"
    assert provider.asked == 2


async def test_when_a_provider_keeps_failing_the_next_one_answers(suite: LiveSuite) -> None:
    one, two = ScriptedProvider("one", failures=99), ScriptedProvider("two", pieces=["From two"])
    assert await answer(a_gateway(suite, one, two)) == "From two"
    labels = {"service": GATEWAY, "provider": "one", "outcome": "failed"}
    assert suite.sample(GATEWAY, "chat_completions_total", **labels) == 2


async def test_a_provider_whose_circuit_is_open_is_not_asked(suite: LiveSuite) -> None:
    one, two = ScriptedProvider("one", failures=99), ScriptedProvider("two")
    gateway = a_gateway(suite, one, two)
    for _ in range(6):
        await answer(gateway)
    assert one.asked == Resilience().open_after_failures
    assert two.asked == 6


async def test_when_nobody_answers_the_chat_is_a_503(suite: LiveSuite) -> None:
    with pytest.raises(Exception, match="No model answers") as refused:
        await answer(a_gateway(suite, ScriptedProvider("one", failures=99)))
    assert getattr(refused.value, "status", None) == 503


async def test_a_reply_that_breaks_off_is_not_continued_by_another_provider(suite: LiveSuite) -> None:
    one = ScriptedProvider("one", pieces=["Half a ", ProviderFailed("gone")])
    two = ScriptedProvider("two")
    with pytest.raises(Exception, match="broke off"):
        await answer(a_gateway(suite, one, two))
    assert two.asked == 0


async def test_a_provider_that_says_nothing_for_too_long_has_failed(suite: LiveSuite) -> None:
    silent, quick = ScriptedProvider("silent", delay=5), ScriptedProvider("quick", pieces=["Here"])
    patience = Resilience(first_token_timeout=timedelta(milliseconds=20), attempts=1)
    async with asyncio.timeout(2):
        assert await answer(a_gateway(suite, silent, quick, resilience=patience)) == "Here"


async def test_beyond_the_rate_limit_a_chat_is_a_429_before_anyone_is_asked(tmp_path: Path) -> None:
    (tmp_path / "ai-gateway.yaml").write_text(QUICK_PROVIDERS + "rate_limit: {requests_per_second: 0.001, burst: 1}\n")
    async with a_live_suite(tmp_path) as suite:
        ana = await suite.a_user()
        codes = [(await suite.http.post("/v1/chat/completions", json=a_chat(), headers=ana)) for _ in range(2)]
        assert [c.status_code for c in codes] == [200, 429]
        assert int(codes[1].headers["retry-after"]) >= 1
        assert RateLimit().burst == 2000


async def test_a_streamed_reply_is_the_plain_one_in_openais_chunks(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    plain = await suite.http.post("/v1/chat/completions", json=a_chat(), headers=ana)
    streamed = await suite.http.post("/v1/chat/completions", json=a_chat(stream=True), headers=ana)
    assert streamed.headers["content-type"].startswith("text/event-stream")
    *events, done = streamed.text.strip().split("\n\n")
    assert done == "data: [DONE]"
    chunks = [json.loads(event.removeprefix("data: ")) for event in events]
    assert {c["object"] for c in chunks} == {"chat.completion.chunk"}
    assert len({c["id"] for c in chunks}) == 1
    assert chunks[0]["choices"][0]["delta"]["role"] == "assistant"
    assert [c["choices"][0]["finish_reason"] for c in chunks] == [None] * (len(chunks) - 1) + ["stop"]
    text = "".join(c["choices"][0]["delta"].get("content", "") for c in chunks)
    assert text == plain.json()["choices"][0]["message"]["content"]
    usage = plain.json()["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"] > 0


async def test_models_can_be_listed_and_others_are_not_found(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    models = (await suite.http.get("/v1/models", headers=ana)).json()
    assert [m["id"] for m in models["data"]] == ["librechat-1", "librechat-1-small"]
    answered = await suite.http.post("/v1/chat/completions", json=a_chat(model="gpt-17"), headers=ana)
    assert answered.status_code == 404
    assert "gpt-17" in answered.json()["error"]["message"]


async def test_a_token_that_signed_out_may_not_chat(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    await suite.http.post("/api/auth/logout", headers=ana)
    assert (await suite.http.post("/v1/chat/completions", json=a_chat(), headers=ana)).status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [{"messages": []}, {"messages": [{"role": "pirate", "content": "arr"}]}, {"metadata": {"conversation_id": "../x"}}],
)
async def test_a_chat_that_makes_no_sense_is_refused(suite: LiveSuite, wrong: dict[str, object]) -> None:
    ana = await suite.a_user()
    answered = await suite.http.post("/v1/chat/completions", json={**a_chat(), **wrong}, headers=ana)
    assert answered.status_code == 422


@asynccontextmanager
async def a_remote_model(status: int = 200, cut: bool = False) -> AsyncIterator[tuple[str, list[dict[str, object]]]]:
    """An API in OpenAI's protocol, and what it was asked."""
    app = FastAPI()
    asked: list[dict[str, object]] = []

    @app.post("/v1/chat/completions")
    async def chat(request: Request) -> Response:
        asked.append({**(await request.json()), "authorization": request.headers["authorization"]})

        async def chunks() -> AsyncGenerator[bytes, None]:
            for text in ("From ", "afar"):
                yield b'data: {"choices":[{"delta":{"content":"%s"},"finish_reason":null}]}\n\n' % text.encode()
            if not cut:
                yield b'data: {"choices":[{"delta":{},"finish_reason":"stop"}]}\n\ndata: [DONE]\n\n'

        return StreamingResponse(chunks(), status, media_type="text/event-stream")

    async with serving(app) as url:
        yield url, asked


def remote_provider(url: str) -> str:
    remote = f"name: remote, kind: openai, model: large, base_url: '{url}/v1', api_key_env: TEST_MODEL_KEY"
    return f"providers: [{{{remote}}}]\n"


async def test_a_remote_model_answers_under_its_own_name_with_its_own_key(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TEST_MODEL_KEY", "key-of-the-test")
    async with a_remote_model() as (url, asked):
        (tmp_path / "ai-gateway.yaml").write_text(remote_provider(url))
        async with a_live_suite(tmp_path) as suite:
            ana = await suite.a_user()
            answered = await suite.http.post("/v1/chat/completions", json=a_chat(model="large"), headers=ana)
            assert answered.json()["choices"][0]["message"]["content"] == "From afar"
    assert (asked[0]["model"], asked[0]["authorization"]) == ("large", "Bearer key-of-the-test")


@pytest.mark.parametrize(("status", "cut", "code"), [(500, False, 503), (200, True, 502)])
async def test_a_remote_model_that_fails_fails_the_chat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int, cut: bool, code: int
) -> None:
    monkeypatch.setenv("TEST_MODEL_KEY", "key-of-the-test")
    async with a_remote_model(status, cut) as (url, _):
        (tmp_path / "ai-gateway.yaml").write_text(remote_provider(url))
        async with a_live_suite(tmp_path) as suite:
            ana = await suite.a_user()
            answered = await suite.http.post("/v1/chat/completions", json=a_chat(model="large"), headers=ana)
            assert answered.status_code == code


async def test_a_reader_who_leaves_stops_the_provider(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    async with (
        httpx.AsyncClient(base_url=suite.http.base_url) as http,
        http.stream("POST", "/v1/chat/completions", json=a_chat(stream=True), headers=ana) as reply,
    ):
        await anext(reply.aiter_bytes())
    labels = {"service": GATEWAY, "endpoint": "/v1/chat/completions", "outcome": "client_gone"}
    async with asyncio.timeout(3):
        while suite.sample(GATEWAY, "http_stream_ends_total", **labels) != 1:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert suite.sample(GATEWAY, "chat_completions_total", service=GATEWAY, provider="builtin", outcome="ok") == 0
