"""Indexes whose model the app's gateway leads to: embedded, asked, billed, refused."""

import asyncio
import hashlib
import json
from base64 import b64encode, urlsafe_b64decode
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import psycopg
import pytest

from butterbase.ai.documents.settings import DocumentSettings
from butterbase.ai.embedders import apps
from butterbase.ai.embedders.lazy import LazyEmbedder
from butterbase.ai.embedders.settings import EmbedderSettings
from butterbase.ai.settings import AiSettings
from butterbase.api.app import create_app
from butterbase.api.apps import keys_of
from butterbase.api.settings import ApiSettings
from butterbase.projections.indexes import indexer
from butterbase.projections.indexes.errors import MixedModelsError
from butterbase.projections.indexes.session import IndexerLimits
from tests.ai.upstream import RATE_LIMITED, Received, Upstream, answer, running_upstream
from tests.api.conftest import MODELS_DIR, Api
from tests.following import following
from tests.installation import Installation
from tests.serving import client_of
from tests.waiting import until

CONFIG = "/v1/main/ai/config"
INDEXES = "/v1/main/rag/indexes"
DIMENSIONS = {"embed-a": 8, "embed-b": 5}
TOKENS = 100
"""Of each call, as the provider says."""
NANOS = TOKENS * 20
"""Of each call, at 0.02 dollars a million."""
PRICE = {"input": 0.02, "output": 0}


class Provider:
    """Vectors that are the same for the same text and model, and refusals that the test wants."""

    def __init__(self, upstream: Upstream) -> None:
        self.upstream = upstream
        self.dimensions = dict(DIMENSIONS)
        self.refuse: Callable[[str, list[str]], Any] = lambda _model, _texts: None
        """(status, body, headers), or None."""
        upstream.script = self._serve

    @property
    def texts(self) -> list[str]:
        return [text for received in self.upstream.received for text in received.json()["input"]]

    async def _serve(self, request: Received, writer: asyncio.StreamWriter) -> None:
        asked = request.json()
        assert asked["encoding_format"] == "base64"
        refused = self.refuse(asked["model"], asked["input"])
        if refused is not None:
            await answer(*refused)(request, writer)
            return
        data = [
            {"object": "embedding", "index": at, "embedding": self._vector(asked["model"], text)}
            for at, text in enumerate(asked["input"])
        ]
        usage = {"prompt_tokens": TOKENS, "total_tokens": TOKENS}
        body = {"object": "list", "data": data, "model": asked["model"], "usage": usage}
        await answer(200, body)(request, writer)

    def _vector(self, model: str, text: str) -> str:
        seed = int.from_bytes(hashlib.sha256(f"{model} {text}".encode()).digest()[:8], "big")
        vector = np.random.default_rng(seed).normal(size=self.dimensions[model]) * 3
        return b64encode(vector.astype("<f4").tobytes()).decode()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    async with running_upstream() as upstream:
        yield Provider(upstream)


@pytest.fixture
async def api(installation: Installation, provider: Provider) -> AsyncIterator[Api]:
    """The web edge and the stream's readers, and two models of the app's own provider."""
    app = create_app(
        installation.cluster,
        ApiSettings(),
        AiSettings(ai_private_base_urls=True),
        EmbedderSettings(),
        DocumentSettings(),
        models_dir=MODELS_DIR,
    )
    keys = keys_of(installation.cluster, "main", installation.app.created_at, ApiSettings())
    embedder = LazyEmbedder(EmbedderSettings(), MODELS_DIR)
    async with (
        client_of(app) as client,
        following(installation, embedder, ai_private_base_urls=True),
    ):
        api = Api(client, keys, installation)
        base_url = provider.upstream.base_url
        providers = {
            "p": {"kind": "openai_compatible", "baseUrl": base_url, "apiKey": "sk-of-the-app"}
        }
        await configure(api, providers=providers, routes=[route("small", "embed-a")])
        installation.as_owner(
            "create table public.posts (id int primary key, body text);"
            "create policy everybody on public.posts using (true);"
            "grant all on public.posts to anon, authenticated, service_role"
        )
        yield api
    await embedder.close()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(apps, "BLOCKED_S", 0.1)
    monkeypatch.setattr(MixedModelsError, "retry_after_s", 0.1)


