"""A small replica that speaks the cluster's protocol, run with `--service S --port N --replica R`.

A request's query says how it is answered: `status`, `sleep` (seconds), `stream` (events, one each 50 ms, for ever when
negative), `reset` (the process dies on it), `bad` (from now on every answer is this status).
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import signal
import sys
import threading
from typing import Any
from urllib.parse import parse_qsl

import uvicorn

Scope = dict[str, Any]


class SmallBackend:
    def __init__(self, service: str, replica: str) -> None:
        self.service = service
        self.replica = replica
        self.in_flight = 0
        self.hits = 0
        self.always: int | None = None
        self.fault: dict[str, Any] | None = None
        self.draining = asyncio.Event()

    async def __call__(self, scope: Scope, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        path = scope["path"]
        if path == "/ready":
            await _answer(send, 503 if self.draining.is_set() else 200, b"")
        elif path == "/metrics":
            text = f'http_requests_in_flight{{service="{self.service}"}} {self.in_flight}\n'
            await _answer(send, 200, text.encode())
        else:
            self.in_flight += 1
            self.hits += 1
            try:
                await self._serve(scope, receive, send)
            finally:
                self.in_flight -= 1

    async def _serve(self, scope: Scope, receive: Any, send: Any) -> None:
        asked = dict(parse_qsl(scope["query_string"].decode()))
        if "bad" in asked:
            self.always = int(asked["bad"])
        if "reset" in asked:
            os.kill(os.getpid(), signal.SIGKILL)
        if "sleep" in asked:
            await asyncio.sleep(float(asked["sleep"]))
        if "stream" in asked:
            await self._stream(send, int(asked["stream"]))
            return
        headers = {name.decode(): value.decode() for name, value in scope["headers"]}
        body = {
            "service": self.service,
            "replica": self.replica,
            "hits": self.hits,
            "headers": headers,
            "fault": self.fault,
            "path": scope["path"],
        }
        marker = [(b"x-backstay-fault", self.fault["kind"].encode())] if self.fault else []
        await _answer(send, self.always or int(asked.get("status", 200)), json.dumps(body).encode(), marker)

    async def _stream(self, send: Any, events: int) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-type", b"text/event-stream")]})
        number = 0
        while number != events and not self.draining.is_set():
            await send({"type": "http.response.body", "body": f"data: {number}\n\n".encode(), "more_body": True})
            number += 1
            await asyncio.sleep(0.05)
        last = b"event: reconnect\n\n" if self.draining.is_set() else b"event: end\n\n"
        await send({"type": "http.response.body", "body": last, "more_body": False})

    def obey(self, line: str) -> None:
        order = json.loads(line)
        if "fault" in order:
            self.fault = order["fault"]
            if self.fault and self.fault["kind"] == "crash":
                asyncio.get_running_loop().call_later(0.3, os._exit, 1)
        if order.get("drain"):
            self.draining.set()


async def _answer(send: Any, status: int, body: bytes, headers: list[tuple[bytes, bytes]] | None = None) -> None:
    await send({"type": "http.response.start", "status": status, "headers": headers or []})
    await send({"type": "http.response.body", "body": body})


async def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--service", required=True)
    parser.add_argument("--port", required=True, type=int)
    parser.add_argument("--replica", required=True)
    chosen = parser.parse_args()
    app = SmallBackend(chosen.service, chosen.replica)
    loop = asyncio.get_running_loop()

    def listen_to_parent() -> None:
        for line in sys.stdin:
            loop.call_soon_threadsafe(app.obey, line)
        os._exit(0)

    threading.Thread(target=listen_to_parent, daemon=True).start()
    config = uvicorn.Config(
        app, host="127.0.0.1", port=chosen.port, lifespan="off", log_level="warning", timeout_keep_alive=75, ws="none"
    )
    await uvicorn.Server(config).serve()


if __name__ == "__main__":
    asyncio.run(main())
