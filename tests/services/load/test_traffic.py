"""The open model, extra load, and the load API."""

import asyncio
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from services.load.api import LoadApi
from services.load.recorder import Recorder
from services.load.traffic import Traffic
from services.load.users import Accounts, User
from tests.services.load.crooked_gateway import CrookedGateway, a_crooked_gateway

AI = "ai-gateway-service"
TOKEN = {"authorization": "Bearer stack-token"}


class OneAccount(Accounts):
    """A pool that needs no identity service."""

    async def anyone(self) -> User:
        return User("ana", "ana@example.org", "p", "jwt", renew_at=float("inf"), word="logbook")


@asynccontextmanager
async def a_load(tmp_path: Path, **settings: Any) -> AsyncIterator[tuple[CrookedGateway, Traffic, Any, Recorder]]:
    (tmp_path / "token").write_text("stack-token\n")
    async with a_crooked_gateway(**settings) as (crooked, gateway):
        recorder = Recorder(time.time)
        accounts = OneAccount(gateway, recorder, b"secret", random.Random(1))
        traffic = Traffic(gateway, recorder, accounts, random.Random(1))
        api = LoadApi(gateway, recorder, accounts, traffic, tmp_path / "token")
        async with TestClient(TestServer(api.application())) as client:
            try:
                yield crooked, traffic, client, recorder
            finally:
                await traffic.stop()


async def until(happened: Callable[[], bool]) -> None:
    async with asyncio.timeout(20):
        while not happened():  # noqa: ASYNC110  several things at once have no one event
            await asyncio.sleep(0.02)


async def test_slow_answers_do_not_slow_arrivals(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_load(tmp_path, chat_timeout_seconds=30) as (crooked, traffic, _, recorder):
        monkeypatch.setattr(CrookedGateway, "fine", CrookedGateway.silent)  # nobody is answered
        traffic.add_extra(AI, 200, 0.5)
        await until(lambda: not traffic.extra and len(crooked.asked) >= 60)
        assert 60 <= len(crooked.asked) <= 140
        await traffic.stop()
        assert recorder.outcomes()["sent"] == 0


async def test_probes_ask_every_service_through_the_gateway_and_stay_out_of_the_numbers(tmp_path: Path) -> None:
    async with a_load(tmp_path) as (crooked, traffic, _, recorder):
        probing = asyncio.create_task(traffic.probe(5.0))
        asked = (
            "/api/users",
            "/api/conversations",
            "/v1/",
            "/api/files",
            "/api/search",
            "/api/notifications",
            "/api/streams",
        )
        await until(lambda: all(any(path.startswith(each) for path, _ in crooked.asked) for each in asked))
        probing.cancel()
        await asyncio.gather(probing, return_exceptions=True)
        assert all("x-backstay-backend" not in headers for _, headers in crooked.asked)
        assert recorder.outcomes()["sent"] == 0


async def test_extra_load_ends_by_itself_and_by_order(tmp_path: Path) -> None:
    async with a_load(tmp_path) as (crooked, traffic, client, _):
        order = {"rate_per_second": 100, "seconds": 0.2}
        reply = await client.put("/v1/extra-load/file-service", json=order, headers=TOKEN)
        assert reply.status == 200
        assert set(traffic.extra) == {"file-service"}
        await until(lambda: traffic.extra == {})
        assert {path for path, _ in crooked.asked} == {"/api/files"}
        await client.put("/v1/extra-load/file-service", json={**order, "seconds": 600}, headers=TOKEN)
        assert await (await client.get("/v1/extra-load", headers=TOKEN)).json() != {}
        removed = await client.delete("/v1/extra-load/file-service", headers=TOKEN)
        assert await removed.json() == {"removed": True}
        assert await (await client.get("/v1/extra-load", headers=TOKEN)).json() == {}


async def test_a_check_whose_journeys_fail_says_why_and_stays_out_of_the_numbers(tmp_path: Path) -> None:
    async with a_load(tmp_path) as (_, _, client, recorder):
        order = {"service": AI, "backend": "monolith", "count": 15, "timeout_seconds": 5}
        result = await (await client.post("/v1/journeys", json=order, headers=TOKEN)).json()
        assert (result["sent"], result["passed"], len(result["failures"])) == (15, 0, 10)
        assert "wrong_body" in result["failures"][0]
        assert recorder.outcomes()["sent"] == 0


async def test_a_check_that_is_too_slow_ends_in_time_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(CrookedGateway, "fine", CrookedGateway.silent)
    async with a_load(tmp_path, chat_timeout_seconds=30) as (_, _, client, _):
        order = {"service": AI, "count": 3, "timeout_seconds": 0.3}
        result = await (await client.post("/v1/journeys", json=order, headers=TOKEN)).json()
        assert result == {"sent": 3, "passed": 0, "failures": ["3 journeys had not ended after 0 s"]}


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/outcomes?since=yesterday", None, 422),
        ("GET", "/v1/outcomes?since=-1", None, 422),
        ("GET", "/v1/outcomes?until=nan", None, 422),
        ("PUT", "/v1/extra-load/mail-service", {"rate_per_second": 1, "seconds": 1}, 404),
        ("PUT", f"/v1/extra-load/{AI}", {"rate_per_second": 0, "seconds": 1}, 422),
        ("PUT", f"/v1/extra-load/{AI}", {"rate_per_second": 1, "seconds": 1e9}, 422),
        ("PUT", f"/v1/extra-load/{AI}", [], 422),
        ("POST", "/v1/journeys", {"service": "x", "count": 1, "timeout_seconds": 1}, 404),
        ("POST", "/v1/journeys", {"service": AI, "count": 0, "timeout_seconds": 1}, 422),
        ("POST", "/v1/journeys", {"service": AI, "backend": "x", "count": 1, "timeout_seconds": 1}, 422),
        ("POST", "/v1/markers/read", {"token": "x"}, 422),
        ("POST", "/v1/markers/read", {"token": "e30="}, 422),
        ("POST", "/v1/markers/write", {}, 502),
        ("GET", "/v1/nothing", None, 404),
        ("DELETE", "/v1/outcomes", None, 405),
    ],
)
async def test_a_wrong_order_is_refused_in_a_sentence(
    tmp_path: Path, method: str, path: str, body: object, status: int
) -> None:
    async with a_load(tmp_path) as (_, _, client, _):
        reply = await client.request(method, path, json=body, headers=TOKEN)
        assert reply.status == status
        assert len((await reply.json())["error"]) > 10