@pytest.fixture
def fast_retries(monkeypatch: pytest.MonkeyPatch) -> None:
    limits = IndexerLimits(idle_s=0.1, retry_s=0.05, retry_longest_s=0.2)
    monkeypatch.setattr(indexer, "IndexerLimits", lambda: limits)


def route(name: str, *models: str, **more: Any) -> dict[str, Any]:
    targets = [{"provider": "p", "model": model, "price": PRICE} for model in models]
    return {"match": name, "targets": targets, "retries": {"count": 0}, **more}


async def configure(api: Api, **change: Any) -> None:
    put = await api.client.put(CONFIG, json=change, headers=api.service)
    assert put.status_code == 200, put.text


async def index(api: Api, name: str, model: str | None, table: str = "public.posts") -> None:
    body = {"table": table, "columns": ["body"], "name": name, "model": model}
    made = await api.client.post(INDEXES, json=body, headers=api.service)
    assert made.status_code == 201, made.text


async def until_indexed(api: Api, name: str, rows: int) -> dict[str, Any]:
    found: dict[str, Any] = {}

    async def is_indexed() -> bool:
        got = await api.client.get(f"{INDEXES}/{name}", headers=api.service)
        found.update(got.json()["versions"][-1])
        return bool(found["rowsDone"] == rows and not found["rowsPending"])

    await until(is_indexed)
    return found


async def until_held_up(api: Api, name: str, reason: str) -> None:
    async def is_held_up() -> bool:
        got = await api.client.get(f"{INDEXES}/{name}", headers=api.service)
        return reason in (got.json()["versions"][-1]["error"] or "")

    await until(is_held_up)


async def ask(api: Api, name: str, user: dict[str, str], query: str = "one") -> Any:
    return await api.client.post(
        f"{INDEXES}/{name}/query", json={"query": query, "mode": "vector"}, headers=user
    )


def write(api: Api, *texts: str, first: int = 1) -> None:
    with psycopg.connect(api.installation.owner_dsn, autocommit=True) as conn:
        for at, text in enumerate(texts, first):
            conn.execute("insert into public.posts values (%s, %s)", [at, text])


def events(api: Api) -> list[tuple[Any, ...]]:
    """User, status, index, model, cost; in the order in which they began."""
    with psycopg.connect(api.installation.control.dsn) as conn:
        return conn.execute(
            "select user_id::text, data ->> 'status', data ->> 'index', data ->> 'model',"
            " (data ->> 'cost_nanos')::bigint from butterbase.events"
            " where type = 'ai.call' and data ->> 'endpoint' = 'embeddings' order by call_id"
        ).fetchall()


def user_id(user: dict[str, str]) -> str:
    body = user["Authorization"].split(".")[1]
    found: str = json.loads(urlsafe_b64decode(body + "=="))["sub"]
    return found


async def test_it_is_embedded_with_the_apps_key_and_billed(api: Api, provider: Provider) -> None:
    await index(api, "posts", "small")
    write(api, "one")
    version = await until_indexed(api, "posts", 1)
    assert (version["model"], version["dimensions"], version["error"]) == ("embed-a", 8, None)
    assert provider.upstream.last.headers["authorization"] == "Bearer sk-of-the-app"
    ana = await api.sign_up("ana@example.com")
    asked = await ask(api, "posts", ana)
    assert asked.status_code == 200, asked.text
    (passage,) = asked.json()["passages"]
    assert passage["similarity"] == pytest.approx(1)
    made = await api.client.post("/v1/main/rag/collections", json={"name": "n"}, headers=ana)
    assert made.status_code == 201
    told = [
        (None, "ok", "posts", "embed-a", NANOS),
        (user_id(ana), "ok", "posts", "embed-a", NANOS),
    ]
    # An event is written once its call has ended.
    await until(lambda: events(api) == told)
    usage = "/v1/main/ai/usage?groupBy=endpoint"

    async def is_projected() -> bool:
        got = (await api.client.get(usage, headers=api.service)).json()
        return "embeddings" in json.dumps(got)

    await until(is_projected)


