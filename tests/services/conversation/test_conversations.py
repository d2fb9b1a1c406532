"""Conversations: who sees what, in which order, and what search hears of it."""

import asyncio
from collections.abc import AsyncIterator, MutableMapping
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path

import pytest

from services.conversation.conversations import conversations_of
from services.conversation.store import ConversationStore
from services.peers import NewMessage
from services.problems import Problem
from services.storage import SqliteStorage
from tests.services.suite import ANA, BOB, Service, SettableClock, a_service

URL = "/api/conversations"


async def opened(service: Service, user_id: str = ANA, title: str = "Sailing") -> str:
    reply = await service.as_user(user_id, "POST", URL, json={"title": title})
    assert reply.status_code == 201
    return str(reply.json()["id"])


async def test_what_was_appended_is_read_back_in_order(tmp_path: Path) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        id_ = await opened(service)
        for text in ("one", "two", "three"):
            reply = await service.as_user(ANA, "POST", f"{URL}/{id_}/messages", json={"messages": [{"content": text}]})
            assert reply.status_code == 201
        page = (await service.as_user(ANA, "GET", f"{URL}/{id_}/messages?limit=2")).json()
        assert [(m["position"], m["role"], m["content"]) for m in page["messages"]] == [
            (1, "user", "one"),
            (2, "user", "two"),
        ]
        rest = (await service.as_user(ANA, "GET", f"{URL}/{id_}/messages?after={page['next_after']}")).json()
        assert [m["content"] for m in rest["messages"]] == ["three"]
        assert rest["next_after"] is None
        assert (await service.as_user(ANA, "GET", f"{URL}/{id_}")).json()["messages"] == 3


async def test_pages_of_the_list_show_every_conversation_once_last_changed_first(tmp_path: Path) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        ids = [await opened(service) for _ in range(5)]  # all within one tick of the clock
        service.clock.advance(timedelta(seconds=1))
        await service.as_user(ANA, "POST", f"{URL}/{ids[2]}/messages", json={"messages": [{"content": "hello"}]})
        seen, cursor = [], ""
        while True:
            page = (await service.as_user(ANA, "GET", f"{URL}?limit=2{cursor}")).json()
            seen += [c["id"] for c in page["conversations"]]
            if page["next_cursor"] is None:
                break
            cursor = f"&cursor={page['next_cursor']}"
        assert seen[0] == ids[2]
        assert sorted(seen) == sorted(ids)


@pytest.mark.parametrize("cursor", ["%00", "a", "%F0%9F%92%A9", "____", "=" * 30])
async def test_a_cursor_that_no_list_gave_is_a_client_error_or_an_empty_page(tmp_path: Path, cursor: str) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        assert (await service.as_user(ANA, "GET", f"{URL}?cursor={cursor}")).status_code in (200, 400)


async def test_another_users_conversation_does_not_exist_for_me(tmp_path: Path) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        id_ = await opened(service)
        body = {"messages": [{"content": "hi"}]}
        answers = [
            await service.as_user(BOB, "GET", f"{URL}/{id_}"),
            await service.as_user(BOB, "GET", f"{URL}/{id_}/messages"),
            await service.as_user(BOB, "POST", f"{URL}/{id_}/messages", json=body),
            await service.as_service(BOB, "POST", f"{URL}/{id_}/messages", json=body),
            await service.as_user(BOB, "DELETE", f"{URL}/{id_}"),
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert (await service.as_user(BOB, "GET", URL)).json()["conversations"] == []
        assert (await service.http.get(URL)).status_code == 401
        assert (await service.as_user(ANA, "GET", f"{URL}/{id_}")).json()["messages"] == 0


async def test_only_services_write_in_the_assistants_voice(tmp_path: Path) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        id_ = await opened(service)
        body = {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "hello"}]}
        assert (await service.as_user(ANA, "POST", f"{URL}/{id_}/messages", json=body)).status_code == 403
        reply = await service.as_service(ANA, "POST", f"{URL}/{id_}/messages", json=body)
        assert reply.status_code == 201
        assert len(reply.json()["ids"]) == 2


