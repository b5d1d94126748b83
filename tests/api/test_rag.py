from collections.abc import AsyncIterator

import psycopg
import pytest

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.ai.rag.requests import BODY_BYTES_MAX
from tests.api.conftest import MODELS_DIR, Api
from tests.following import following
from tests.waiting import until

# Sections long enough to be chunks of their own.
TEXT = (
    "# Whales\n\n"
    + "The blue whale is the largest animal. " * 6
    + "\n\n# Trains\n\nThe train leaves at nine."
)


@pytest.fixture
async def rag(api: Api) -> AsyncIterator[Api]:
    """The web edge, and the documents' projection at work."""
    embedder = LazyEmbedder(EmbedderSettings(), MODELS_DIR)
    async with following(api.installation, embedder):
        yield api
    await embedder.close()


async def make(api: Api, user: dict[str, str], mode: str = "private") -> None:
    body = {"name": "notes", "accessMode": mode}
    made = await api.client.post("/v1/main/rag/collections", json=body, headers=user)
    assert made.status_code == 201, made.text


async def add(api: Api, user: dict[str, str], text: str = TEXT) -> str:
    body = {"title": "Facts", "text": text, "metadata": {"page": 1}}
    added = await api.client.post("/v1/main/rag/notes/documents", json=body, headers=user)
    assert added.status_code == 202, added.text
    document: str = added.json()["id"]
    return document


async def until_ready(api: Api, user: dict[str, str], document: str) -> None:
    path = f"/v1/main/rag/notes/documents/{document}"

    async def is_ready() -> bool:
        return bool((await api.client.get(path, headers=user)).json()["status"] == "ready")

    await until(is_ready)


async def ask(api: Api, user: dict[str, str], query: str) -> list[dict[str, object]]:
    answer = await api.client.post(
        "/v1/main/rag/notes/query", json={"query": query, "topK": 3}, headers=user
    )
    assert answer.status_code == 200, answer.text
    passages: list[dict[str, object]] = answer.json()["passages"]
    return passages


async def test_a_question_finds_the_passage_that_answers_it(rag: Api) -> None:
    ana = await rag.sign_up("ana@example.com")
    await make(rag, ana)
    document = await add(rag, ana)
    await until_ready(rag, ana, document)
    first, *_ = await ask(rag, ana, "when does the train go?")
    assert (first["heading"], first["documentId"]) == ("Trains", document)
    assert "nine" in str(first["content"])


@pytest.mark.parametrize("mode", ["hybrid", "vector", "text"])
async def test_each_mode_finds_it_and_by_the_title_too(rag: Api, mode: str) -> None:
    ana = await rag.sign_up("ana@example.com")
    await make(rag, ana)
    await until_ready(rag, ana, await add(rag, ana))
    body = {"title": "Zeppelins", "text": "They are lighter than air.", "metadata": {"page": 2}}
    added = await rag.client.post("/v1/main/rag/notes/documents", json=body, headers=ana)
    zeppelins = added.json()["id"]
    await until_ready(rag, ana, zeppelins)

    async def found(query: str, **options: object) -> list[dict[str, object]]:
        asked = {"query": query, "mode": mode, **options}
        path = "/v1/main/rag/notes/query"
        answer = await rag.client.post(path, json=asked, headers=ana)
        assert answer.status_code == 200, answer.text
        passages: list[dict[str, object]] = answer.json()["passages"]
        return passages

    assert (await found("what is a zeppelin?"))[0]["documentId"] == zeppelins
    assert "nine" in str((await found("train leaves", filter={"page": 1}))[0]["content"])
    assert zeppelins not in {p["documentId"] for p in await found("zeppelin", filter={"page": 1})}
    if mode != "text":
        (best,) = await found("the train leaves at nine", threshold=0.6)
        assert best["heading"] == "Trains"


async def test_nobody_finds_what_they_may_not_read(rag: Api) -> None:
    ana, bo = await rag.sign_up("ana@example.com"), await rag.sign_up("bo@example.com")
    await make(rag, ana)
    document = await add(rag, ana)
    await until_ready(rag, ana, document)
    for caller in (bo, rag.anon):
        query = {"query": "train"}
        hidden = await rag.client.post("/v1/main/rag/notes/query", json=query, headers=caller)
        assert hidden.status_code in (401, 403, 404)
    path = f"/v1/main/rag/notes/documents/{document}"
    assert (await rag.client.get(path, headers=bo)).status_code == 404
    assert (await rag.client.delete(path, headers=bo)).status_code == 404
    into = await rag.client.post(
        "/v1/main/rag/notes/documents", json={"text": "planted"}, headers=bo
    )
    assert (into.status_code, into.json()["code"]) == (404, "collection_not_found")