async def test_rows_that_stay_as_they_are_cost_nothing(api: Api, provider: Provider) -> None:
    await index(api, "posts", "small")
    write(api, "one", "two")
    await until_indexed(api, "posts", 2)
    count = len(provider.texts)
    api.installation.as_owner("update posts set body = body")
    write(api, "three", first=3)
    await until_indexed(api, "posts", 3)
    assert provider.texts[count:] == ["three"]


async def test_two_indexes_have_two_models_and_a_third_the_installations(
    api: Api, provider: Provider
) -> None:
    await configure(api, routes=[route("small", "embed-a"), route("other", "embed-b")])
    await index(api, "a", "small")
    await index(api, "b", "other")
    await index(api, "own", None)
    write(api, "one")
    found = [await until_indexed(api, name, 1) for name in ("a", "b", "own")]
    assert [(v["model"], v["dimensions"]) for v in found] == [
        ("embed-a", 8),
        ("embed-b", 5),
        ("all-MiniLM-L6-v2", 384),
    ]
    for name in ("a", "b", "own"):
        asked = await ask(api, name, api.service)
        assert asked.json()["passages"][0]["similarity"] == pytest.approx(1, abs=1e-3)
    assert {(name, model) for _, _, name, model, _ in events(api)} == {
        ("a", "embed-a"),
        ("b", "embed-b"),
    }


@pytest.mark.usefixtures("impatient")
async def test_a_budget_that_is_used_up_holds_up_its_own_index_alone(
    api: Api, provider: Provider
) -> None:
    blocked = {"scope": "model", "subject": "embed-b", "period": "lifetime", "limitUsd": "0"}
    routes = [route("small", "embed-a"), route("other", "embed-b")]
    await configure(api, routes=routes, budgets=[blocked])
    api.installation.as_owner(
        "insert into posts select n, 'old ' || n from generate_series(1, 200) n"
    )
    await index(api, "b", "other")
    await until_held_up(api, "b", "the budget of this model has no room in all")
    await index(api, "a", "small")
    await until_indexed(api, "a", 200)
    assert {received.json()["model"] for received in provider.upstream.received} == {"embed-a"}
    assert {(name, status) for _, status, name, _, _ in events(api)} == {
        ("a", "ok"),
        ("b", "failed"),
    }
    await configure(api, budgets=[{**blocked, "limitUsd": "1"}])
    version = await until_indexed(api, "b", 200)
    assert (version["error"], version["rowsDead"]) == (None, 0)


@pytest.mark.usefixtures("impatient")
async def test_what_is_deleted_is_gone_also_while_the_index_is_held_up(
    api: Api, provider: Provider
) -> None:
    await index(api, "posts", "small")
    write(api, "one", "two", "three")
    await until_indexed(api, "posts", 3)
    budget = {"scope": "app", "period": "lifetime", "limitUsd": "0"}
    await configure(api, budgets=[budget])
    write(api, *(f"more {number}" for number in range(100)), first=4)
    await until_held_up(api, "posts", "the budget of this app has no room in all")
    api.installation.as_owner(
        "update posts set body = 'another' where id <= 2; delete from posts where id in (1, 50)"
    )

    async def is_gone() -> bool:
        with psycopg.connect(api.installation.main.dsn) as conn:
            left = conn.execute("select content from ai.index_1 order by key_1").fetchall()
        return left == [("two",), ("three",)]

    await until(is_gone)


async def test_a_provider_that_has_too_many_requests_holds_up_its_own_index_alone(
    api: Api, provider: Provider
) -> None:
    await configure(api, routes=[route("small", "embed-a"), route("other", "embed-b")])
    is_busy = True

    def refuse(model: str, _texts: list[str]) -> object:
        if model == "embed-b" and is_busy:
            return 429, RATE_LIMITED, {"retry-after": "1"}
        return None

    provider.refuse = refuse
    await index(api, "b", "other")
    await index(api, "a", "small")
    write(api, "one")
    await until_held_up(api, "b", "Rate limit reached")
    await until_indexed(api, "a", 1)
    is_busy = False
    version = await until_indexed(api, "b", 1)
    assert (version["error"], version["rowsDead"]) == (None, 0)