@pytest.mark.parametrize(
    "body",
    [
        {"messages": []},
        {"messages": [{"content": ""}]},
        {"messages": [{"content": "x" * 100_001}]},
        {"messages": [{"content": "x", "role": "root"}]},
        {"messages": [{"content": "x"}] * 51},
        {"messages": [{"content": "x", "id": "a b"}]},
        {"messages": "x"},
        [],
    ],
)
async def test_a_bad_message_is_refused_whole(tmp_path: Path, body: object) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        id_ = await opened(service)
        assert (await service.as_user(ANA, "POST", f"{URL}/{id_}/messages", json=body)).status_code == 422
        assert (await service.as_user(ANA, "GET", f"{URL}/{id_}")).json()["messages"] == 0


@pytest.mark.parametrize(
    "content", [r"\u0000", r"a\u0000b", r"\ud83d\ude00", r"\u202e", r"\ud800", "'; DROP TABLE x; --"]
)
async def test_hostile_text_is_kept_as_it_is_or_refused_and_never_breaks(tmp_path: Path, content: str) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        id_ = await opened(service)
        reply = await service.as_user(
            ANA, "POST", f"{URL}/{id_}/messages", content=f'{{"messages": [{{"content": "{content}"}}]}}'
        )
        assert reply.status_code in (201, 422)
        if reply.status_code == 201:
            read = (await service.as_user(ANA, "GET", f"{URL}/{id_}/messages")).json()["messages"]
            assert [m["content"] for m in read] == [m["content"] for m in reply.json()["messages"]]


async def test_a_repeated_append_with_ids_joins_once(tmp_path: Path) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        id_, other = await opened(service), await opened(service)
        body = {"messages": [{"content": "hi", "id": "m-1"}, {"content": "there", "id": "m-2"}]}
        first = await service.as_service(ANA, "POST", f"{URL}/{id_}/messages", json=body)
        again = await service.as_service(ANA, "POST", f"{URL}/{id_}/messages", json=body)
        assert first.json() == again.json()
        assert (await service.as_user(ANA, "GET", f"{URL}/{id_}")).json()["messages"] == 2
        assert (await service.as_service(ANA, "POST", f"{URL}/{other}/messages", json=body)).status_code == 409


async def test_search_hears_of_what_was_appended_and_of_what_was_deleted(tmp_path: Path) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        id_ = await opened(service, title="Knots")
        await service.as_user(ANA, "POST", f"{URL}/{id_}/messages", json={"messages": [{"content": "bowline"}]})
        await service.context.finish_background(5)
        [(user_id, document)] = service.peers.indexed
        assert (user_id, document.kind, document.title, document.text) == (ANA, "message", "Knots", "bowline")
        assert document.conversation_id == id_
        assert (await service.as_user(ANA, "DELETE", f"{URL}/{id_}")).status_code == 204
        await service.context.finish_background(5)
        assert service.peers.forgotten == [(ANA, id_)]
        assert (await service.as_user(ANA, "GET", f"{URL}/{id_}/messages")).status_code == 404
        assert not await conversations_of(service.context).store.anything_due()


async def test_an_append_succeeds_while_search_is_down_and_search_hears_of_it_later(tmp_path: Path) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        relay = conversations_of(service.context).relay
        id_ = await opened(service)
        service.peers.problem = Problem(503, "search is away")
        reply = await service.as_user(ANA, "POST", f"{URL}/{id_}/messages", json={"messages": [{"content": "hi"}]})
        assert reply.status_code == 201
        await service.context.finish_background(5)
        service.clock.advance(timedelta(seconds=3))
        assert await relay.tell_due() is False  # still down
        service.peers.problem = None
        assert await relay.tell_due() is False  # not due yet: it waits longer after each failure
        service.clock.advance(timedelta(minutes=1))
        assert await relay.tell_due() is True
        assert [document.text for _, document in service.peers.indexed] == ["hi"]
        service.clock.advance(timedelta(hours=1))
        assert not await conversations_of(service.context).store.anything_due()


