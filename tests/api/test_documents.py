"""Files, pages and texts over HTTP, with the worker that reads them."""

from collections.abc import AsyncIterator

import psycopg
import pytest

from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.api.settings import ApiSettings
from tests.ai.documents import making
from tests.ai.documents.making import DATA
from tests.api.conftest import MODELS_DIR, Api, running
from tests.api.documents import DOCUMENTS, make, send, settled, shown, text_of, working_at
from tests.following import following
from tests.installation import Installation
from tests.waiting import until

PDF = "application/pdf"


@pytest.fixture
async def working(api: Api) -> AsyncIterator[Api]:
    """The web edge, and the worker beside it."""
    async with working_at(api):
        yield api


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("handbook.pdf", "Chapter 3"),
        ("handbook.docx", "Report on channel 9."),
        ("safety.pptx", "Know the exits"),
        ("berths.xlsx", "| Boat 1 | 8.5 | false |"),
        ("rules.html", "Ropes are doubled"),
        ("rules.md", "Ropes are doubled at night."),
        ("boats.csv", "Caña"),
        ("boats.json", "berth.pier: A"),
        ("weather.txt", "Böen aus Südwest"),
        ("berth.eml", "Berth für die Alba"),
    ],
)
async def test_a_file_becomes_text(working: Api, name: str, expected: str) -> None:
    ana = await working.sign_up("ana@example.com")
    await make(working, ana)
    sent = await send(working, ana, name, metadata='{"kind": "file"}')
    assert sent["status"] == "received"
    found = await settled(working, ana, sent["id"])
    assert found["status"] == "chunking", found
    assert (found["fileName"], found["metadata"]) == (name, {"kind": "file"})
    assert found["title"]
    text = await text_of(working, ana, sent["id"])
    assert expected in text
    start = text.index(expected)
    part = await text_of(working, ana, sent["id"], start=start, end=start + len(expected))
    assert part == expected


# What is sent


async def test_documents_of_a_collection_that_is_not_there_are_not_listed(api: Api) -> None:
    ana, bo = await api.sign_up("ana@example.com"), await api.sign_up("bo@example.com")
    await make(api, ana)
    assert (await api.client.get(DOCUMENTS, headers=ana)).json()["documents"] == []
    for hidden in (
        await api.client.get(DOCUMENTS, headers=bo),
        await api.client.get(DOCUMENTS.replace("notes", "none"), headers=ana),
    ):
        assert (hidden.status_code, hidden.json()["code"]) == (404, "collection_not_found")


async def test_a_text_is_there_at_once(api: Api) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    body = {"text": "# Boats\n\nThey float.", "title": "Boats", "metadata": {"a": 1}}
    sent = await api.client.post(DOCUMENTS, json=body, headers=ana)
    assert (sent.status_code, sent.json()["status"]) == (202, "chunking")
    assert await text_of(api, ana, sent.json()["id"]) == body["text"]
    # As curl sends it, if not told otherwise.
    form = ana | {"Content-Type": "application/x-www-form-urlencoded"}
    sent = await api.client.post(DOCUMENTS, content=b'{"text": "They float."}', headers=form)
    assert sent.status_code == 202
    assert await text_of(api, ana, sent.json()["id"]) == "They float."
    assert (await shown(api, ana, sent.json()["id"]))["characters"] == len("They float.")


async def test_a_file_can_be_the_whole_body(working: Api) -> None:
    ana = await working.sign_up("ana@example.com")
    await make(working, ana)
    params = {"title": "Mine", "metadata": '{"year": 2026}'}
    headers = ana | {
        "Content-Type": "text/csv; charset=cp1252",
        "Content-Disposition": "attachment; filename*=UTF-8''boats%20%C3%A9.csv",
    }
    data = (DATA / "boats.csv").read_bytes()
    sent = await working.client.post(DOCUMENTS, content=data, params=params, headers=headers)
    assert sent.status_code == 202, sent.text
    found = await settled(working, ana, sent.json()["id"])
    assert (found["title"], found["metadata"]) == ("Mine", {"year": 2026})
    assert (found["fileName"], found["bytes"]) == ("boats é.csv", len(data))
    assert "Caña" in await text_of(working, ana, found["id"])