async def test_limits_of_the_app_hold_for_its_indexes(api: Api, provider: Provider) -> None:
    limit = {"scope": "app", "requestsPerMinute": 1}
    await configure(api, limits=[limit])
    await index(api, "posts", "small")
    write(api, "one")
    await until_indexed(api, "posts", 1)
    write(api, "two", first=2)
    await until_held_up(api, "posts", "the limit of 1 requests a minute of this app is reached")
    refused = await ask(api, "posts", api.service)
    assert (refused.status_code, refused.json()["code"]) == (429, "ai_rate_limited")
    assert int(refused.headers["retry-after"]) > 0
    assert len(provider.upstream.received) == 1


@pytest.mark.usefixtures("impatient")
async def test_vectors_of_another_length_are_refused(api: Api, provider: Provider) -> None:
    await index(api, "posts", "small")
    write(api, "one")
    await until_indexed(api, "posts", 1)
    provider.dimensions["embed-a"] = 9
    write(api, "two", first=2)
    await until_held_up(api, "posts", "8 dimensions, and what came are 9")
    refused = await ask(api, "posts", api.service)
    assert (refused.status_code, refused.json()["code"]) == (503, "embedding_mismatch")
    provider.dimensions["embed-a"] = 8
    version = await until_indexed(api, "posts", 2)
    assert (version["error"], version["passages"]) == (None, 2)


@pytest.mark.usefixtures("impatient")
async def test_an_alias_that_leads_to_another_model_waits_for_a_version(
    api: Api, provider: Provider
) -> None:
    await index(api, "posts", "small")
    write(api, "one")
    await until_indexed(api, "posts", 1)
    await configure(api, routes=[route("small", "embed-b")])
    write(api, "two", first=2)
    await until_held_up(api, "posts", "vectors of embed-a, and 'small' leads to embed-b by now")
    refused = await ask(api, "posts", api.service)
    assert (refused.status_code, refused.json()["code"]) == (503, "embedding_mismatch")
    assert {received.json()["model"] for received in provider.upstream.received} == {"embed-a"}
    changed = await api.client.patch(
        f"{INDEXES}/posts", json={"model": "small"}, headers=api.service
    )
    assert changed.status_code == 202

    async def is_swapped() -> bool:
        got = await api.client.get(f"{INDEXES}/posts", headers=api.service)
        return [v["model"] for v in got.json()["versions"]] == ["embed-b"]

    await until(is_swapped)
    assert (await ask(api, "posts", api.service)).json()["passages"][0]["similarity"] > 0.99


async def test_the_version_in_use_is_kept_with_its_model_while_the_next_is_made(
    api: Api, provider: Provider
) -> None:
    await configure(api, routes=[route("small", "embed-a"), route("other", "embed-b")])
    await index(api, "posts", "small")
    write(api, "one")
    await until_indexed(api, "posts", 1)
    provider.refuse = lambda model, _: (503, {}, {}) if model == "embed-b" else None
    changed = await api.client.patch(
        f"{INDEXES}/posts", json={"model": "other"}, headers=api.service
    )
    assert changed.status_code == 202
    write(api, "two", first=2)

    async def is_found() -> bool:
        asked = await ask(api, "posts", api.service, "two")
        return bool(asked.json()["passages"][0]["content"] == "two")

    await until(is_found)
    provider.refuse = lambda _model, _texts: None
    version = await until_indexed(api, "posts", 2)
    assert version["model"] == "embed-b"


