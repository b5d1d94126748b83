"""Prompts of an app: kept in versions, called by name, in each client's wire."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
from falcon.asgi import App, Request, Response

from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.errors import AiError
from butterbase.ai.prompts.errors import PromptCallError, PromptNotFoundError
from butterbase.ai.prompts.resource import add_routes
from butterbase.ai.prompts.store import PROMPT_COUNT_MAX, PromptStore
from butterbase.sql.claims import Claims
from butterbase.sql.pipeline import Executor
from tests.ai.cache.conftest import Desk

GREET = {
    "name": "greet",
    "messages": [
        {"role": "system", "content": "You are {{tone}}."},
        {"role": "user", "content": "Greet {{who}}"},
    ],
    "defaults": {"tone": "kind"},
}


class _Callers:
    def __init__(self, app_id: str) -> None:
        self._app_id = app_id

    async def process_request(self, req: Request, _resp: Response) -> None:
        req.context.app_id = req.get_header("x-app") or self._app_id
        req.context.claims = Claims(role=req.get_header("x-role") or "service_role", json="{}")


class Prompts:
    def __init__(self, desk: Desk, store: PromptStore, http: httpx.AsyncClient) -> None:
        self.desk = desk
        self.store = store
        self.http = http

    async def add(self, **changes: object) -> Any:
        answer = await self.http.post("/ai/prompts", json=GREET | changes)
        assert answer.status_code == 201, answer.text
        return answer.json()

    async def fill(
        self,
        prompt: object,
        endpoint: Endpoint = Endpoint.CHAT,
        app_id: str | None = None,
        **fields: object,
    ) -> Any:
        body = json.dumps({"model": "m", "prompt": prompt, **fields}).encode()
        return json.loads(await self.store.fill(app_id or self.desk.app_id, endpoint, body))


@asynccontextmanager
async def prompts_of(desk: Desk) -> AsyncIterator[Prompts]:
    executor = Executor(desk.dsn, connection_count_max=4)
    store = PromptStore(executor)
    app: App[Any, Any] = App(middleware=[_Callers(desk.app_id)])
    add_routes(app, store, prefix="")
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # it says Mapping
    async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as http:
        yield Prompts(desk, store, http)
    await executor.close()


@pytest.fixture
async def prompts(desk: Desk) -> AsyncIterator[Prompts]:
    async with prompts_of(desk) as prompts:
        yield prompts


ASK = {"name": "greet", "variables": {"who": "Ada"}}
SYSTEM, USER = "You are kind.", "Greet Ada"


async def test_a_prompts_messages_come_before_the_requests(prompts: Prompts) -> None:
    await prompts.add()
    own = {"role": "user", "content": "Now", "unknown": 1.50}
    assert await prompts.fill(ASK, messages=[own], seed=1) == {
        "model": "m",
        "seed": 1,
        "messages": [
            {"role": "system", "content": SYSTEM},
            {"role": "user", "content": USER},
            own,
        ],
    }


async def test_a_request_needs_no_messages_of_its_own(prompts: Prompts) -> None:
    await prompts.add()
    assert [m["content"] for m in (await prompts.fill(ASK))["messages"]] == [SYSTEM, USER]


@pytest.mark.parametrize(
    ("system", "expected"),
    [
        ({}, [SYSTEM]),
        ({"system": "Own"}, [SYSTEM, "Own"]),
        ({"system": [{"type": "text", "text": "Own"}]}, [SYSTEM, "Own"]),
        ({"system": ""}, [SYSTEM]),
    ],
)
async def test_in_anthropics_wire_the_system_stands_apart(
    prompts: Prompts, system: dict[str, Any], expected: list[str]
) -> None:
    await prompts.add()
    body = await prompts.fill(ASK, Endpoint.MESSAGES, max_tokens=9, **system)
    assert [part["text"] for part in body["system"]] == expected
    assert body["messages"] == [{"role": "user", "content": USER}]


@pytest.mark.parametrize("own", ["Now", [{"role": "user", "content": "Now"}]])
async def test_in_openais_responses_it_is_input(prompts: Prompts, own: object) -> None:
    await prompts.add()
    body = await prompts.fill(ASK, Endpoint.RESPONSES, input=own)
    assert [item["content"] for item in body["input"]] == [SYSTEM, USER, "Now"]
    assert "prompt" not in body


async def test_a_prompt_that_openai_keeps_is_let_be(prompts: Prompts) -> None:
    theirs = {"id": "pmpt_1", "version": "2", "variables": {"a": {"type": "input_text"}}}
    body = await prompts.fill(theirs, Endpoint.RESPONSES, input="x")
    assert body["prompt"] == theirs


@pytest.mark.parametrize("prompt", ["greet", None, 1, []])
async def test_what_calls_no_prompt_is_let_be(prompts: Prompts, prompt: object) -> None:
    assert (await prompts.fill(prompt))["prompt"] == prompt


@pytest.mark.parametrize(
    "prompt",
    [
        {},
        {"name": "greet", "versions": 1},
        {"name": "greet", "version": 0},
        {"name": "greet", "version": "1"},
        {"name": "greet", "variables": {"who": ["Ada"]}},
        {"name": "greet", "variables": {"who": None}},
        {"name": "greet", "variables": {"who": "Ada", "x": "y"}},
        {"name": "greet"},
        {"name": "../greet", "variables": {"who": "Ada"}},
    ],
    ids=str,
)
async def test_a_call_that_is_wrong_says_what_is(prompts: Prompts, prompt: object) -> None:
    await prompts.add()
    with pytest.raises(PromptCallError) as refused:
        await prompts.fill(prompt)
    assert refused.value.param == "prompt"


async def test_embeddings_take_none(prompts: Prompts) -> None:
    await prompts.add()
    with pytest.raises(PromptCallError):
        await prompts.fill(ASK, Endpoint.EMBEDDINGS, input="x")


async def test_a_prompt_or_version_that_is_not_there_is_named(prompts: Prompts) -> None:
    await prompts.add()
    with pytest.raises(PromptNotFoundError, match="'nobody'"):
        await prompts.fill({"name": "nobody"})
    with pytest.raises(PromptNotFoundError, match="version 2"):
        await prompts.fill({**ASK, "version": 2})


async def test_a_version_is_never_changed_and_the_latest_is_active(prompts: Prompts) -> None:
    assert await prompts.add() == {
        "version": 1,
        "isActive": True,
        "messages": GREET["messages"],
        "defaults": GREET["defaults"],
        "variables": ["tone", "who"],
        "createdAt": (await prompts.http.get("/ai/prompts")).json()["prompts"][0]["createdAt"],
    }
    said = [{"role": "user", "content": "Say hi to {{who}}"}]
    second = await prompts.add(messages=said, defaults={})
    assert (second["version"], second["isActive"]) == (2, True)
    third = await prompts.add(isActive=False)
    assert (third["version"], third["isActive"]) == (3, False)
    assert (await prompts.fill(ASK))["messages"][0]["content"] == "Say hi to Ada"
    assert (await prompts.fill({**ASK, "version": 1}))["messages"][0]["content"] == SYSTEM
    read = (await prompts.http.get("/ai/prompts/greet")).json()
    assert (read["activeVersion"], [v["version"] for v in read["versions"]]) == (2, [3, 2, 1])


async def test_an_earlier_version_is_made_active_again(prompts: Prompts) -> None:
    await prompts.add()
    await prompts.add(messages=[{"role": "user", "content": "{{who}}"}], defaults={})
    answer = await prompts.http.patch("/ai/prompts/greet", json={"activeVersion": 1})
    assert answer.json()["activeVersion"] == 1
    assert (await prompts.fill(ASK))["messages"][0]["content"] == SYSTEM
    wrong = await prompts.http.patch("/ai/prompts/greet", json={"activeVersion": 9})
    assert wrong.status_code == 404


async def test_a_prompt_is_deleted_with_its_versions(prompts: Prompts) -> None:
    await prompts.add()
    await prompts.add()
    assert (await prompts.http.delete("/ai/prompts/greet")).status_code == 204
    assert (await prompts.http.delete("/ai/prompts/greet")).status_code == 404
    assert (await prompts.http.get("/ai/prompts/greet")).status_code == 404
    assert (await prompts.http.get("/ai/prompts")).json() == {"prompts": []}


async def test_who_add_versions_at_once_get_different_ones(prompts: Prompts) -> None:
    added = await asyncio.gather(*(prompts.add() for _ in range(12)))
    assert sorted(version["version"] for version in added) == list(range(1, 13))


async def test_no_app_calls_or_changes_anothers(prompts: Prompts) -> None:
    await prompts.add()
    other = {"x-app": prompts.desk.other_app_id}
    with pytest.raises(PromptNotFoundError):
        await prompts.fill(ASK, app_id=prompts.desk.other_app_id)
    assert (await prompts.http.get("/ai/prompts", headers=other)).json() == {"prompts": []}
    for method, body in (("GET", None), ("DELETE", None), ("PATCH", {"activeVersion": 1})):
        answer = await prompts.http.request(method, "/ai/prompts/greet", headers=other, json=body)
        assert answer.status_code == 404


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_users_may_not_read_or_change_them(prompts: Prompts, role: str) -> None:
    await prompts.add()
    for method, path in (
        ("GET", "/ai/prompts"),
        ("POST", "/ai/prompts"),
        ("GET", "/ai/prompts/greet"),
        ("PATCH", "/ai/prompts/greet"),
        ("DELETE", "/ai/prompts/greet"),
    ):
        answer = await prompts.http.request(method, path, headers={"x-role": role}, json=GREET)
        assert answer.status_code == 403


@pytest.mark.parametrize(
    "changes",
    [
        {"messages": []},
        {"messages": [{"role": "user", "content": "{{a"}]},
        {"messages": [{"role": "user", "content": "a\0"}], "defaults": {}},
        {"defaults": {"nobody": "x"}},
        {"name": "a b"},
        {"name": ""},
        {"x": 1},
    ],
    ids=str,
)
async def test_what_is_no_prompt_is_refused(prompts: Prompts, changes: dict[str, object]) -> None:
    answer = await prompts.http.post("/ai/prompts", json=GREET | changes)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] == "ai_prompt_invalid"


async def test_there_is_a_bound_to_prompts(prompts: Prompts) -> None:
    prompts.desk.execute(
        "with p as (insert into butterbase.ai_prompts (app_id, name, active_version)"
        " select %s, 'p' || n, 1 from generate_series(1, %s) n returning app_id, name)"
        " insert into butterbase.ai_prompt_versions (app_id, name, version, template)"
        " select app_id, name, 1, '{}' from p",
        prompts.desk.app_id,
        PROMPT_COUNT_MAX,
    )
    answer = await prompts.http.post("/ai/prompts", json=GREET)
    assert answer.status_code == 400
    assert "at most" in answer.json()["error"]["message"]


async def test_a_stored_version_is_refused_a_change(prompts: Prompts) -> None:
    await prompts.add()
    with (
        psycopg.connect(prompts.desk.dsn, autocommit=True) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute("update butterbase.ai_prompt_versions set template = '{}'")


async def test_a_body_that_is_no_json_is_refused(prompts: Prompts) -> None:
    with pytest.raises(AiError):
        await prompts.store.fill(prompts.desk.app_id, Endpoint.CHAT, b"{")