@pytest.mark.parametrize(
    ("content_type", "body", "status", "code"),
    [
        ("application/json", b'{"text": "a", "url": "http://a/"}', 400, "rag_request_invalid"),
        ("application/json", b"{}", 400, "rag_request_invalid"),
        ("application/json", b'{"url": "ftp://a/"}', 400, "document_fetch_refused"),
        ("application/json", b'{"url": "http://a:b@c/"}', 400, "document_fetch_refused"),
        ("application/json", b'{"url": "http://169.254.169.254/"}', 400, "document_fetch_refused"),
        ("application/json", b'{"text": " \\n\\t "}', 400, "document_empty"),
        ("application/json", b'{"text": "a", "metadata": {"a": "%b"}}' % (b"a" * 40_000), 400,
         "rag_request_invalid"),
        ("application/json", b'{"storage": {"bucket": "b", "path": "p"}}', 400,
         "document_storage_unsupported"),
        ("image/png", b"\x89PNG", 415, "document_type_unsupported"),
        ("application/octet-stream", b"??", 415, "document_type_unsupported"),
        (PDF, b"", 400, "document_empty"),
        ("multipart/form-data", b"", 400, "rag_request_invalid"),
        ("multipart/form-data; boundary=b", b"--b\r\nbroken", 400, "rag_request_invalid"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=\"title\""
         b"\r\n\r\nx\r\n--b--\r\n", 400, "rag_request_invalid"),
        ("multipart/form-data; boundary=b", b"--b\r\nContent-Disposition: form-data; name=\"other\""
         b"\r\n\r\nx\r\n--b--\r\n", 400, "rag_request_invalid"),
    ],
)  # fmt: skip
async def test_what_cannot_become_a_document_is_refused_at_once(
    api: Api, content_type: str, body: bytes, status: int, code: str
) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    headers = ana | {"Content-Type": content_type}
    sent = await api.client.post(DOCUMENTS, content=body, headers=headers)
    assert (sent.status_code, sent.json()["code"]) == (status, code), sent.text
    listed = await api.client.get(DOCUMENTS, headers=ana)
    assert listed.json()["documents"] == []


@pytest.mark.parametrize("fields", [{"metadata": "[]"}, {"metadata": "{"}, {"title": "a" * 1001}])
async def test_fields_beside_a_file_are_checked(api: Api, fields: dict[str, str]) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    files = {"file": ("a.txt", b"words")}
    sent = await api.client.post(DOCUMENTS, files=files, data=fields, headers=ana)
    assert (sent.status_code, sent.json()["code"]) == (400, "rag_request_invalid")


async def test_a_file_above_the_limit_is_refused(installation: Installation) -> None:
    async with running(installation, ApiSettings(), documents_bytes_max=2000) as api:
        ana = await api.sign_up("ana@example.com")
        await make(api, ana)
        sent = [
            await api.client.post(DOCUMENTS, files={"file": ("a.txt", b"a" * 2001)}, headers=ana),
            await api.client.post(
                DOCUMENTS, content=b"a" * 2001, headers=ana | {"Content-Type": "text/plain"}
            ),
        ]
    assert [(answer.status_code, answer.json()["code"]) for answer in sent] == [
        (413, "body_too_large")
    ] * 2


async def test_the_key_of_anybody_sends_nothing(api: Api) -> None:
    files = {"file": ("a.txt", b"words")}
    sent = await api.client.post(DOCUMENTS, files=files, headers=api.anon)
    assert sent.status_code in {401, 403, 404}


@pytest.mark.parametrize(
    ("body", "headers"),
    [
        (b'{"text": "a\\u0000b"}', {}),
        (b'{"text": "a", "title": "\\u0000"}', {}),
        (b'{"text": "a", "metadata": {"a": "\\u0000"}}', {}),
        (b'{"text": "a", "source": "\\ud800"}', {}),
        (b"words", {"Content-Type": "text/plain; x=\xff", "Content-Disposition": "filename=\xfe"}),
    ],
)
async def test_characters_that_postgres_does_not_have_are_no_fault_of_the_server(
    api: Api, body: bytes, headers: dict[str, str]
) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    raw = {name.encode(): value.encode("latin-1") for name, value in (ana | headers).items()}
    sent = await api.client.post(DOCUMENTS, content=body, headers=raw)
    assert sent.status_code < 500, sent.text


async def test_a_large_file_arrives_whole(working: Api) -> None:
    await make(working, working.service)
    rows = "".join(f"{n};{'x' * 90}\n" for n in range(30_000))
    files = {"file": ("rows.csv", rows.encode())}
    sent = await working.client.post(DOCUMENTS, files=files, headers=working.service)
    assert sent.status_code == 202, sent.text
    found = await settled(working, working.service, sent.json()["id"])
    assert found["bytes"] == len(rows)
    text = await text_of(working, working.service, found["id"])
    assert text.count("x" * 90) == 30_000


# How it fares


