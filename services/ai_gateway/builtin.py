"""The built-in provider: a small text generator with the timing of a hosted model.

The same chat gets the same reply at the same pace, on every replica and on both backends, so that a reply can be
compared with one from elsewhere. Its timing: first token log-normal around `first_token_median`, then a token each
`token_interval` on average; a reply has 20 to 90 tokens, so the whole takes 0.5 to 1.5 s, about 0.8 s at the median.
"""

from __future__ import annotations

import asyncio
import hashlib
import math
import random
import re
from collections.abc import AsyncGenerator, Iterator

from services.ai_gateway.configuration import BuiltInProviderSettings
from services.peers import ChatDelta, ChatRequest

TOKENS_A_PIECE = 4
SPREAD = 0.45  # sigma of the log-normal first-token time
SLOWEST = 5.0  # times the median: the tail ends there

_COMMON = (
    "about after also and are because been but can could does for from had has have her his how into its just like may"
    " more most not our out over please should some than that the their them then there these they this those was were"
    " what when where which while who why will with would you your"
)
_STOP_WORDS = frozenset(_COMMON.split())
_OPENINGS = (
    "Here is how I see {topic}.",
    "Let us look at {topic} step by step.",
    "A short answer about {topic} first.",
    "{Topic} is easier than it looks.",
    "There are two sides to {topic}.",
)
_MIDDLES = (
    "What matters most is to begin with {topic} as it is today and to change one thing at a time.",
    "People who work with {topic} every day say that measuring before deciding saves the most time.",
    "It helps to write down what you expect of {other}, and then to compare.",
    "If {other} gets in the way, go back to the last state that worked and try a smaller step.",
    "The usual trap is to mix {topic} with {other}; keep them apart and each becomes simple.",
    "You can check {topic} in a few minutes, and the result tells you where to look next.",
    "Most of the effort goes into {other}, so plan for that and leave room for surprises.",
    "In practice a rough draft of {topic} that others can read beats a perfect one that nobody sees.",
)
_CLOSINGS = (
    "Tell me more about {other} and I can be more precise.",
    "Shall we go through {topic} together with your own numbers?",
    "That should carry you a good part of the way.",
    "Start there, and come back with what you find.",
)


class BuiltInProvider:
    """Writes and waits; costs next to no CPU."""

    def __init__(self, settings: BuiltInProviderSettings) -> None:
        self.name = settings.name
        self.model = settings.model
        self._first_token_median = settings.first_token_median.total_seconds()
        self._token_interval = settings.token_interval.total_seconds()

    async def reply(self, request: ChatRequest) -> AsyncGenerator[ChatDelta, None]:
        chance = random.Random(seed_of(request))  # noqa: S311  determinism is the point
        tokens = re.findall(r"\S+\s*", compose(request, chance))
        reason = "stop"
        if request.max_tokens is not None and len(tokens) > request.max_tokens:
            tokens, reason = tokens[: request.max_tokens], "length"
        await asyncio.sleep(self._first_token_seconds(chance))
        pieces = list(_pieces(tokens))
        for index, piece in enumerate(pieces):
            if index:
                await asyncio.sleep(self._token_interval * TOKENS_A_PIECE * chance.uniform(0.6, 1.4))
            yield ChatDelta(piece, reason if index == len(pieces) - 1 else None)

    async def close(self) -> None:
        return None

    def _first_token_seconds(self, chance: random.Random) -> float:
        median = self._first_token_median
        return min(SLOWEST * median, median * math.exp(SPREAD * chance.gauss(0, 1)))


def seed_of(request: ChatRequest) -> int:
    """One number for one chat: its model, its messages and the seed it asks for."""
    digest = hashlib.sha256(f"{request.model}\0{request.seed}".encode())
    for message in request.messages:
        digest.update(f"\0{message.role}\0{message.content}".encode())
    return int.from_bytes(digest.digest()[:8], "big")


def compose(request: ChatRequest, chance: random.Random) -> str:
    """A reply that speaks of what the last question speaks of."""
    question = next((m.content for m in reversed(request.messages) if m.role == "user"), "")
    words = [w for w in re.findall(r"[^\W_]{3,}", question) if w.casefold() not in _STOP_WORDS]
    topic = max(words, key=len, default="your question")  # the longest word says most
    other = chance.choice([w for w in words if w != topic] or ["the details"])
    middles = chance.sample(_MIDDLES, chance.choice((1, 2, 2, 3, 3, 4)))
    sentences = [chance.choice(_OPENINGS), *middles, chance.choice(_CLOSINGS)]
    return " ".join(s.format(topic=topic, Topic=topic[:1].upper() + topic[1:], other=other) for s in sentences)


def _pieces(tokens: list[str]) -> Iterator[str]:
    for start in range(0, len(tokens), TOKENS_A_PIECE):
        yield "".join(tokens[start : start + TOKENS_A_PIECE])
