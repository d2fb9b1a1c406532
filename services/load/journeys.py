"""What users do, each journey right by content and not just by status."""

from __future__ import annotations

import asyncio
import hashlib
import random
import secrets
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any

import aiohttp
import orjson

from services.load.gateway import EventStream, Reply, Visit, has
from services.load.users import User, sign_in, sign_up, wait_until_found

FILE_BYTES = (500, 2000, 8000, 30_000)
TOLD_WITHIN_SECONDS = 15.0
LOOK_AGAIN_SECONDS = 0.5
MOST_RECONNECTS = 10

Run = Callable[[Visit, User, random.Random], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Journey:
    """A way through the suite. `service` is the one it is about; it may visit others."""

    name: str
    service: str
    per_second: float  # journeys a second in the demo's full traffic
    run: Run


async def me(visit: Visit, user: User, chance: random.Random) -> None:
    def is_me(reply: Reply) -> str | None:
        return None if reply.json()["id"] == user.id else "this is somebody else's account"

    await visit.call("me", "GET", "/api/users/me", check=is_me)


async def signing_in(visit: Visit, user: User, chance: random.Random) -> None:
    visit.token = (await sign_in(visit, user.email, user.password)).token
    await me(visit, user, chance)


async def signing_up(visit: Visit, user: User, chance: random.Random) -> None:
    visit.token = None
    newcomer = await sign_up(visit, f"newcomer-{secrets.token_hex(8)}@librechat.example", secrets.token_hex(16))
    visit.token = newcomer.token
    await me(visit, newcomer, chance)
    await visit.call("logout", "POST", "/api/auth/logout", expect=204)


async def models(visit: Visit, user: User, chance: random.Random) -> None:
    def has_one(reply: Reply) -> str | None:
        return None if reply.json()["data"][0]["id"] else "no model"

    await visit.call("models", "GET", "/v1/models", check=has_one)


async def chat(visit: Visit, user: User, chance: random.Random) -> None:
    """A plain completion. Its reply speaks of the topic, which is a word nobody else asks about."""
    await _ask(visit, a_word(chance))


async def chat_streamed(visit: Visit, user: User, chance: random.Random) -> None:
    topic = a_word(chance)

    def speaks_of_it(stream: EventStream) -> str | None:
        if stream.reconnect:
            return "a chat that cannot be resumed was told to reconnect"
        text = "".join(orjson.loads(event.data)["choices"][0]["delta"].get("content", "") for event in stream.events)
        return _speaks_of(topic, text)

    body = {**_chat_body(topic), "stream": True}
    await visit.stream("chat", "POST", "/v1/chat/completions", json=body, check=speaks_of_it)


async def chat_kept(visit: Visit, user: User, chance: random.Random) -> None:
    """A chat in a conversation: it is read back there, and the inbox tells of it."""
    topic = a_word(chance)
    id_ = await _open(visit, f"About {topic}")
    answer = await _ask(visit, topic, metadata={"conversation_id": id_})

    def holds_both(reply: Reply) -> str | None:
        kept = [(message["role"], message["content"]) for message in reply.json()["messages"]]
        wanted = [("user", _question(topic)), ("assistant", answer)]
        return None if kept == wanted else f"the conversation holds {len(kept)} messages, not this exchange"

    await visit.call("read", "GET", f"/api/conversations/{id_}/messages", check=holds_both)
    await _wait_until_told(visit, id_)
    await visit.call("delete", "DELETE", f"/api/conversations/{id_}", expect=204)


async def conversation(visit: Visit, user: User, chance: random.Random) -> None:
    """Open, write, read back, find in the list, delete."""
    id_ = await _open(visit, "Notes")
    text = f"A note on {a_word(chance)}."
    path = f"/api/conversations/{id_}/messages"

    def holds_it(reply: Reply) -> str | None:
        return None if [m["content"] for m in reply.json()["messages"]] == [text] else "the message is not there"

    await visit.call("append", "POST", path, json={"messages": [{"content": text}]}, expect=201, check=holds_it)
    await visit.call("read", "GET", path, check=holds_it)

    def lists_it(reply: Reply) -> str | None:
        return None if id_ in [c["id"] for c in reply.json()["conversations"]] else "the conversation is not listed"

    await visit.call("list", "GET", "/api/conversations?limit=100", check=lists_it)
    await visit.call("delete", "DELETE", f"/api/conversations/{id_}", expect=204)


async def file(visit: Visit, user: User, chance: random.Random) -> None:
    """Upload, list, download byte for byte, delete."""
    content = chance.randbytes(chance.choice(FILE_BYTES))
    digest = hashlib.sha256(content).hexdigest()
    name = f"notiță {a_word(chance)}.bin"

    def is_stored(reply: Reply) -> str | None:
        stored = reply.json()
        wanted = (name, len(content), digest)
        if not stored["id"]:
            return "the file has no id"
        return None if (stored["name"], stored["size"], stored["sha256"]) == wanted else "another file was stored"

    id_ = (
        await visit.call("upload", "POST", "/api/files", form=_form(name, content), expect=201, check=is_stored)
    ).json()["id"]

    def lists_it(reply: Reply) -> str | None:
        return None if id_ in [f["id"] for f in reply.json()["files"]] else "the file is not listed"

    def has_its_bytes(reply: Reply) -> str | None:
        if reply.headers["x-content-sha256"] != digest:
            return "the hash is another one"
        return None if reply.content == content else "the bytes are other ones"

    await visit.call("list", "GET", "/api/files?limit=100", check=lists_it)
    await visit.call("describe", "GET", f"/api/files/{id_}", check=is_stored)
    await visit.call("download", "GET", f"/api/files/{id_}/content", check=has_its_bytes)
    await visit.call("delete", "DELETE", f"/api/files/{id_}", expect=204)


async def search(visit: Visit, user: User, chance: random.Random) -> None:
    """The user's own word is found, and nobody finds a word that was never written."""
    await visit.call("find", "GET", f"/api/search?q={user.word}", check=_finds(lambda hits: len(hits) >= 1))
    await visit.call("miss", "GET", f"/api/search?q={a_word(chance)}", check=_finds(lambda hits: not hits))


async def search_new(visit: Visit, user: User, chance: random.Random) -> None:
    """What was written a moment ago is found."""
    word = a_word(chance)
    id_ = await _open(visit, "Scratch")
    body = {"messages": [{"content": f"Remember {word} for later."}]}
    await visit.call("append", "POST", f"/api/conversations/{id_}/messages", json=body, expect=201)
    await wait_until_found(visit, word, id_)
    await visit.call("delete", "DELETE", f"/api/conversations/{id_}", expect=204)


async def notification(visit: Visit, user: User, chance: random.Random) -> None:
    """A reminder comes to the inbox, is counted, and is read."""
    title = f"Think of {a_word(chance)}"
    body = {"kind": "reminder", "title": title}
    told = await visit.call("remind", "POST", "/api/notifications", json=body, expect=201, check=has("id"))
    id_ = told.json()["id"]

    def lists_it(reply: Reply) -> str | None:
        entries = {entry["id"]: entry["title"] for entry in reply.json()["notifications"]}
        return None if entries.get(id_) == title else "the reminder is not in the inbox"

    def counts_it(reply: Reply) -> str | None:
        return None if reply.json()["unread"] >= 1 else "the reminder is not counted as unread"

    def is_read(reply: Reply) -> str | None:
        entry = reply.json()
        return None if entry["id"] == id_ and entry["read_at"] else "the reminder is not read now"

    await visit.call("list", "GET", "/api/notifications?limit=30", check=lists_it)
    await visit.call("count", "GET", "/api/notifications/unread-count", check=counts_it)
    await visit.call("mark read", "POST", f"/api/notifications/{id_}/read", check=is_read)


async def stream(visit: Visit, user: User, chance: random.Random) -> None:
    """A resumable stream: begin, leave after the first event, go on from there, and read it all again."""
    topic = a_word(chance)
    started = await visit.call("start", "POST", "/api/streams", json=_chat_body(topic), expect=201, check=has("id"))
    path = f"/api/streams/{started.json()['id']}"
    first = await _read_stream(visit, "read", path, None, stop_after=1)
    rest = await _read_stream(visit, "resume", path, first.last_id)
    whole = _text([*first.events, *rest.events])

    def is_the_same(again: EventStream) -> str | None:
        if not again.done:
            return None  # this replica drains; what matters was read
        text = _text(again.events)
        return _speaks_of(topic, text) or (None if text == whole else "it reads otherwise the second time")

    await visit.stream("read again", "GET", path, check=is_the_same)


async def _read_stream(
    visit: Visit, step: str, path: str, last_id: str | None, stop_after: int | None = None
) -> EventStream:
    """Read on after `last_id`, over as many reconnects as replicas that drain ask for. Numbers must have no gap."""
    events: list[Any] = []
    for _ in range(MOST_RECONNECTS):
        after = int(last_id or 0)

        def continues(part: EventStream, after: int = after) -> str | None:
            numbers = [int(event.id or 0) for event in part.events]
            wanted = list(range(after + 1, after + 1 + len(numbers)))
            return None if numbers == wanted else f"events {numbers} came after event {after}"

        part = await visit.stream(step, "GET", path, last_event_id=last_id, stop_after=stop_after, check=continues)
        events += part.events
        last_id = part.last_id or last_id
        if not part.reconnect:
            return EventStream(tuple(events), part.done, reconnect=False)
        await asyncio.sleep(0.05)  # as the browser's EventSource would, only sooner
    return EventStream(tuple(events), done=False, reconnect=True)


def _text(events: Any) -> str:
    """The reply that a stream's events tell; a `restart` begins it anew."""
    text = ""
    for event in events:
        if event.name == "restart":
            text = ""
        elif event.name == "delta":
            text += orjson.loads(event.data)["text"]
    return text


async def _open(visit: Visit, title: str) -> str:
    body = {"title": title}
    opened = await visit.call("open", "POST", "/api/conversations", json=body, expect=201, check=has("id"))
    return str(opened.json()["id"])


async def _ask(visit: Visit, topic: str, **more: Any) -> str:
    """The reply to a question about `topic`."""

    def speaks_of_it(reply: Reply) -> str | None:
        return _speaks_of(topic, _answer(reply))

    reply = await visit.call(
        "chat", "POST", "/v1/chat/completions", json={**_chat_body(topic), **more}, check=speaks_of_it, patient=True
    )
    return _answer(reply)


def _answer(reply: Reply) -> str:
    return str(reply.json()["choices"][0]["message"]["content"])


def _question(topic: str) -> str:
    return f"What about {topic} on a sailing boat?"


def _chat_body(topic: str) -> dict[str, Any]:
    return {"model": "librechat-1", "messages": [{"role": "user", "content": _question(topic)}]}


def _speaks_of(topic: str, text: str) -> str | None:
    return None if topic in text.casefold() else f"the reply does not speak of {topic!r}: {text[:80]!r}"


def _finds(right: Callable[[list[Any]], bool]) -> Callable[[Reply], str | None]:
    return lambda reply: None if right(reply.json()["results"]) else f"found {len(reply.json()['results'])} documents"


async def _wait_until_told(visit: Visit, conversation_id: str) -> None:
    """Look into the inbox until it tells of an answer in this conversation: it is told after the answer."""
    deadline = time.monotonic() + TOLD_WITHIN_SECONDS
    path = "/api/notifications?limit=100"

    def told(reply: Reply) -> bool:
        return any(entry["about"] == conversation_id for entry in reply.json()["notifications"])

    def in_time(reply: Reply) -> str | None:
        return None if told(reply) or time.monotonic() < deadline else "the inbox does not tell of the answer"

    while True:
        if told(await visit.call("inbox", "GET", path, check=in_time)):
            return
        await asyncio.sleep(LOOK_AGAIN_SECONDS)


def _form(name: str, content: bytes) -> Callable[[], aiohttp.FormData]:
    def form() -> aiohttp.FormData:
        made = aiohttp.FormData(quote_fields=False)
        made.add_field("file", content, filename=name, content_type="application/octet-stream")
        return made

    return form


def a_word(chance: random.Random) -> str:
    """A word that nobody used before: letters only, so that every tokeniser takes it as one."""
    return "w" + "".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=14))


