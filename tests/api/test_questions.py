"""Questions over HTTP: modes, filters, answers with citations."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any
from uuid import UUID

import httpx
import numpy as np
import psycopg
import pytest

from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.ai.settings import AiSettings
from butterbase.api.app import create_app
from butterbase.api.apps import keys_of
from butterbase.api.settings import ApiSettings
from tests.ai.conftest import sse_data
from tests.ai.rag.published import Published, Text, published
from tests.ai.upstream import COMPLETION, DONE, Upstream, answer, running_upstream, stream
from tests.api.conftest import MODELS_DIR, Api
from tests.installation import Installation
from tests.serving import client_of
from tests.waiting import until

PATH = "/v1/main/rag/notes/query"
VECTOR = np.ones(8) / np.sqrt(8)
TEXTS = [
    Text("The blue whale is the largest animal.", VECTOR, {"page": 1, "lang": "en"}),
    Text("The train leaves at nine.", VECTOR, {"page": 2, "lang": "en"}),
    Text("The whale sings at night.", VECTOR, {"page": 3, "lang": "en"}),
    Text("Ein Wal, a whale.", VECTOR, {"page": 4, "lang": "de"}),
]


@pytest.fixture
async def upstream() -> AsyncIterator[Upstream]:
    async with running_upstream() as upstream:
        yield upstream


@pytest.fixture
async def asking(installation: Installation, upstream: Upstream) -> AsyncIterator[Api]:
    """With a provider of models."""
    settings = AiSettings(
        ai_base_url=upstream.base_url,
        ai_api_key="sk-operator",
        ai_default_model="gpt-test",
        ai_private_base_urls=True,
    )
    app = create_app(
        installation.cluster,
        ApiSettings(),
        settings,
        EmbedderSettings(),
        DocumentSettings(),
        models_dir=MODELS_DIR,
    )
    keys = keys_of(installation.cluster, "main", installation.app.created_at, ApiSettings())
    async with client_of(app) as client:
        yield Api(client, keys, installation)


@pytest.fixture
async def ana(asking: Api) -> dict[str, str]:
    """Whose collection `notes` it is."""
    headers = await asking.sign_up("ana@example.com")
    with published(asking.installation) as passages:
        passages.collection("notes", TEXTS, owner=user_id(passages))
    return headers


def user_id(passages: Published) -> UUID:
    found: UUID = passages.one("select id from auth.users where email = 'ana@example.com'")
    return found


async def ask(api: Api, user: dict[str, str], **question: Any) -> Any:
    asked = {"query": "whale", "mode": "text", **question}
    answered = await api.client.post(PATH, json=asked, headers=user)
    assert answered.status_code == 200, answered.text
    return answered.json()


def say(*texts: str) -> bytes:
    """The provider's whole answer."""
    message = {"role": "assistant", "content": "".join(texts)}
    return json.dumps(
        COMPLETION | {"choices": [{"index": 0, "message": message, "finish_reason": "stop"}]}
    ).encode()


