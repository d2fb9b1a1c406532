"""Files: what goes in comes out, within limits, for its owner only, and never in part."""

import hashlib
import os
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.file.api import MAX_FILE_BYTES, Files
from services.file.contents import ABANDONED_AFTER_SECONDS, Contents
from services.problems import Problem
from tests.services.suite import ANA, BOB, Service, a_service

URL = "/api/files"


async def uploaded(
    service: Service,
    content: bytes = b"hello",
    name: str = "note.txt",
    media_type: str = "text/plain",
    user_id: str = ANA,
) -> httpx.Response:
    return await service.as_user(user_id, "POST", URL, files={"file": (name, content, media_type)})


def on_disk(folder: Path) -> list[str]:
    return sorted(path.name for path in (folder / "files").rglob("*") if path.is_file())


@pytest.mark.parametrize("size", [0, 1, 300_000, MAX_FILE_BYTES])
async def test_the_bytes_and_their_hash_come_back(tmp_path: Path, size: int) -> None:
    content = os.urandom(size)
    async with a_service("file-service", tmp_path) as service:
        record = (await uploaded(service, content)).json()
        assert (record["size"], record["sha256"]) == (size, hashlib.sha256(content).hexdigest())
        reply = await service.as_user(ANA, "GET", f"{URL}/{record['id']}/content")
        assert reply.content == content
        assert reply.headers["x-content-sha256"] == record["sha256"]
        assert (await service.as_user(ANA, "GET", f"{URL}/{record['id']}")).json() == record


async def test_a_file_above_the_limit_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    async with a_service("file-service", tmp_path) as service:
        for size in (MAX_FILE_BYTES + 1, MAX_FILE_BYTES + 1_000_000):
            reply = await uploaded(service, bytes(size))
            assert reply.status_code == 413
        assert (await service.as_user(ANA, "GET", URL)).json()["files"] == []
        assert on_disk(tmp_path) == []


async def test_an_endless_body_without_a_length_is_cut_off(tmp_path: Path) -> None:
    sent = 0

    async def endless() -> Any:
        nonlocal sent
        yield b'--b\r\ncontent-disposition: form-data; name="file"; filename="x"\r\n\r\n'
        while sent < 40 << 20:
            sent += 1 << 18
            yield bytes(1 << 18)
        yield b"\r\n--b--\r\n"

    async with a_service("file-service", tmp_path) as service:
        token = service.context.tokens.for_user(ANA, "ana@example.org")
        headers = {"authorization": f"Bearer {token}", "content-type": "multipart/form-data; boundary=b"}
        reply = await service.http.post(URL, headers=headers, content=endless())
        assert reply.status_code == 413
        assert on_disk(tmp_path) == []


async def test_a_hostile_name_stays_a_name(tmp_path: Path) -> None:
    async with a_service("file-service", tmp_path) as service:
        record = (await uploaded(service, name="../../../tmp/evil\u202etxt.exe")).json()
        assert record["name"] == "eviltxt.exe"
        assert on_disk(tmp_path) == [record["id"]]
        reply = await service.as_user(ANA, "GET", f"{URL}/{record['id']}/content")
        assert reply.headers["content-disposition"] == "attachment; filename*=UTF-8''eviltxt.exe"


async def test_a_page_in_disguise_is_never_shown_as_one(tmp_path: Path) -> None:
    async with a_service("file-service", tmp_path) as service:
        record = (await uploaded(service, b"<script>1</script>", "a.html", "text/html; charset=utf-8")).json()
        reply = await service.as_user(ANA, "GET", f"{URL}/{record['id']}/content")
        assert reply.headers["content-disposition"].startswith("attachment")
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in reply.headers["content-security-policy"]
        odd = (await uploaded(service, media_type='text/html"><')).json()
        assert odd["media_type"] == "application/octet-stream"


