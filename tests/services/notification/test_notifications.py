"""Inboxes: an event makes one entry, read entries stay read, nobody sees another's."""

import asyncio
from pathlib import Path

import pytest

from services.notification.api import in_process
from services.notification.store import INBOX_SIZE, NotificationStore
from services.peers import Notice
from services.storage import SqliteStorage
from tests.services.suite import ANA, BOB, Service, SettableClock, a_service

URL = "/api/notifications"


async def told(service: Service, title: str = "The answer is there", user_id: str = ANA, **more: object) -> str:
    reply = await service.as_service(user_id, "POST", URL, json={"kind": "chat.answered", "title": title, **more})
    assert reply.status_code == 201
    return str(reply.json()["id"])


async def unread(service: Service, user_id: str = ANA) -> int:
    return int((await service.as_user(user_id, "GET", f"{URL}/unread-count")).json()["unread"])


async def test_entries_come_newest_first_and_in_pages(tmp_path: Path) -> None:
    async with a_service("notification-service", tmp_path) as service:
        ids = []
        for n in range(5):
            ids.append(await told(service, f"n{n}"))
            await asyncio.sleep(0.002)  # ids sort by millisecond
        first = (await service.as_user(ANA, "GET", f"{URL}?limit=3")).json()
        rest = (await service.as_user(ANA, "GET", f"{URL}?limit=3&before={first['next_before']}")).json()
        assert [entry["id"] for entry in first["notifications"] + rest["notifications"]] == ids[::-1]
        assert rest["next_before"] is None


async def test_an_event_told_twice_makes_one_entry(tmp_path: Path) -> None:
    async with a_service("notification-service", tmp_path) as service:
        first = await told(service, event_id="chat-7")
        await service.as_user(ANA, "POST", f"{URL}/{first}/read")
        assert await told(service, event_id="chat-7") == first
        assert await unread(service) == 0
        assert await told(service, event_id="chat-7", user_id=BOB) != first
        assert await told(service, event_id="chat-8") != first


async def test_an_event_told_by_several_processes_at_once_makes_one_entry(tmp_path: Path) -> None:
    storages = [SqliteStorage(tmp_path) for _ in range(3)]
    stores = [NotificationStore(storage, SettableClock()) for storage in storages]
    notice = Notice("chat.answered", "there", event_id="chat-7")
    ids = await asyncio.gather(*(store.tell(ANA, notice) for store in stores for _ in range(5)))
    assert len({id_ for id_, _ in ids}) == 1
    assert [is_new for _, is_new in ids].count(True) == 1
    for storage in storages:
        await storage.close()


async def test_reading_counts_down_and_happens_once(tmp_path: Path) -> None:
    async with a_service("notification-service", tmp_path) as service:
        first, _ = await told(service), await told(service)
        assert await unread(service) == 2
        read = (await service.as_user(ANA, "POST", f"{URL}/{first}/read")).json()
        assert (await service.as_user(ANA, "POST", f"{URL}/{first}/read")).json() == read
        assert await unread(service) == 1
        listed = (await service.as_user(ANA, "GET", f"{URL}?unread=true")).json()["notifications"]
        assert first not in [entry["id"] for entry in listed]
        assert (await service.as_user(ANA, "POST", f"{URL}/read-all")).json() == {"marked": 1}
        assert await unread(service) == 0


async def test_another_users_inbox_is_out_of_reach(tmp_path: Path) -> None:
    async with a_service("notification-service", tmp_path) as service:
        id_ = await told(service)
        assert (await service.as_user(BOB, "POST", f"{URL}/{id_}/read")).status_code == 404
        assert (await service.as_user(BOB, "POST", f"{URL}/read-all")).json() == {"marked": 0}
        assert (await service.as_user(BOB, "GET", URL)).json()["notifications"] == []
        assert await unread(service) == 1
        assert (await service.http.get(URL)).status_code == 401


async def test_users_leave_themselves_reminders_and_nothing_that_looks_official(tmp_path: Path) -> None:
    async with a_service("notification-service", tmp_path) as service:
        reminder = {"kind": "reminder", "title": "call home"}
        assert (await service.as_user(ANA, "POST", URL, json=reminder)).status_code == 201
        official = {"kind": "chat.answered", "title": "click here"}
        assert (await service.as_user(ANA, "POST", URL, json=official)).status_code == 403
        assert await unread(service) == 1


@pytest.mark.parametrize(
    "body", [{}, {"kind": "A b", "title": "x"}, {"kind": "a", "title": ""}, {"kind": "a", "title": "x" * 201}]
)
async def test_a_malformed_notice_is_refused(tmp_path: Path, body: object) -> None:
    async with a_service("notification-service", tmp_path) as service:
        assert (await service.as_service(ANA, "POST", URL, json=body)).status_code == 422


async def test_an_inbox_keeps_its_newest_entries_only(tmp_path: Path) -> None:
    async with a_service("notification-service", tmp_path) as service:
        inbox = in_process(service.context)
        ids = [await inbox.tell(ANA, Notice("chat.answered", str(n))) for n in range(INBOX_SIZE + 3)]
        other = await inbox.tell(BOB, Notice("chat.answered", "bob's"))
        assert await unread(service) == INBOX_SIZE
        gone = await service.as_user(ANA, "POST", f"{URL}/{sorted(ids)[0]}/read")
        assert gone.status_code == 404
        assert (await service.as_user(BOB, "POST", f"{URL}/{other}/read")).status_code == 200
