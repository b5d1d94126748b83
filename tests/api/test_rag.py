from collections.abc import AsyncIterator

import psycopg
import pytest

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from tests.api.conftest import MODELS_DIR, Api
from tests.following import following
from tests.waiting import until

TEXT = "# Whales\n\nThe blue whale is the largest animal.\n\n# Trains\n\nThe train leaves at nine."


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
    [b"", b"{", b"[]", b'{"text": ""}', b'{"text": 1}', b'{"text": "a", "txet": "b"}', b"\xff"],
)
async def test_a_document_that_cannot_be_read_is_refused(api: Api, body: bytes) -> None:
    answer = await api.client.post(
        "/v1/main/rag/notes/documents", content=body, headers=api.service
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "rag_request_invalid")
