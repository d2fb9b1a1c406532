"""A chat as OpenAI's API writes it."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from services.peers import ChatMessage, ChatRequest

MAX_MESSAGE_CHARACTERS = 100_000
Identifier = Annotated[str, Field(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class TextPart(BaseModel):
    type: Literal["text"]
    text: Annotated[str, Field(max_length=MAX_MESSAGE_CHARACTERS)]


class MessageBody(BaseModel):
    role: Literal["system", "developer", "user", "assistant"]
    content: Annotated[str, Field(max_length=MAX_MESSAGE_CHARACTERS)] | list[TextPart]

    def message(self) -> ChatMessage:
        content = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return ChatMessage("system" if self.role == "developer" else self.role, content)


class Metadata(BaseModel):
    model_config = ConfigDict(extra="allow")

    conversation_id: Identifier | None = None
    exchange_id: Identifier | None = None


class ChatBody(BaseModel):
    """OpenAI's request. Sampling parameters that the providers do not know are accepted and have no effect."""

    model_config = ConfigDict(extra="ignore")

    model: Annotated[str, Field(max_length=100)] = "librechat-1"
    messages: Annotated[list[MessageBody], Field(min_length=1, max_length=500)]
    stream: bool = False
    max_tokens: Annotated[int, Field(ge=1)] | None = None
    max_completion_tokens: Annotated[int, Field(ge=1)] | None = None
    seed: int | None = None
    n: Literal[1] | None = None
    metadata: Metadata | None = None

    def request(self) -> ChatRequest:
        return ChatRequest(
            messages=[m.message() for m in self.messages],
            model=self.model,
            conversation_id=self.metadata.conversation_id if self.metadata else None,
            exchange_id=self.metadata.exchange_id if self.metadata else None,
            max_tokens=self.max_completion_tokens or self.max_tokens,
            seed=self.seed,
        )