async def test_what_was_indexed_of_a_state_before_is_not_ready(api: Api) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    embedder = LazyEmbedder(EmbedderSettings(), MODELS_DIR)
    update = "update ai.documents set content = %s where id = %s"
    with psycopg.connect(api.installation.main.dsn) as conn:
        conn.execute("select now()")  # that of its change, which others do not see before its end
        async with following(api.installation, embedder):
            sent = await api.client.post(DOCUMENTS, json={"text": "Before."}, headers=ana)
            id_ = sent.json()["id"]

            async def is_ready() -> bool:
                return bool((await shown(api, ana, id_))["status"] == "ready")

            await until(is_ready)
        conn.execute(update, ["After.", id_])
        conn.commit()
        assert (await shown(api, ana, id_))["status"] == "chunking"
        async with following(api.installation, embedder):
            await until(is_ready)
            # With the same text there is nothing to do, and that is known.
            conn.execute(update, ["After.", id_])
            conn.commit()
            await until(is_ready)
    await embedder.close()


async def test_a_file_is_followed_until_its_pages_are_passages(api: Api) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    embedder = LazyEmbedder(EmbedderSettings(), MODELS_DIR)
    async with following(api.installation, embedder):
        sent = await send(api, ana, "handbook.pdf")

        async def is_ready() -> bool:
            return bool((await shown(api, ana, sent["id"]))["status"] == "ready")

        await until(is_ready)
    await embedder.close()
    found = await shown(api, ana, sent["id"])
    assert found["progress"]["chunks"] == found["progress"]["embedded"] > 5
    text = await text_of(api, ana, sent["id"])
    with psycopg.connect(api.installation.main.dsn) as conn:
        rows = conn.execute(
            "select page, heading, content, start_offset, end_offset from ai.chunks"
        ).fetchall()
    assert {page for page, *_ in rows} == {1, 2, 3, 4, 5}
    for page, heading, content, start, end in rows:
        assert heading == f"Chapter {page}"
        assert text[start:end] == content


async def test_a_file_that_cannot_be_read_is_dead_and_says_why(working: Api) -> None:
    ana = await working.sign_up("ana@example.com")
    await make(working, ana)
    sent = await send(working, ana, "locked.pdf")
    found = await settled(working, ana, sent["id"])
    assert found["status"] == "dead"
    assert found["error"]["code"] == "document_encrypted"
    assert "password" in found["error"]["hint"]
    refused = await working.client.get(f"{DOCUMENTS}/{sent['id']}/text", headers=ana)
    assert (refused.status_code, refused.json()["code"]) == (409, "document_not_parsed")
    # Sent anew, with a file that can be read.
    again = await working.client.post(
        f"{DOCUMENTS}/{sent['id']}/ingest",
        files={"file": ("handbook.pdf", (DATA / "handbook.pdf").read_bytes())},
        headers=ana,
    )
    assert (again.status_code, again.json()["status"]) == (202, "received")
    found = await settled(working, ana, sent["id"])
    assert (found["status"], found["error"], found["pageCount"]) == ("chunking", None, 5)
    assert found["properties"]["author"] == "Harbour master"
    assert found["progress"]["pages"] == found["progress"]["pagesDone"] == 5


async def test_a_kept_file_is_read_again(working: Api) -> None:
    ana = await working.sign_up("ana@example.com")
    await make(working, ana)
    sent = await send(working, ana, "rules.md")
    await settled(working, ana, sent["id"])
    with psycopg.connect(working.installation.main.dsn, autocommit=True) as conn:
        conn.execute("update ai.documents set content = 'lost'")
    again = await working.client.post(f"{DOCUMENTS}/{sent['id']}/ingest", headers=ana)
    assert again.status_code == 202, again.text
    await settled(working, ana, sent["id"])
    assert await text_of(working, ana, sent["id"]) == making.MARKDOWN.strip("\n")


async def test_a_text_has_nothing_to_be_read_again_and_is_replaced_by_another(api: Api) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    document = (await api.client.post(DOCUMENTS, json={"text": "old"}, headers=ana)).json()["id"]
    path = f"{DOCUMENTS}/{document}/ingest"
    refused = await api.client.post(path, headers=ana)
    assert (refused.status_code, refused.json()["code"]) == (409, "document_nothing_to_ingest")
    replaced = await api.client.post(path, json={"text": "new", "title": "T"}, headers=ana)
    assert (replaced.status_code, replaced.json()["title"]) == (202, "T")
    assert await text_of(api, ana, document) == "new"


async def test_a_document_is_described_anew(api: Api) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    body = {"text": "a", "source": "s", "metadata": {"a": 1}}
    document = (await api.client.post(DOCUMENTS, json=body, headers=ana)).json()["id"]
    path, change = f"{DOCUMENTS}/{document}", {"title": "T", "source": None, "metadata": {"b": 2}}
    changed = (await api.client.patch(path, json=change, headers=ana)).json()
    assert {name: changed[name] for name in change} == change
    refusals: list[dict[str, object]] = [{"text": "b"}, {"metadata": {"a": "a" * 40_000}}]
    for refusal in refusals:
        refused = await api.client.patch(path, json=refusal, headers=ana)
        assert (refused.status_code, refused.json()["code"]) == (400, "rag_request_invalid")