JOURNEYS: tuple[Journey, ...] = (
    # Requests a second at the gateway: identity 11, conversation 15, ai-gateway 20, file 11, search 12,
    # notification 12, streaming 10. A password hash costs tens of milliseconds of CPU, so sign-ins stay rare.
    Journey("me", "identity-service", 10.0, me),
    Journey("sign in", "identity-service", 0.3, signing_in),
    Journey("sign up", "identity-service", 0.02, signing_up),
    Journey("chat", "ai-gateway-service", 5.0, chat),
    Journey("chat streamed", "ai-gateway-service", 5.0, chat_streamed),
    Journey("chat kept", "ai-gateway-service", 1.0, chat_kept),
    Journey("models", "ai-gateway-service", 9.0, models),
    Journey("conversation", "conversation-service", 2.1, conversation),
    Journey("file", "file-service", 2.2, file),
    Journey("search", "search-service", 5.2, search),
    Journey("search new", "search-service", 0.5, search_new),
    Journey("notification", "notification-service", 2.6, notification),
    Journey("stream", "streaming-service", 2.6, stream),
)

CHECKS: Mapping[str, Run] = {
    "identity-service": me,
    "conversation-service": conversation,
    "ai-gateway-service": chat,
    "file-service": file,
    "search-service": search,
    "notification-service": notification,
    "streaming-service": stream,
}
"""The journey that shows whether a service works: one after another of its functions, and little else."""
