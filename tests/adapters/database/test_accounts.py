"""Signing in, staying signed in, and what the database gives away."""

from __future__ import annotations

from datetime import timedelta

import pytest
from sqlalchemy import create_engine, text

from control_plane.adapters.database import Database
from control_plane.adapters.database.accounts import DatabaseAccounts
from tests.adapters.database.stopped_clock import StoppedClock


@pytest.fixture
def accounts(database: Database) -> DatabaseAccounts:
    return database.accounts(timedelta(hours=12))


async def test_the_right_password_opens_a_session_that_ends_in_time(
    accounts: DatabaseAccounts, clock: StoppedClock
) -> None:
    password = await accounts.new_password("admin")
    token = await accounts.sign_in("admin", password)
    assert token is not None
    login = await accounts.login_of(token)
    assert login is not None
    assert login.username == "admin"
    assert login.csrf not in (token, "")
    clock.forward(hours=12)
    assert await accounts.login_of(token) is None


@pytest.mark.parametrize(("username", "password"), [("admin", "wrong"), ("nobody", "wrong"), ("", "")])
async def test_a_wrong_name_or_password_opens_nothing(accounts: DatabaseAccounts, username: str, password: str) -> None:
    await accounts.new_password("admin")
    assert await accounts.sign_in(username, password) is None


async def test_a_session_that_was_ended_is_gone_and_others_stay(accounts: DatabaseAccounts) -> None:
    password = await accounts.new_password("admin")
    one, two = await accounts.sign_in("admin", password), await accounts.sign_in("admin", password)
    assert one is not None
    assert two is not None
    await accounts.sign_out(one)
    assert await accounts.login_of(one) is None
    assert await accounts.login_of(two) is not None


async def test_a_new_password_ends_every_session_and_the_old_password(accounts: DatabaseAccounts) -> None:
    old = await accounts.new_password("admin")
    token = await accounts.sign_in("admin", old)
    assert token is not None
    await accounts.new_password("admin")
    assert await accounts.login_of(token) is None
    assert await accounts.sign_in("admin", old) is None


async def test_the_database_holds_neither_passwords_nor_tokens(
    accounts: DatabaseAccounts, database: Database, url: str
) -> None:
    password = await accounts.new_password("admin")
    token = await accounts.sign_in("admin", password)
    assert token is not None
    assert await accounts.exists("admin")
    engine = create_engine(url)
    with engine.connect() as connection:
        stored = str(connection.execute(text("SELECT * FROM users")).all())
        stored += str(connection.execute(text("SELECT * FROM sessions")).all())
    engine.dispose()
    assert password not in stored
    assert token not in stored
    assert "$argon2id$v=19$m=19456,t=2,p=1$" in stored
