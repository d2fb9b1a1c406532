"""Whether something answers over HTTP."""

from __future__ import annotations

import asyncio

import aiohttp

ANSWER_SECONDS = 2.0


async def answers(http: aiohttp.ClientSession, url: str, within_seconds: float = ANSWER_SECONDS) -> bool:
    """True when `url` answers 2xx. Anything else, silence included, is not ready."""
    try:
        async with http.get(url, timeout=aiohttp.ClientTimeout(total=within_seconds)) as answer:
            await answer.read()
            return 200 <= answer.status < 300
    except (aiohttp.ClientError, OSError, TimeoutError):
        return False


async def until_it_answers(http: aiohttp.ClientSession, url: str, every_seconds: float = 0.1) -> None:
    """Returns once `url` answers 2xx; the caller sets the deadline."""
    while not await answers(http, url):  # noqa: ASYNC110  nothing tells us: it is another process
        await asyncio.sleep(every_seconds)