async def test_a_shared_collection_is_read_by_others_and_written_by_its_owner(rag: Api) -> None:
    ana, bo = await rag.sign_up("ana@example.com"), await rag.sign_up("bo@example.com")
    await make(rag, ana, "shared")
    await until_ready(rag, ana, await add(rag, ana))
    assert await ask(rag, bo, "whale")
    into = await rag.client.post(
        "/v1/main/rag/notes/documents", json={"text": "planted"}, headers=bo
    )
    assert into.status_code == 403


async def test_a_change_embeds_only_what_changed(rag: Api) -> None:
    ana = await rag.sign_up("ana@example.com")
    await make(rag, ana)
    document = await add(rag, ana)
    await until_ready(rag, ana, document)
    with psycopg.connect(rag.installation.main.dsn, autocommit=True) as conn:
        # A vector that no model gives shows whether it was kept.
        conn.execute(
            "update ai.chunks set embedding = array_fill(0.5, array[384])::extensions.vector"
            " where heading = 'Whales'"
        )
        conn.execute(
            "update ai.documents set content = replace(content, 'nine', 'ten') where id = %s",
            [document],
        )
        await until_ready(rag, ana, document)
        rows = conn.execute(
            "select heading, content like '%ten%', embedding = array_fill(0.5, array[384])"
            "::extensions.vector from ai.chunks order by ordinal"
        ).fetchall()
    assert rows == [("Whales", False, True), ("Trains", True, False)]


async def test_metadata_that_changes_reaches_the_passages(rag: Api) -> None:
    ana = await rag.sign_up("ana@example.com")
    await make(rag, ana)
    document = await add(rag, ana)
    await until_ready(rag, ana, document)

    async def found(**metadata: object) -> list[object]:
        asked = {"query": "train", "filter": metadata, "mode": "text"}
        answer = await rag.client.post("/v1/main/rag/notes/query", json=asked, headers=ana)
        return [passage["metadata"] for passage in answer.json()["passages"]]

    with psycopg.connect(rag.installation.main.dsn, autocommit=True) as conn:
        vectors = conn.execute("select id, embedding::text from ai.chunks order by id").fetchall()
        assert await found(page=1) == [{"page": 1}]
        path, change = f"/v1/main/rag/notes/documents/{document}", {"metadata": {"page": 2}}
        assert (await rag.client.patch(path, json=change, headers=ana)).status_code == 200
        await until_ready(rag, ana, document)
        assert await found(page=1) == []
        assert await found(page=2) == [{"page": 2}]
        now = conn.execute("select id, embedding::text from ai.chunks order by id").fetchall()
        assert [vector for _, vector in now] == [vector for _, vector in vectors]


@pytest.mark.parametrize("name", ["indexes", "collections"])
async def test_a_word_of_the_paths_is_no_collections_name(api: Api, name: str) -> None:
    path = "/v1/main/rag/collections"
    refused = await api.client.post(path, json={"name": name}, headers=api.service)
    assert (refused.status_code, refused.json()["code"]) == (400, "rag_request_invalid")
    await make(api, api.service)
    refused = await api.client.patch(f"{path}/notes", json={"name": name}, headers=api.service)
    assert (refused.status_code, refused.json()["code"]) == (400, "rag_request_invalid")
    with (
        psycopg.connect(api.installation.main.dsn) as conn,
        pytest.raises(psycopg.errors.CheckViolation),
    ):
        conn.execute("insert into ai.collections (name) values (%s)", [name])


