"""Something of every kind that a user owns, written before a drill and looked for after it: nothing may be lost."""

from __future__ import annotations

import base64
import binascii
import hashlib
import secrets
from dataclasses import asdict, dataclass

import aiohttp
import orjson

from services.load.gateway import Check, Gateway, Reply, StepFailed, Visit, has
from services.load.users import sign_in, sign_up, wait_until_found

FILE_BYTES = 20_000


@dataclass(frozen=True, slots=True)
class Markers:
    """Who wrote, what, and where it is."""

    email: str
    password: str
    user_id: str
    word: str  # in the message, the reminder and the file's name
    conversation_id: str
    file_id: str
    file_sha256: str
    notification_id: str

    def token(self) -> str:
        """All of it as one opaque word, so that a restart of the load generator forgets nothing."""
        return base64.urlsafe_b64encode(orjson.dumps(asdict(self))).decode()

    @classmethod
    def of(cls, token: str) -> Markers:
        """Raises ValueError for what is no such word."""
        try:
            return cls(**orjson.loads(base64.urlsafe_b64decode(token)))
        except (binascii.Error, ValueError, TypeError) as error:
            raise ValueError("This is not a token that writing markers gave.") from error


async def write(gateway: Gateway) -> Markers:
    """A user, a conversation with a message, a file and a notification. Raises StepFailed when one was not accepted."""
    visit = Visit(gateway, None, "markers")
    word = f"marker{secrets.token_hex(8)}"
    user = await sign_up(visit, f"{word}@librechat.example", secrets.token_hex(16))
    visit.token = user.token
    opened = await visit.call(
        "open", "POST", "/api/conversations", json={"title": "Markers"}, expect=201, check=has("id")
    )
    conversation_id = opened.json()["id"]
    body = {"messages": [{"content": f"Do not lose {word}."}]}
    await visit.call("append", "POST", f"/api/conversations/{conversation_id}/messages", json=body, expect=201)
    content = secrets.token_bytes(FILE_BYTES)
    stored = await visit.call(
        "upload", "POST", "/api/files", form=lambda: _form(word, content), expect=201, check=has("id")
    )
    reminder = {"kind": "reminder", "title": f"Remember {word}"}
    told = await visit.call("remind", "POST", "/api/notifications", json=reminder, expect=201, check=has("id"))
    return Markers(
        email=user.email,
        password=user.password,
        user_id=user.id,
        word=word,
        conversation_id=conversation_id,
        file_id=stored.json()["id"],
        file_sha256=hashlib.sha256(content).hexdigest(),
        notification_id=told.json()["id"],
    )


async def missing(gateway: Gateway, markers: Markers) -> list[str]:
    """What is no longer there or no longer the same, one sentence each; empty: all is there."""
    visit = Visit(gateway, None, "markers")
    try:
        user = await sign_in(visit, markers.email, markers.password)
    except StepFailed as failure:
        return [f"The user cannot sign in, so nothing can be read: {failure}"]
    found: list[str] = []
    if user.id != markers.user_id:
        found.append("The user has another id than before.")
    visit.token = user.token

    async def look(what: str, path: str, check: Check) -> None:
        try:
            await visit.call(what, "GET", path, check=check)
        except StepFailed as failure:
            found.append(f"The {what} is missing: {failure}")

    def has_message(reply: Reply) -> str | None:
        contents = [message["content"] for message in reply.json()["messages"]]
        return None if contents == [f"Do not lose {markers.word}."] else f"{len(contents)} other messages"

    def has_bytes(reply: Reply) -> str | None:
        return None if hashlib.sha256(reply.content).hexdigest() == markers.file_sha256 else "other bytes"

    def has_reminder(reply: Reply) -> str | None:
        titles = {entry["id"]: entry["title"] for entry in reply.json()["notifications"]}
        return None if titles.get(markers.notification_id) == f"Remember {markers.word}" else "not in the inbox"

    await look("message", f"/api/conversations/{markers.conversation_id}/messages", has_message)
    await look("file", f"/api/files/{markers.file_id}/content", has_bytes)
    await look("notification", "/api/notifications?limit=100", has_reminder)
    try:
        await wait_until_found(visit, markers.word, markers.conversation_id)
    except StepFailed as failure:
        found.append(f"The message is not found by search: {failure}")
    return found


def _form(word: str, content: bytes) -> aiohttp.FormData:
    form = aiohttp.FormData()
    form.add_field("file", content, filename=f"{word}.bin", content_type="application/octet-stream")
    return form