def chunks(*texts: str) -> list[bytes]:
    common = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "gpt-test"}
    deltas = [
        {"choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}]}
        for text in texts
    ]
    last = {
        "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}],
        "usage": COMPLETION["usage"],
    }
    parts: list[dict[str, Any]] = [*deltas, last]
    return [b"data: " + json.dumps(common | part).encode() + b"\n\n" for part in parts]


def events(text: str) -> list[tuple[str, Any]]:
    names = [line[7:] for line in text.split("\n") if line.startswith("event: ")]
    return list(zip(names, sse_data(text), strict=True))


async def test_a_question_is_answered_with_passages(asking: Api, ana: dict[str, str]) -> None:
    found = await ask(asking, ana, query="largest whale", topK=2)
    assert [passage["content"] for passage in found["passages"]] == [
        TEXTS[0].content, TEXTS[3].content,
    ]  # fmt: skip
    first = found["passages"][0]
    assert (first["title"], first["metadata"], first["page"]) == ("0", TEXTS[0].metadata, None)
    assert (first["start"], first["end"]) == (0, len(TEXTS[0].content))
    assert first["score"] > found["passages"][1]["score"] > 0
    assert first["similarity"] is None
    assert str(UUID(first["documentId"])) == first["documentId"]
    assert found.keys() == {"passages"}


async def test_filters_are_applied_in_every_mode(asking: Api, ana: dict[str, str]) -> None:
    found = await ask(asking, ana, filter={"lang": "en", "page": {"$gte": 2}})
    assert [passage["metadata"]["page"] for passage in found["passages"]] == [3]


@pytest.mark.parametrize(
    "question",
    [
        {"query": ""},
        {"query": "a" * 8_001},
        {"topK": 0},
        {"topK": 101},
        {"threshold": 2, "mode": "vector"},
        {"threshold": 0.5},
        {"mode": "fuzzy"},
        {"stream": True},
        {"model": "gpt-test"},
        {"unknown": 1},
        {"filter": []},
        {"filter": None},
        {"filter": {"$near": 1}},
        {"filter": {"a": "x" * 20_000}},
        {"synthesize": "yes"},
    ],
)
async def test_a_question_that_cannot_be_read_is_refused(
    asking: Api, ana: dict[str, str], question: dict[str, object]
) -> None:
    body = {"query": "whale", "mode": "text", **question}
    refused = await asking.client.post(PATH, json=body, headers=ana)
    assert (refused.status_code, refused.json()["code"]) == (400, "rag_request_invalid")


BODIES = [b"", b"{", b"[]", b"\xff", b'{"query": "\\u0000", "mode": "text"}', b"[" * 9000]


@pytest.mark.parametrize("body", BODIES)
async def test_what_is_no_question_is_refused(
    asking: Api, ana: dict[str, str], body: bytes
) -> None:
    refused = await asking.client.post(PATH, content=body, headers=ana)
    assert refused.status_code == 400, refused.text


async def test_a_body_above_the_limit_is_refused(asking: Api, ana: dict[str, str]) -> None:
    body = {"query": "a" * 300_000}
    refused = await asking.client.post(PATH, json=body, headers=ana)
    assert (refused.status_code, refused.json()["code"]) == (413, "body_too_large")


async def test_collections_of_others_are_not_there(asking: Api, ana: dict[str, str]) -> None:
    bo = await asking.sign_up("bo@example.com")
    body = {"query": "whale", "mode": "text"}
    hidden = await asking.client.post(PATH, json=body, headers=bo)
    assert (hidden.status_code, hidden.json()["code"]) == (404, "collection_not_found")
    none = await asking.client.post(PATH, json=body)
    assert none.status_code == 401
    anonymous = await asking.client.post(PATH, json=body, headers=asking.anon)
    assert anonymous.status_code == 401
    other = "/v1/other/rag/notes/query"
    assert (await asking.client.post(other, json=body, headers=ana)).status_code == 404
    index = "/v1/main/rag/indexes/notes/query"
    hidden = await asking.client.post(index, json=body, headers=ana)
    assert (hidden.status_code, hidden.json()["code"]) == (404, "index_not_found")


async def test_only_post_asks_and_browsers_may(asking: Api, ana: dict[str, str]) -> None:
    got = await asking.client.get(PATH, headers=ana)
    assert (got.status_code, got.headers["allow"]) == (405, "POST")
    origin = {"Origin": "https://example.com", "Access-Control-Request-Headers": "apikey"}
    allowed = await asking.client.options(PATH, headers=origin)
    assert allowed.headers["access-control-allow-origin"] == "*"
    assert allowed.headers["access-control-allow-headers"] == "apikey"
    body = {"query": "whale", "mode": "text"}
    answered = await asking.client.post(PATH, json=body, headers={**ana, **origin})
    assert answered.headers["access-control-allow-origin"] == "*"
    assert answered.headers["x-request-id"]


async def test_a_bad_filter_is_refused_before_there_is_anything_to_find(asking: Api) -> None:
    ana = await asking.sign_up("ana@example.com")
    made = await asking.client.post("/v1/main/rag/collections", json={"name": "notes"}, headers=ana)
    assert made.status_code == 201, made.text
    refusals: list[Any] = [[], None, "a", {"a": {"$near": 1}}, {"$or": {}}]
    for filter_ in refusals:
        question = {"query": "whale", "mode": "text", "filter": filter_}
        refused = await asking.client.post(PATH, json=question, headers=ana)
        assert (refused.status_code, refused.json()["code"]) == (400, "rag_request_invalid")
    assert (await ask(asking, ana, filter={"a": 1}))["passages"] == []


async def test_an_index_of_columns_is_asked_as_a_collection_is(
    asking: Api, ana: dict[str, str]
) -> None:
    with published(asking.installation) as passages:
        owners = [user_id(passages), UUID(int=9)] * 2
        passages.index("posts", TEXTS, owners)
    asked = await asking.client.post(
        "/v1/main/rag/indexes/posts/query", json={"query": "whale", "mode": "text"}, headers=ana
    )
    assert asked.status_code == 200, asked.text
    # Of the rows with whales, two are hers, and one is another's.
    assert sorted(passage["key"]["id"] for passage in asked.json()["passages"]) == [0, 2]
    assert {passage["field"] for passage in asked.json()["passages"]} == {"body"}


async def test_passages_of_deleted_documents_take_nobodys_place(
    asking: Api, ana: dict[str, str]
) -> None:
    # As long as nobody has cleared them away.
    with published(asking.installation) as passages:
        passages.collection(
            "boats", [*[Text("boat boat", VECTOR)] * 30, *TEXTS, Text("a small boat", VECTOR)],
            owner=user_id(passages),
        )  # fmt: skip
        passages.conn.execute("delete from ai.documents where content = 'boat boat'")
    question = {"query": "boat", "mode": "text"}
    found = await asking.client.post("/v1/main/rag/boats/query", json=question, headers=ana)
    assert [passage["content"] for passage in found.json()["passages"]] == ["a small boat"]


async def test_policies_and_privileges_that_change_hold_for_the_next_question(
    asking: Api, ana: dict[str, str]
) -> None:
    with published(asking.installation) as passages:
        passages.index("posts", TEXTS, [user_id(passages), UUID(int=9)] * 2)

    async def asked() -> httpx.Response:
        question = {"query": "whale", "mode": "text", "topK": 10}
        path = "/v1/main/rag/indexes/posts/query"
        return await asking.client.post(path, json=question, headers=ana)

    async def found() -> set[int]:
        answer = await asked()
        assert answer.status_code == 200, answer.text
        return {passage["key"]["id"] for passage in answer.json()["passages"]}

    with psycopg.connect(asking.installation.main.dsn, autocommit=True) as superuser:
        superuser.execute("alter table public.posts disable row level security")
        assert await found() == {0, 2, 3}
        # The search that is known by now was made for a table without policies.
        superuser.execute("alter table public.posts enable row level security")
        assert await found() == {0, 2}
        superuser.execute("drop policy own on public.posts")
        assert await found() == set()
        superuser.execute("create policy all_of_them on public.posts using (id <> 0)")
        assert await found() == {2, 3}
        superuser.execute("revoke select on public.posts from authenticated")
        assert [(await asked()).status_code for _ in range(2)] == [403, 404]
        superuser.execute("grant select (id, user_id) on public.posts to authenticated")
        assert await found() == set()
        superuser.execute("grant select (body) on public.posts to authenticated")
        assert await found() == {2, 3}
        superuser.execute("update public.posts set id = 30 where id = 3")
        assert await found() == {2}


async def test_functions_of_the_developers_search_as_their_caller(
    asking: Api, ana: dict[str, str]
) -> None:
    bo = await asking.sign_up("bo@example.com")
    with published(asking.installation) as passages:
        bos = passages.one("select id from auth.users where email = 'bo@example.com'")
        hers = user_id(passages)
        passages.index("posts", TEXTS, [hers, bos, bos, hers])
    asking.installation.as_owner(
        "create function public.find(query text) returns setof text language sql stable"
        " begin atomic select s.content from ai.search('posts', query => find.query) s; end;"
        "create function public.find_notes(query text) returns setof text language sql stable"
        " begin atomic select s.content from ai.search_collection('notes',"
        "   query => find_notes.query, filter => jsonb_build_object('lang', 'de')) s; end;"
        "notify pgrst, 'reload schema'"
    )

    async def call(name: str, user: dict[str, str]) -> Any:
        answer = await asking.client.post(
            f"/rest/v1/rpc/{name}", json={"query": "whale"}, headers=user
        )
        return answer.json()

    assert sorted(await call("find", ana)) == sorted([TEXTS[0].content, TEXTS[3].content])
    assert await call("find", bo) == [TEXTS[2].content]
    assert await call("find", asking.anon) == []
    assert await call("find_notes", ana) == [TEXTS[3].content]
    assert (await call("find_notes", bo))["code"] == "42704"


@pytest.mark.usefixtures("ana")
async def test_who_has_no_collections_asks_an_index_of_a_table_that_all_may_read(
    asking: Api,
) -> None:
    with published(asking.installation) as passages:
        passages.index("posts", TEXTS, [user_id(passages)] * len(TEXTS))
        passages.conn.execute("grant select on posts to anon")
        passages.conn.execute("create policy anyone on posts to anon using (true)")
    body = {"query": "whale", "mode": "text"}
    path = "/v1/main/rag/indexes/posts/query"
    found = await asking.client.post(path, json=body, headers=asking.anon)
    assert found.status_code == 200, found.text
    assert TEXTS[0].content in [passage["content"] for passage in found.json()["passages"]]


async def test_vectors_of_another_model_are_not_compared(asking: Api, ana: dict[str, str]) -> None:
    refused = await asking.client.post(PATH, json={"query": "whale"}, headers=ana)
    assert refused.json()["code"] == "embedder_model_unknown"


async def test_an_answer_cites_its_passages_and_is_paid_by_who_asks(
    asking: Api, ana: dict[str, str], upstream: Upstream
) -> None:
    upstream.script = answer(200, say("It is the blue whale [1], say ", "all [9]."))
    found = await ask(asking, ana, query="largest whale", topK=2, synthesize=True)
    assert found["answer"]["text"] == "It is the blue whale [1], say all [9]."
    (citation,) = found["answer"]["citations"]
    passage = found["passages"][citation["passage"]]
    assert passage["content"] == TEXTS[0].content
    assert {name: citation[name] for name in ("documentId", "start", "end", "title")} == {
        name: passage[name] for name in ("documentId", "start", "end", "title")
    }
    assert found["answer"]["usage"]["total_tokens"] == 29
    assert found["answer"]["model"] == "gpt-test"
    _, user = upstream.last.json()["messages"]
    assert TEXTS[0].content in user["content"]
    assert "largest whale" in user["content"]

    with (
        psycopg.connect(asking.installation.control.dsn, autocommit=True) as conn,
        published(asking.installation) as passages,
    ):
        query = "select user_id, data ->> 'status' from butterbase.events where type = 'ai.call'"
        await until(lambda: conn.execute(query).fetchone() is not None)
        assert conn.execute(query).fetchall() == [(user_id(passages), "ok")]


async def test_without_passages_no_model_is_asked(
    asking: Api, ana: dict[str, str], upstream: Upstream
) -> None:
    assert await ask(asking, ana, query="zebra", synthesize=True) == {
        "passages": [], "answer": None,
    }  # fmt: skip
    body = {"query": "zebra", "mode": "text", "synthesize": True, "stream": True}
    streamed = await asking.client.post(PATH, json=body, headers=ana)
    assert [name for name, _ in events(streamed.text)] == ["passages", "done"]
    assert upstream.received == []


async def test_a_streamed_answer_begins_with_its_passages(
    asking: Api, ana: dict[str, str], upstream: Upstream
) -> None:
    upstream.script = stream(*chunks("The blue ", "whale [", "1]", " it is [2]."), DONE)
    body = {"query": "largest whale", "mode": "text", "synthesize": True, "stream": True}
    answered = await asking.client.post(PATH, json=body, headers=ana)
    assert answered.headers["content-type"].startswith("text/event-stream")
    assert answered.headers["x-butterbase-provider"]
    told = events(answered.text)
    assert [name for name, _ in told] == [
        "passages", "text", "text", "text", "citation", "text", "citation", "done",
    ]  # fmt: skip
    assert len(told[0][1]["passages"]) == 3
    assert "".join(data["text"] for name, data in told if name == "text") == (
        "The blue whale [1] it is [2]."
    )
    done = told[-1][1]
    assert [citation["number"] for citation in done["citations"]] == [1, 2]
    assert done["usage"]["total_tokens"] == 29


async def test_a_stream_that_breaks_off_ends_with_an_error(
    asking: Api, ana: dict[str, str], upstream: Upstream
) -> None:
    upstream.script = stream(chunks("The blue ")[0], cut=True)
    body = {"query": "whale", "mode": "text", "synthesize": True, "stream": True}
    answered = await asking.client.post(PATH, json=body, headers=ana)
    told = events(answered.text)
    assert [name for name, _ in told] == ["passages", "text", "error"]


async def test_a_client_that_leaves_ends_the_call(
    asking: Api, ana: dict[str, str], upstream: Upstream
) -> None:
    upstream.script = stream(chunks("The blue ")[0], None)
    body = {"query": "whale", "mode": "text", "synthesize": True, "stream": True}
    async with asking.client.stream("POST", PATH, json=body, headers=ana) as answered:
        async for line in answered.aiter_lines():
            if line == "event: text":
                break
    async with asyncio.timeout(10):
        await upstream.last.left.wait()


async def test_a_refusal_of_the_provider_is_told_as_such(
    asking: Api, ana: dict[str, str], upstream: Upstream
) -> None:
    upstream.script = answer(400, {"error": {"message": "no such thing", "type": "x"}})
    for is_streamed in (False, True):
        body = {"query": "whale", "mode": "text", "synthesize": True, "stream": is_streamed}
        refused = await asking.client.post(PATH, json=body, headers=ana)
        assert refused.status_code in (400, 502)
        assert refused.json()["code"] == "upstream_refused"


async def test_a_model_puts_passages_in_order(
    asking: Api, ana: dict[str, str], upstream: Upstream
) -> None:
    plain = await ask(asking, ana, topK=3)
    upstream.script = answer(200, say("[3, 1]"))
    ordered = await ask(asking, ana, topK=2, rerank=True, model="gpt-other")
    assert ordered["reranked"] is True
    assert [p["content"] for p in ordered["passages"]] == [
        plain["passages"][2]["content"], plain["passages"][0]["content"],
    ]  # fmt: skip
    assert upstream.last.json()["model"] == "gpt-other"
    upstream.script = answer(200, say("I cannot say."))
    unordered = await ask(asking, ana, topK=2, rerank=True)
    assert unordered["reranked"] is False
    assert unordered["passages"] == plain["passages"][:2]


async def test_anon_pays_for_no_model(asking: Api, upstream: Upstream) -> None:
    body = {"query": "whale", "mode": "text", "synthesize": True}
    refused = await asking.client.post(PATH, json=body, headers=asking.anon)
    assert (refused.status_code, refused.json()["code"]) == (403, "anonymous_ai_denied")
    assert upstream.received == []


async def test_a_version_that_replaces_another_is_asked_from_then_on(
    asking: Api, ana: dict[str, str]
) -> None:
    assert len((await ask(asking, ana))["passages"]) == 3
    with published(asking.installation) as passages:
        version = passages.one("select active_version from ai.indexes")
        passages.conn.execute(
            "update ai.collections set chunk_tokens = 300;"
            "update ai.indexes set active_version = building_version, building_version = null;"
            "update ai.index_versions v set state = 'ready', model = o.model,"
            "  dimensions = o.dimensions, passage_count = 1, token_count = 5"
            " from ai.index_versions o, ai.indexes i where v.id = i.active_version and o.id <> v.id"
        )
        new = passages.one("select active_version from ai.indexes")
        assert new != version
        # As they are cleared away, one after the other; what is left is of the new version.
        passages.conn.execute("delete from ai.chunks where content not like 'Ein%'")
        passages.conn.execute(
            "update ai.chunks set version_id = %(new)s,"
            " terms = ai.terms(%(new)s, 'english', '', content)",
            {"new": new},
        )
    assert [p["content"] for p in (await ask(asking, ana))["passages"]] == [TEXTS[3].content]


async def test_a_name_means_at_once_what_it_stands_for_by_now(
    asking: Api, ana: dict[str, str]
) -> None:
    bo = await asking.sign_up("bo@example.com")
    with published(asking.installation) as passages:
        passages.conn.execute("update ai.collections set access_mode = 'shared'")
    assert len((await ask(asking, bo))["passages"]) == 3
    with published(asking.installation) as passages:
        passages.conn.execute("update ai.collections set access_mode = 'private'")
    body = {"query": "whale", "mode": "text"}
    hidden = await asking.client.post(PATH, json=body, headers=bo)
    assert (hidden.status_code, hidden.json()["code"]) == (404, "collection_not_found")
    assert len((await ask(asking, ana))["passages"]) == 3
    gone = await asking.client.delete("/v1/main/rag/collections/notes", headers=ana)
    assert gone.status_code == 204
    missing = await asking.client.post(PATH, json=body, headers=ana)
    assert (missing.status_code, missing.json()["code"]) == (404, "collection_not_found")