async def test_a_deleted_document_is_found_no_more(rag: Api) -> None:
    ana = await rag.sign_up("ana@example.com")
    await make(rag, ana)
    document = await add(rag, ana)
    await until_ready(rag, ana, document)
    path = f"/v1/main/rag/notes/documents/{document}"
    assert (await rag.client.delete(path, headers=ana)).status_code == 204
    assert await ask(rag, ana, "whale") == []
    with psycopg.connect(rag.installation.main.dsn, autocommit=True) as conn:
        await until(lambda: conn.execute("select from ai.chunks").fetchone() is None)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"{", b"[]", b'{"text": ""}', b'{"text": 1}', b'{"text": "a", "txet": "b"}', b"\xff",
        b'{"text": "a", "metadata": {"a": ' + b"[" * 100_000,
    ],
)  # fmt: skip
async def test_a_document_that_cannot_be_read_is_refused(api: Api, body: bytes) -> None:
    answer = await api.client.post(
        "/v1/main/rag/notes/documents", content=body, headers=api.service
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "rag_request_invalid")


async def test_a_document_above_the_limit_is_refused(api: Api) -> None:
    body = {"text": "a" * BODY_BYTES_MAX}
    answer = await api.client.post("/v1/main/rag/notes/documents", json=body, headers=api.service)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")
    assert "text" in answer.json()["hint"]
    with (
        psycopg.connect(api.installation.main.dsn) as conn,
        pytest.raises(psycopg.errors.CheckViolation),
    ):
        conn.execute(
            "with c as (insert into ai.collections (name) values ('notes') returning id)"
            " insert into ai.documents (collection_id, content) select id, repeat('a', %s) from c",
            [BODY_BYTES_MAX + 1],
        )


async def test_a_name_that_another_user_has_taken_is_free(api: Api) -> None:
    ana, bo = await api.sign_up("ana@example.com"), await api.sign_up("bo@example.com")
    await make(api, ana)
    await make(api, bo)
    mine = await add(api, bo)
    listed = await api.client.get("/v1/main/rag/notes/documents", headers=bo)
    assert [document["id"] for document in listed.json()["documents"]] == [mine]
    hers = await api.client.get("/v1/main/rag/notes/documents", headers=ana)
    assert hers.json() == {"documents": [], "next": None}


@pytest.mark.parametrize("caller", ["a user", "the service"])
async def test_a_name_of_ones_own_is_taken_once(api: Api, caller: str) -> None:
    headers = api.service if caller == "the service" else await api.sign_up("ana@example.com")
    await make(api, headers)
    again = await api.client.post(
        "/v1/main/rag/collections", json={"name": "notes"}, headers=headers
    )
    assert (again.status_code, again.json()["code"]) == (409, "collection_exists")


async def test_ones_own_collection_comes_before_a_shared_one(api: Api) -> None:
    ana, bo = await api.sign_up("ana@example.com"), await api.sign_up("bo@example.com")
    await make(api, ana, "shared")
    theirs = await add(api, ana)
    await make(api, bo)
    mine = await add(api, bo)
    path = "/v1/main/rag/notes/documents"
    assert (await api.client.get(f"{path}/{theirs}", headers=bo)).status_code == 404
    assert (await api.client.get(f"{path}/{mine}", headers=bo)).status_code == 200
    assert (await api.client.delete("/v1/main/rag/collections/notes", headers=bo)).is_success
    # The name now stands for the shared one, which is not theirs to delete.
    assert (await api.client.get(f"{path}/{theirs}", headers=bo)).status_code == 200
    gone = await api.client.delete("/v1/main/rag/collections/notes", headers=bo)
    assert (gone.status_code, gone.json()["code"]) == (404, "collection_not_found")
    assert (await api.client.get(f"{path}/{theirs}", headers=ana)).status_code == 200


async def test_of_two_shared_collections_a_name_stands_for_the_older(api: Api) -> None:
    ana, bo = await api.sign_up("ana@example.com"), await api.sign_up("bo@example.com")
    await make(api, ana, "shared")
    older = await add(api, ana)
    await make(api, bo, "shared")
    await add(api, bo)
    other = await api.sign_up("cy@example.com")
    listed = await api.client.get("/v1/main/rag/notes/documents", headers=other)
    assert [document["id"] for document in listed.json()["documents"]] == [older]


async def test_the_service_does_not_write_into_a_users_private_collection(api: Api) -> None:
    await make(api, await api.sign_up("ana@example.com"))
    into = await api.client.post(
        "/v1/main/rag/notes/documents", json={"text": "secret"}, headers=api.service
    )
    assert (into.status_code, into.json()["code"]) == (404, "collection_not_found")
