"""Full-text search: found by its owner and nobody else, indexed once however often told."""

from datetime import timedelta
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.services.suite import ANA, BOB, Service, a_service

URL = "/api/search"


def a_document(id_: str = "m-1", text: str = "the bowline is a knot", **changes: object) -> dict[str, object]:
    return {"id": id_, "kind": "message", "title": "Knots", "text": text, "conversation_id": "c-1", **changes}


async def indexed(service: Service, *documents: dict[str, object], user_id: str = ANA) -> None:
    reply = await service.as_service(user_id, "POST", f"{URL}/documents", json={"documents": list(documents)})
    assert reply.status_code == 204


async def found(service: Service, text: str, user_id: str = ANA) -> list[str]:
    reply = await service.as_user(user_id, "GET", f"{URL}?q={quote(text.encode())}")
    assert reply.status_code == 200, reply.text
    return [hit["id"] for hit in reply.json()["results"]]


async def test_words_find_the_documents_that_hold_all_of_them(tmp_path: Path) -> None:
    async with a_service("search-service", tmp_path) as service:
        await indexed(service, a_document(), a_document("m-2", "a hitch is a knot too"))
        assert sorted(await found(service, "knot")) == ["m-1", "m-2"]
        assert await found(service, "BOWLINE knot") == ["m-1"]
        assert await found(service, "bow*") == ["m-1"]
        assert await found(service, "knot -hitch") == ["m-1"]
        assert await found(service, '"knot bowline"') == []
        assert await found(service, "nothing") == []


async def test_accents_and_case_do_not_matter(tmp_path: Path) -> None:
    async with a_service("search-service", tmp_path) as service:
        await indexed(service, a_document(text="Migrarea către microservicii: pânză"))
        assert await found(service, "CATRE panza") == ["m-1"]


async def test_a_hit_says_where_it_is_and_shows_the_passage(tmp_path: Path) -> None:
    async with a_service("search-service", tmp_path) as service:
        await indexed(service, a_document(text="word " * 200 + "needle " + "word " * 200))
        [hit] = (await service.as_user(ANA, "GET", f"{URL}?q=needle")).json()["results"]
        assert "needle" in hit["snippet"]
        assert len(hit["snippet"]) < 200
        assert (hit["conversation_id"], hit["title"], hit["kind"]) == ("c-1", "Knots", "message")


async def test_nobody_finds_what_belongs_to_others(tmp_path: Path) -> None:
    async with a_service("search-service", tmp_path) as service:
        await indexed(service, a_document())
        assert await found(service, "bowline", BOB) == []
        assert await found(service, 'owner:* OR "bowline" OR bowline', BOB) == []
        await indexed(service, a_document(text="bowline of Bob"), user_id=BOB)  # the same id, another owner
        assert await found(service, "bob", ANA) == []
        assert await found(service, "bob", BOB) == ["m-1"]


async def test_users_cannot_write_the_index(tmp_path: Path) -> None:
    async with a_service("search-service", tmp_path) as service:
        body = {"documents": [a_document()]}
        assert (await service.as_user(ANA, "POST", f"{URL}/documents", json=body)).status_code == 403
        assert (await service.as_user(ANA, "DELETE", f"{URL}/conversations/c-1")).status_code == 403
        assert (await service.http.get(f"{URL}?q=a")).status_code == 401


async def test_indexing_again_replaces_and_leaves_no_trace_of_the_old_text(tmp_path: Path) -> None:
    async with a_service("search-service", tmp_path) as service:
        await indexed(service, a_document())
        await indexed(service, a_document())
        assert await found(service, "bowline") == ["m-1"]
        await indexed(service, a_document(text="a sheet bend"))
        assert await found(service, "bowline") == []
        assert await found(service, "bend") == ["m-1"]


async def test_a_deleted_conversation_is_not_found_even_when_a_late_message_of_it_arrives(tmp_path: Path) -> None:
    async with a_service("search-service", tmp_path) as service:
        await indexed(service, a_document(), a_document("m-2", conversation_id="c-2"))
        assert (await service.as_service(ANA, "DELETE", f"{URL}/conversations/c-1")).status_code == 204
        await indexed(service, a_document("m-3", "a late bowline"))
        assert await found(service, "bowline") == ["m-2"]
        service.clock.advance(timedelta(hours=2))
        assert (await service.as_service(ANA, "DELETE", f"{URL}/conversations/c-1")).status_code == 204
        assert await found(service, "bowline") == ["m-2"]


@pytest.mark.parametrize(
    "text",
    [
        '"',
        "''",
        "a AND",
        "NEAR(a b",
        "col:x",
        "^a",
        "a*b*",
        "(((",
        "{title}:a",
        "\x00",
        "💩",
        "a" * 5000,
        "%",
        "; DROP TABLE",
        "\\",
    ],
)
async def test_hostile_queries_find_nothing_and_never_fail(tmp_path: Path, text: str) -> None:
    async with a_service("search-service", tmp_path) as service:
        await indexed(service, a_document("m-1", "harmless"))
        assert await found(service, text) == []


async def test_a_query_in_broken_utf8_never_fails(tmp_path: Path) -> None:
    async with a_service("search-service", tmp_path) as service:
        assert (await service.as_user(ANA, "GET", f"{URL}?q=%ff%fe%ed%a0%80")).status_code == 200


async def test_results_come_in_pages(tmp_path: Path) -> None:
    async with a_service("search-service", tmp_path) as service:
        await indexed(service, *(a_document(f"m-{n}", "knot") for n in range(5)))
        pages = [
            [
                hit["id"]
                for hit in (await service.as_user(ANA, "GET", f"{URL}?q=knot&limit=2&offset={offset}")).json()[
                    "results"
                ]
            ]
            for offset in (0, 2, 4)
        ]
        assert pages == [["m-4", "m-3"], ["m-2", "m-1"], ["m-0"]]  # equally good: the newest first