async def test_documents_are_listed_in_parts(api: Api) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    sent = [
        (await api.client.post(DOCUMENTS, json={"text": f"{n}"}, headers=ana)).json()["id"]
        for n in range(5)
    ]
    seen: list[str] = []
    params: dict[str, str] = {"limit": "2"}
    while True:
        listed = (await api.client.get(DOCUMENTS, params=params, headers=ana)).json()
        seen += [document["id"] for document in listed["documents"]]
        if listed["next"] is None:
            break
        params["after"] = listed["next"]
    assert seen == sent


async def test_documents_are_listed_by_their_status(working: Api) -> None:
    ana = await working.sign_up("ana@example.com")
    await make(working, ana)
    bad = await send(working, ana, "locked.pdf")
    await send(working, ana, "rules.md")
    await settled(working, ana, bad["id"])
    listed = await working.client.get(DOCUMENTS, params={"status": "dead"}, headers=ana)
    assert [document["id"] for document in listed.json()["documents"]] == [bad["id"]]
    assert listed.json()["documents"][0]["error"]["code"] == "document_encrypted"


@pytest.mark.parametrize(
    "params",
    [{"limit": "0"}, {"limit": "1001"}, {"limit": "x"}, {"after": "x"}, {"status": "lost"},
     {"after": f"9_{'-' * 36}"}],
)  # fmt: skip
async def test_a_list_that_cannot_be_is_refused(api: Api, params: dict[str, str]) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    refused = await api.client.get(DOCUMENTS, params=params, headers=ana)
    assert refused.status_code == 400, refused.text


# Who may


async def test_strangers_learn_nothing_and_change_nothing(working: Api) -> None:
    ana, bo = await working.sign_up("ana@example.com"), await working.sign_up("bo@example.com")
    await make(working, ana)
    await make(working, bo)
    sent = await send(working, ana, "rules.md")
    await settled(working, ana, sent["id"])
    path = f"{DOCUMENTS}/{sent['id']}"
    answers = [
        await working.client.get(path, headers=bo),
        await working.client.get(f"{path}/text", headers=bo),
        await working.client.patch(path, json={"title": "mine"}, headers=bo),
        await working.client.post(f"{path}/ingest", headers=bo),
        await working.client.post(f"{path}/ingest", json={"text": "planted"}, headers=bo),
        await working.client.post(
            f"{path}/ingest", files={"file": ("a.md", b"planted")}, headers=bo
        ),
        await working.client.delete(path, headers=bo),
    ]
    assert [answer.status_code for answer in answers] == [404] * 7
    assert await text_of(working, ana, sent["id"]) == making.MARKDOWN.strip("\n")


async def test_readers_of_a_shared_collection_read_and_no_more(working: Api) -> None:
    ana, bo = await working.sign_up("ana@example.com"), await working.sign_up("bo@example.com")
    await make(working, ana, accessMode="shared")
    sent = await send(working, ana, "rules.md")
    await settled(working, ana, sent["id"])
    path = f"{DOCUMENTS}/{sent['id']}"
    assert (await shown(working, bo, sent["id"]))["fileName"] == "rules.md"
    assert "Mooring" in await text_of(working, bo, sent["id"])
    refused = [
        await working.client.patch(path, json={"title": "mine"}, headers=bo),
        await working.client.post(f"{path}/ingest", headers=bo),
        await working.client.post(f"{path}/ingest", json={"text": "planted"}, headers=bo),
        await working.client.post(
            f"{path}/ingest", files={"file": ("a.md", b"planted")}, headers=bo
        ),
        await working.client.delete(path, headers=bo),
    ]
    assert [answer.status_code for answer in refused] == [404] * 5
    files = {"file": ("a.md", b"planted")}
    into = await working.client.post(DOCUMENTS, files=files, headers=bo)
    assert into.status_code == 403
    assert (await shown(working, ana, sent["id"]))["title"] == "Harbour rules"


async def test_bytes_are_nobodys_to_read(api: Api) -> None:
    ana = await api.sign_up("ana@example.com")
    await make(api, ana)
    await send(api, ana, "rules.md")
    with psycopg.connect(api.installation.main.dsn) as conn:
        conn.execute("set role authenticated")
        with pytest.raises(psycopg.errors.InsufficientPrivilege):
            conn.execute("select data from ai.uploads")