async def test_no_budget_leads_to_vectors_of_another_model(api: Api, provider: Provider) -> None:
    budget = {
        "scope": "app", "period": "lifetime", "limitUsd": "0", "action": "reroute",
        "rerouteTo": "cheap",
    }  # fmt: skip
    routes = [route("small", "embed-a"), route("cheap", "embed-b")]
    await configure(api, routes=routes, budgets=[budget])
    await index(api, "posts", "small")
    write(api, "one")
    await until_held_up(api, "posts", "the budget of this app has no room in all")
    assert provider.upstream.received == []


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"routes": []}, None),
        ({"routes": [route("small", "embed-a", "embed-b")]}, "several models: embed-a, embed-b"),
        ({"allowedModels": ["embed-b"]}, "the app does not allow the model 'small'"),
        ({"routes": [], "providers": {}}, "No AI provider is configured"),
        (
            {
                "routes": [{"match": "small", "targets": [{"provider": "c"}]}],
                "providers": {"c": {"kind": "anthropic", "apiKey": "sk-ant-secret"}},
            },
            "a provider that has no embeddings",
        ),
    ],
)
async def test_what_cannot_embed_is_refused_where_that_is_known(
    api: Api, change: dict[str, Any], reason: str | None
) -> None:
    await configure(api, **change)
    index_ = {"table": "public.posts", "columns": ["body"], "model": "small"}
    collection = {"name": "notes", "model": "small"}
    for path, body in ((INDEXES, index_), ("/v1/main/rag/collections", collection)):
        made = await api.client.post(path, json=body, headers=api.service)
        if reason is None:  # the app's only provider may know it
            assert made.status_code == 201, made.text
        else:
            assert (made.status_code, made.json()["code"]) == (400, "rag_model_unusable")
            assert reason in made.text
            assert "all-MiniLM-L6-v2" in made.json()["hint"]


async def test_a_users_collection_is_embedded_within_the_users_budget(
    api: Api, provider: Provider
) -> None:
    ana, bo = await api.sign_up("ana@example.com"), await api.sign_up("bo@example.com")
    budgets = [
        {"scope": "user", "subject": user_id(ana), "period": "lifetime", "limitUsd": "0"},
    ]
    await configure(api, budgets=budgets)
    for user in (ana, bo):
        made = await api.client.post(
            "/v1/main/rag/collections", json={"name": "notes", "model": "small"}, headers=user
        )
        assert made.status_code == 201, made.text
        added = await api.client.post(
            "/v1/main/rag/notes/documents", json={"text": "one"}, headers=user
        )
        assert added.status_code == 202

    async def collection(user: dict[str, str]) -> dict[str, Any]:
        got = await api.client.get("/v1/main/rag/collections/notes", headers=user)
        found: dict[str, Any] = got.json()["index"]
        return found

    async def is_as_expected() -> bool:
        hers, his = await collection(ana), await collection(bo)
        return "the budget of this user" in (hers["error"] or "") and his["passages"] == 1

    await until(is_as_expected)
    told = {(user_id(ana), "failed"), (user_id(bo), "ok")}
    # An event is written once its call has ended.
    await until(lambda: {(user, status) for user, status, *_ in events(api)} == told)


async def test_who_has_only_the_public_key_asks_no_model(api: Api, provider: Provider) -> None:
    await index(api, "posts", "small")
    write(api, "one")
    await until_indexed(api, "posts", 1)
    count = len(provider.upstream.received)
    refused = await ask(api, "posts", api.anon)
    assert (refused.status_code, refused.json()["code"]) == (403, "anonymous_ai_denied")
    assert len(provider.upstream.received) == count


@pytest.mark.usefixtures("fast_retries")
async def test_a_text_that_the_provider_refuses_is_given_up_and_no_other(
    api: Api, provider: Provider
) -> None:
    def refuse(_model: str, texts: list[str]) -> object:
        is_bad = any("poison" in text for text in texts)
        return (400, {"error": {"message": "no such text"}}, {}) if is_bad else None

    provider.refuse = refuse
    api.installation.as_owner("insert into posts values (1, 'one'), (2, 'poison'), (3, 'three')")
    await index(api, "posts", "small")

    async def is_given_up() -> bool:
        got = (await api.client.get(f"{INDEXES}/posts", headers=api.service)).json()
        version = got["versions"][-1]
        attempts = [(row["key"], row["code"]) for row in got["dead"]]
        return bool(version["rowsDone"] == 2 and attempts == [(["2"], "upstream_refused")])

    await until(is_given_up)
