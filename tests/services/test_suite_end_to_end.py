"""The call graph, over sockets and inside the monolith."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from opentelemetry.sdk.trace import ReadableSpan

from control_plane.topology import MONOLITH
from services.faults import Fault
from tests.services.live_suite import LiveSuite, a_chat, a_live_suite

pytestmark = pytest.mark.suite

FOREVER = 4e9


@pytest.fixture
async def suite(tmp_path: Path) -> AsyncIterator[LiveSuite]:
    async with a_live_suite(tmp_path) as suite:
        yield suite


async def test_a_chat_is_answered_kept_indexed_and_told(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    conversation = await suite.a_conversation(ana)
    answer = await suite.http.post("/v1/chat/completions", json=a_chat(conversation), headers=ana)
    assert answer.status_code == 200
    text = answer.json()["choices"][0]["message"]["content"]
    assert "sailing" in text.casefold()
    assert await suite.messages(conversation, ana) == [("user", "How do I plan a sailing trip?"), ("assistant", text)]
    await suite.context("ai-gateway-service").close()  # what happens in the background has happened
    await suite.context("conversation-service").close()
    inbox = (await suite.http.get("/api/notifications", headers=ana)).json()["notifications"]
    assert [n["about"] for n in inbox] == [conversation]
    async with asyncio.timeout(5):  # indexing follows the answer
        while not (await suite.http.get("/api/search?q=sailing", headers=ana)).json()["results"]:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    asked = {
        f"{host} {method} {path.replace(conversation, 'ID')}"
        for host, method, path in map(str.split, suite.crowd.asked)
    }
    assert asked == {
        "identity-service POST /api/auth/introspect",
        "conversation-service POST /api/conversations/ID/messages",
        "notification-service POST /api/notifications",
        "search-service POST /api/search/documents",
    }


async def test_inside_the_monolith_a_chat_makes_no_call(suite: LiveSuite) -> None:
    ana = {**await suite.a_user(), "x-pin": MONOLITH}
    conversation = await suite.a_conversation(ana)
    answer = await suite.http.post("/v1/chat/completions", json=a_chat(conversation), headers=ana)
    assert answer.status_code == 200
    assert suite.crowd.asked == []
    label = {"service": "ai-gateway-service", "endpoint": "/v1/chat/completions", "method": "POST"}
    assert suite.sample(MONOLITH, "http_requests_total", status_code="200", **label) == 1


async def test_what_a_service_wrote_the_monolith_reads_and_the_other_way_round(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    inside = {**ana, "x-pin": MONOLITH}
    from_service = await suite.a_conversation(ana)
    from_monolith = await suite.a_conversation(inside)
    listed = (await suite.http.get("/api/conversations", headers=ana)).json()["conversations"]
    assert {c["id"] for c in listed} == {from_service, from_monolith}
    assert (await suite.http.get("/api/conversations", headers=inside)).json()["conversations"] == listed
    assert (await suite.http.get("/api/users/me", headers=inside)).json()["email"] == "ana@example.org"


async def test_the_same_chat_gets_the_same_reply_on_both_backends(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    replies = [
        (await suite.http.post("/v1/chat/completions", json=a_chat(), headers={**ana, **pin})).json()["choices"]
        for pin in ({}, {"x-pin": MONOLITH})
    ]
    assert replies[0] == replies[1]


async def test_one_chat_is_one_trace_across_services(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    conversation = await suite.a_conversation(ana)
    suite.spans.clear()
    trace = "0af7651916cd43dd8448eb211c80319c"
    headers = {**ana, "traceparent": f"00-{trace}-b7ad6b7169203331-01"}
    await suite.http.post("/v1/chat/completions", json=a_chat(conversation), headers=headers)
    await suite.context("ai-gateway-service").close()
    spans = [s for s in suite.spans.get_finished_spans() if f"{s.context.trace_id:032x}" == trace]
    servers = {(s.resource.attributes["service.name"], s.name) for s in spans if s.kind.name == "SERVER"}
    assert {
        ("ai-gateway-service", "POST /v1/chat/completions"),
        ("identity-service", "POST /api/auth/introspect"),
        ("conversation-service", "POST /api/conversations/{conversation_id}/messages"),
        ("notification-service", "POST /api/notifications"),
    } <= servers
    by_id = {s.context.span_id: s for s in spans}

    def parent(span: ReadableSpan) -> ReadableSpan:
        assert span.parent is not None
        return by_id[span.parent.span_id]

    introspection = next(s for s in spans if s.name == "POST /api/auth/introspect" and s.kind.name == "SERVER")
    assert parent(introspection).kind.name == "CLIENT"
    provider = next(s for s in spans if s.name == "provider builtin")
    assert parent(provider).name == "POST /v1/chat/completions"


async def test_a_faulty_peer_makes_a_502_that_carries_its_marker(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    conversation = await suite.a_conversation(ana)
    suite.crowd.replicas["conversation-service"].faults.set(Fault(kind="errors", share=1.0, until=FOREVER))
    answer = await suite.http.post("/v1/chat/completions", json=a_chat(conversation), headers=ana)
    assert (answer.status_code, answer.headers["x-backstay-fault"]) == (502, "errors")
    labels = {"service": "ai-gateway-service", "peer": "conversation-service"}
    assert suite.sample("ai-gateway-service", "http_client_requests_total", outcome="error", **labels) == 1


async def test_a_faulty_peer_ends_a_stream_with_an_error_that_names_its_marker(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    conversation = await suite.a_conversation(ana)
    suite.crowd.replicas["conversation-service"].faults.set(Fault(kind="errors", share=1.0, until=FOREVER))
    answer = await suite.http.post("/v1/chat/completions", json=a_chat(conversation, stream=True), headers=ana)
    assert answer.status_code == 200
    last = answer.text.strip().split("\n\n")[-1]
    assert last.startswith("event: error")
    assert json.loads(last.split("data: ")[1])["fault"] == "errors"
    labels = {"service": "ai-gateway-service", "endpoint": "/v1/chat/completions", "outcome": "error"}
    assert suite.sample("ai-gateway-service", "http_stream_ends_total", **labels) == 1


async def test_a_silent_inbox_fails_no_chat(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    suite.crowd.away.add("notification-service")
    answer = await suite.http.post("/v1/chat/completions", json=a_chat(), headers=ana)
    assert answer.status_code == 200


async def test_a_peer_without_replicas_makes_a_503_that_says_when_to_come_back(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    suite.crowd.away.add("identity-service")
    answer = await suite.http.post("/v1/chat/completions", json=a_chat(), headers=ana)
    assert answer.status_code == 503
    assert answer.json()["error"]["message"] == "identity-service is saturated or away; try again."


async def test_a_peer_that_is_slower_than_the_limit_makes_a_504(tmp_path: Path) -> None:
    async with a_live_suite(tmp_path, peer_timeout_seconds=0.2) as suite:
        ana = await suite.a_user()
        slow = Fault(kind="latency", share=1.0, delay_ms=600, until=FOREVER)
        suite.crowd.replicas["identity-service"].faults.set(slow)
        answer = await suite.http.post("/v1/chat/completions", json=a_chat(), headers=ana)
        assert answer.status_code == 504
        labels = {"service": "ai-gateway-service", "peer": "identity-service", "outcome": "timeout"}
        assert suite.sample("ai-gateway-service", "http_client_requests_total", **labels) == 1


async def test_a_mesh_that_is_not_there_is_unreachable(tmp_path: Path) -> None:
    async with a_live_suite(tmp_path, mesh_url="http://127.0.0.1:9") as suite:
        ana = await suite.a_user()
        answer = await suite.http.post("/v1/chat/completions", json=a_chat(), headers=ana)
        assert answer.status_code == 503
        labels = {"service": "ai-gateway-service", "peer": "identity-service", "outcome": "unreachable"}
        assert suite.sample("ai-gateway-service", "http_client_requests_total", **labels) == 1


async def test_a_conversation_of_someone_else_is_not_found(suite: LiveSuite) -> None:
    ana, bob = await suite.a_user(), await suite.a_user("bob@example.org")
    conversation = await suite.a_conversation(ana)
    answer = await suite.http.post("/v1/chat/completions", json=a_chat(conversation), headers=bob)
    assert answer.status_code == 404
    assert await suite.messages(conversation, ana) == []


async def test_a_chat_answered_again_after_a_crash_joins_its_conversation_once(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    conversation = await suite.a_conversation(ana)
    body = a_chat(conversation, metadata={"exchange_id": "exchange-1"})
    for _ in range(2):
        (await suite.http.post("/v1/chat/completions", json=body, headers=ana)).raise_for_status()
    assert [role for role, _ in await suite.messages(conversation, ana)] == ["user", "assistant"]
