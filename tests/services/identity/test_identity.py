"""Register, sign in, sign out, introspect."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from services.identity.passwords import Passwords
from services.problems import Problem
from tests.services.live_suite import LiveSuite, a_live_suite

IDENTITY = "identity-service"
ANA = {"email": "ana@example.org", "password": "correct horse"}


@pytest.fixture
async def suite(tmp_path: Path) -> AsyncIterator[LiveSuite]:
    async with a_live_suite(tmp_path) as suite:
        yield suite


async def test_who_registers_can_sign_in_and_is_known(suite: LiveSuite) -> None:
    registered = await suite.http.post("/api/auth/register", json={**ANA, "name": "Ana"})
    assert registered.status_code == 201
    session = (await suite.http.post("/api/auth/login", json=ANA)).json()
    assert (session["token_type"], session["expires_in"]) == ("Bearer", 3600)
    me = await suite.http.get("/api/users/me", headers={"authorization": f"Bearer {session['access_token']}"})
    assert me.json() == registered.json() == session["user"]
    assert me.json()["name"] == "Ana"


async def test_one_mailbox_registers_once_however_it_is_spelled(suite: LiveSuite) -> None:
    await suite.http.post("/api/auth/register", json=ANA)
    again = await suite.http.post("/api/auth/register", json={**ANA, "email": " Ana@Example.ORG "})
    assert again.status_code == 409
    assert (await suite.http.post("/api/auth/login", json={**ANA, "email": "ANA@example.org"})).status_code == 200


async def test_a_wrong_password_and_an_unknown_address_get_one_answer(suite: LiveSuite) -> None:
    await suite.http.post("/api/auth/register", json=ANA)
    wrong = await suite.http.post("/api/auth/login", json={**ANA, "password": "wrong horse"})
    unknown = await suite.http.post("/api/auth/login", json={**ANA, "email": "eve@example.org"})
    assert (wrong.status_code, unknown.status_code) == (401, 401)
    del (first := wrong.json())["trace_id"], (second := unknown.json())["trace_id"]
    assert first == second


async def test_an_unknown_address_takes_as_long_as_a_wrong_password() -> None:
    passwords = Passwords(workers=1)
    known = await passwords.hash("correct horse")
    await passwords.matches(None, "warm up")

    async def seconds(password_hash: str | None) -> float:
        started = time.perf_counter()
        assert not await passwords.matches(password_hash, "wrong horse")
        return time.perf_counter() - started

    with_user = min([await seconds(known) for _ in range(5)])
    without = min([await seconds(None) for _ in range(5)])
    assert without > with_user / 2
    await passwords.close()


async def test_hashes_are_argon2id_with_19_mib_two_passes_and_one_lane() -> None:
    passwords = Passwords(workers=1)
    assert (await passwords.hash("correct horse")).startswith("$argon2id$v=19$m=19456,t=2,p=1$")
    await passwords.close()


async def test_a_crowd_at_the_door_is_turned_away_and_not_queued_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.identity.passwords.MAX_WAITING", 0)
    with pytest.raises(Problem) as refused:
        await Passwords(workers=1).hash("correct horse")
    assert refused.value.status == 503


async def test_an_address_that_fails_too_often_has_to_wait_known_or_not(
    suite: LiveSuite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.identity.identity.MAX_FAILED_LOGINS", 2)
    await suite.http.post("/api/auth/register", json=ANA)
    accounts_at_risk = ("ana@example.org", "nobody@example.org")
    for email in accounts_at_risk:
        for _ in range(2):
            await suite.http.post("/api/auth/login", json={"email": email, "password": "a guess"})
        assert (await suite.http.post("/api/auth/login", json={**ANA, "email": email})).status_code == 429


async def test_a_token_that_signed_out_holds_no_longer(suite: LiveSuite) -> None:
    first = await suite.a_user()
    second = (await suite.http.post("/api/auth/login", json=ANA)).json()["access_token"]
    assert (await suite.http.post("/api/auth/logout", headers=first)).status_code == 204
    assert (await suite.http.get("/api/users/me", headers=first)).status_code == 401
    other = await suite.http.get("/api/users/me", headers={"authorization": f"Bearer {second}"})
    assert other.status_code == 200


async def introspect(suite: LiveSuite, token: str) -> dict[str, object]:
    service = suite.context(IDENTITY).tokens.acting_for("-", "ai-gateway-service")
    headers = {"authorization": f"Bearer {service}"}
    answer = await suite.http.post("/api/auth/introspect", json={"token": token}, headers=headers)
    assert answer.status_code == 200
    found: dict[str, object] = answer.json()
    return found


async def test_introspection_tells_whose_token_it_is(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    found = await introspect(suite, ana["authorization"].removeprefix("Bearer "))
    me = (await suite.http.get("/api/users/me", headers=ana)).json()
    assert (found["active"], found["user_id"], found["email"]) == (True, me["id"], "ana@example.org")


async def test_introspection_says_nothing_of_a_token_that_does_not_hold(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    await suite.http.post("/api/auth/logout", headers=ana)
    tokens = suite.context(IDENTITY).tokens
    taken_back = ana["authorization"].removeprefix("Bearer ")
    of_nobody = tokens.for_user("no-such-user", "x@example.org")
    of_a_service = tokens.acting_for("ana", "search-service")
    for token in (taken_back, of_nobody, of_a_service, "noise"):
        assert await introspect(suite, token) == {"active": False}


async def test_only_services_may_introspect(suite: LiveSuite) -> None:
    ana = await suite.a_user()
    body = {"token": ana["authorization"].removeprefix("Bearer ")}
    assert (await suite.http.post("/api/auth/introspect", json=body, headers=ana)).status_code == 403
    assert (await suite.http.post("/api/auth/introspect", json=body)).status_code == 401


@pytest.mark.parametrize(
    "wrong",
    [
        {"email": "no address", "password": "correct horse"},
        {"email": "a b@example.org", "password": "correct horse"},
        {"email": "ana@example.org", "password": "short"},
        {"email": "ana@example.org"},
    ],
)
async def test_a_bad_registration_says_what_is_wrong_and_repeats_no_password(
    suite: LiveSuite, wrong: dict[str, str]
) -> None:
    answer = await suite.http.post("/api/auth/register", json=wrong)
    assert answer.status_code == 422
    assert answer.json()["errors"]
    assert wrong.get("password", "correct horse") not in answer.text


@pytest.mark.parametrize("header", ["", "Basic abc", "Bearer", "Bearer noise"])
async def test_without_a_good_token_nobody_is_anybody(suite: LiveSuite, header: str) -> None:
    answer = await suite.http.get("/api/users/me", headers={"authorization": header})
    assert (answer.status_code, answer.headers["www-authenticate"]) == (401, "Bearer")


async def test_a_body_that_is_too_large_is_refused(suite: LiveSuite) -> None:
    answer = await suite.http.post("/api/auth/login", json={"email": "x" * (2 << 20), "password": "p"})
    assert answer.status_code == 413