@pytest.mark.parametrize("headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic stack-token"}])
async def test_nobody_gets_in_without_the_token(tmp_path: Path, headers: dict[str, str]) -> None:
    async with a_load(tmp_path) as (_, _, client, _):
        assert (await client.get("/v1/outcomes", headers=headers)).status == 401
        assert (await client.get("/health", headers=headers)).status == 200
        (tmp_path / "token").unlink()
        assert (await client.get("/v1/outcomes", headers={"authorization": "Bearer "})).status == 401


async def test_accounts_wait_for_a_gateway_that_is_not_up_yet(monkeypatch: pytest.MonkeyPatch) -> None:
    async with a_crooked_gateway() as (_, gateway):
        tries: list[float] = []

        async def away_then_up(self: CrookedGateway, request: web.Request) -> web.StreamResponse:
            tries.append(time.monotonic())
            if len(tries) < 3:
                return await self.away(request)
            return web.json_response(
                {"access_token": "t", "expires_in": 60, "user": {"id": "u"}, "results": [{"conversation_id": "c"}]},
                status=201 if request.path.endswith("register") else 200,
            )

        monkeypatch.setattr(CrookedGateway, "fine", away_then_up)
        monkeypatch.setattr("services.load.users.FIRST_RETRY_SECONDS", 0.05)
        accounts = Accounts(gateway, Recorder(time.time), b"secret", random.Random(1))
        task = asyncio.create_task(accounts.keep_ready(1, 100))
        user = await asyncio.wait_for(accounts.anyone(), 5)
        task.cancel()
        assert (user.id, user.token) == ("u", "t")
        assert tries[1] - tries[0] >= 0.05
        assert "secret" not in user.password
        assert user.password not in repr(user)