async def test_another_users_file_does_not_exist_for_me(tmp_path: Path) -> None:
    async with a_service("file-service", tmp_path) as service:
        id_ = (await uploaded(service)).json()["id"]
        answers = [
            await service.as_user(BOB, "GET", f"{URL}/{id_}"),
            await service.as_user(BOB, "GET", f"{URL}/{id_}/content"),
            await service.as_user(BOB, "DELETE", f"{URL}/{id_}"),
            await service.as_user(ANA, "GET", f"{URL}/..%2f..%2fconversation.db/content"),
        ]
        assert {answer.status_code for answer in answers} == {404}
        assert (await service.as_user(BOB, "GET", URL)).json()["files"] == []
        assert (await service.http.get(f"{URL}/{id_}")).status_code == 401


async def test_a_deleted_file_is_gone_from_the_list_and_from_the_disk(tmp_path: Path) -> None:
    async with a_service("file-service", tmp_path) as service:
        id_, kept = (await uploaded(service)).json()["id"], (await uploaded(service)).json()["id"]
        assert (await service.as_user(ANA, "DELETE", f"{URL}/{id_}")).status_code == 204
        assert (await service.as_user(ANA, "DELETE", f"{URL}/{id_}")).status_code == 404
        assert (await service.as_user(ANA, "GET", f"{URL}/{id_}/content")).status_code == 404
        assert [file["id"] for file in (await service.as_user(ANA, "GET", URL)).json()["files"]] == [kept]
        assert on_disk(tmp_path) == [kept]


async def test_the_list_comes_in_pages(tmp_path: Path) -> None:
    async with a_service("file-service", tmp_path) as service:
        ids = {(await uploaded(service)).json()["id"] for _ in range(5)}
        first = (await service.as_user(ANA, "GET", f"{URL}?limit=3")).json()
        rest = (await service.as_user(ANA, "GET", f"{URL}?limit=3&before={first['next_before']}")).json()
        assert {file["id"] for file in first["files"] + rest["files"]} == ids
        assert rest["next_before"] is None


@pytest.mark.parametrize("form", [{"data": {"other": "x"}}, {"json": {}}, {"content": b"raw"}])
async def test_a_form_without_a_file_is_a_client_error(tmp_path: Path, form: dict[str, Any]) -> None:
    async with a_service("file-service", tmp_path) as service:
        assert (await service.as_user(ANA, "POST", URL, **form)).status_code == 422


async def test_part_of_a_file_can_be_asked_for(tmp_path: Path) -> None:
    async with a_service("file-service", tmp_path) as service:
        id_ = (await uploaded(service, b"0123456789")).json()["id"]
        token = service.context.tokens.for_user(ANA, "ana@example.org")
        headers = {"authorization": f"Bearer {token}", "range": "bytes=2-4"}
        reply = await service.http.get(f"{URL}/{id_}/content", headers=headers)
        assert (reply.status_code, reply.content) == (206, b"234")


def test_a_source_that_breaks_off_leaves_no_draft(tmp_path: Path) -> None:
    class Breaking(BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise ConnectionError
            return super().read(3)

    with pytest.raises(Problem):
        Contents(tmp_path, 100).write("id-1", Breaking(b"123456"))
    assert [path for path in tmp_path.rglob("*") if path.is_file()] == []


async def test_what_a_crash_left_behind_is_removed_once_it_is_old(tmp_path: Path) -> None:
    async with a_service("file-service", tmp_path) as service:
        kept = (await uploaded(service)).json()["id"]
        files = service.context.once(Files)
        for name in ("orphan-ab", "orphan-ab.draft", "young-ab"):
            path = files.contents.path(name)
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(b"x")
        for path in (tmp_path / "files").rglob("*"):
            if path.is_file() and not path.name.startswith("young"):
                old = path.stat().st_mtime - ABANDONED_AFTER_SECONDS - 60
                os.utime(path, (old, old))
        async with files.cleaning_up():
            await service.context.finish_background(5)
        assert on_disk(tmp_path) == sorted([kept, "young-ab"])