async def test_a_message_that_search_refuses_for_good_is_not_offered_for_ever(tmp_path: Path) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        id_ = await opened(service)
        service.peers.problem = Problem(422, "no")
        await service.as_user(ANA, "POST", f"{URL}/{id_}/messages", json={"messages": [{"content": "hi"}]})
        await service.context.finish_background(5)
        service.clock.advance(timedelta(hours=1))
        assert not await conversations_of(service.context).store.anything_due()


async def test_a_replica_that_died_before_it_told_search_leaves_the_telling_to_another(tmp_path: Path) -> None:
    clock = SettableClock()
    storage = SqliteStorage(tmp_path)
    store = ConversationStore(storage, clock)
    conversation = await store.create(ANA, "Sailing")
    await store.append(ANA, conversation.id, [NewMessage("user", "mayday")])
    await storage.close()  # as a kill -9 would: committed, and nobody told
    async with a_service("conversation-service", tmp_path, clock) as service:
        conversations = conversations_of(service.context)
        assert not await conversations.store.anything_due()  # the dead one may still be at it
        clock.advance(timedelta(seconds=15))
        async with conversations.retrying(), asyncio.timeout(10):
            await service.peers.was_told.wait()
        assert [document.text for _, document in service.peers.indexed] == ["mayday"]


async def test_two_replicas_that_look_at_once_do_not_take_the_same_messages(tmp_path: Path) -> None:
    clock = SettableClock()
    storages = [SqliteStorage(tmp_path) for _ in range(2)]
    first, second = (ConversationStore(storage, clock) for storage in storages)
    conversation = await first.create(ANA, "Sailing")
    await first.append(ANA, conversation.id, [NewMessage("user", str(n)) for n in range(20)])
    clock.advance(timedelta(seconds=20))
    taken = await asyncio.gather(*(store.take_unindexed(10) for store in (first, second, first)))
    ids = [item.message.id for batch in taken for item in batch]
    assert len(ids) == len(set(ids)) == 20
    for storage in storages:
        await storage.close()


async def test_appends_of_several_processes_to_one_conversation_lose_and_double_nothing(tmp_path: Path) -> None:
    storages = [SqliteStorage(tmp_path) for _ in range(4)]
    stores = [ConversationStore(storage, SettableClock()) for storage in storages]
    conversation = await stores[0].create(ANA, "Sailing")
    await asyncio.gather(
        *(store.append(ANA, conversation.id, [NewMessage("user", "x")]) for store in stores for _ in range(10))
    )
    messages, _ = await stores[0].messages(ANA, conversation.id, 100, 0)
    assert [message.position for message in messages] == list(range(1, 41))
    for storage in storages:
        await storage.close()


async def test_a_running_replica_tells_search_again_without_being_asked(tmp_path: Path) -> None:
    async with a_service("conversation-service", tmp_path) as service:
        id_ = await opened(service)
        service.peers.problem = Problem(503, "search is away")
        await service.as_user(ANA, "POST", f"{URL}/{id_}/messages", json={"messages": [{"content": "hi"}]})
        await service.context.finish_background(5)
        service.peers.problem = None
        service.clock.advance(timedelta(minutes=1))
        async with running(service), asyncio.timeout(10):
            await service.peers.was_told.wait()


@asynccontextmanager
async def running(service: Service) -> AsyncIterator[None]:
    """The application between its start-up and its shutdown, as a server runs it."""
    to_app: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    from_app: asyncio.Queue[MutableMapping[str, str]] = asyncio.Queue()
    task = asyncio.create_task(service.replica({"type": "lifespan"}, to_app.get, from_app.put))
    to_app.put_nowait({"type": "lifespan.startup"})
    assert (await from_app.get())["type"] == "lifespan.startup.complete"
    yield
    to_app.put_nowait({"type": "lifespan.shutdown"})
    assert (await from_app.get())["type"] == "lifespan.shutdown.complete"
    await task
