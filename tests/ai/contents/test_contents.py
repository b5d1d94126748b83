"""Texts of calls: kept where an app says so, sealed, and gone when they are to be."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any
from uuid import uuid4

import httpx
import pytest
from falcon.asgi import App
from psycopg.conninfo import make_conninfo

from butterbase.ai.contents.log import TEXT_BYTES_MAX, WAITING_BYTES_MAX, ContentLog
from butterbase.ai.contents.resource import add_routes
from butterbase.ai.contents.store import Content, ContentStore
from butterbase.ai.guards.guards import GuardRail
from butterbase.ai.seams import Seams
from butterbase.ai.settings import AiSettings
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor
from butterbase.sql.secrets import MasterKey
from tests.ai.conftest import OTHER_USER, USER, Harness, TestCallers, running_gateway, until
from tests.ai.upstream import (
    COMPLETION,
    DONE,
    RATE_LIMITED,
    Upstream,
    answer,
    chunk,
    hang_up,
    stream,
)
from tests.postgres import Database

SECRET = "the question nobody else may read"
ADA = {"x-test-role": "authenticated", "x-test-user": USER}
BOB = {"x-test-role": "authenticated", "x-test-user": OTHER_USER}


@dataclass
class Logged:
    harness: Harness
    log: ContentLog
    store: ContentStore
    http: httpx.AsyncClient
    """Of the api beside the gateway."""

    @property
    def path(self) -> str:
        return f"{self.harness.path}/ai/contents"

    async def keep(self, **rules: object) -> None:
        path = f"{self.harness.path}/ai/config"
        response = await self.harness.http.put(path, json={"logContent": {}, **rules})
        assert response.status_code == 200, response.text

    async def ask(self, text: str = SECRET, headers: dict[str, str] = ADA, **more: object) -> int:
        body = {"model": "m", "messages": [{"role": "user", "content": text}], **more}
        response = await self.harness.http.post(self.harness.chat_path, json=body, headers=headers)
        await until(lambda: self.harness.gateway.call_count == 0)
        await self.log.flush()
        return response.status_code

    async def calls(self, **filters: object) -> list[dict[str, Any]]:
        response = await self.http.get(self.path, params={k: str(v) for k, v in filters.items()})
        assert response.headers["cache-control"] == "no-store"
        found: list[dict[str, Any]] = response.json()["calls"]
        return found

    async def read(self, call_id: str) -> dict[str, Any]:
        found: dict[str, Any] = (await self.http.get(f"{self.path}/{call_id}")).json()
        return found

    async def the_content(self) -> dict[str, Any]:
        (call,) = await self.calls()
        return await self.read(call["callId"])


@asynccontextmanager
async def logging_gateway(database: Database, upstream: Upstream) -> AsyncIterator[Logged]:
    dsn = make_conninfo(database.dsn, options="-c role=butterbase_service")
    executor = Executor(dsn, connection_count_max=2)
    store = ContentStore(executor, MasterKey(b"k" * 32))
    settings = AiSettings(ai_base_url=upstream.base_url, ai_private_base_urls=True)
    log = ContentLog(store, settings)
    app: App[Any, Any] = App(middleware=[TestCallers()])
    add_routes(app, store)
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # it says Mapping
    seams = Seams(guards=GuardRail(), contents=log)
    async with (
        running_gateway(database, settings, seams=seams) as harness,
        httpx.AsyncClient(transport=transport, base_url="http://app.test") as http,
    ):
        yield Logged(harness, log, store, http)
    await log.close()
    await executor.close()


@pytest.fixture
async def logged(control: Database, upstream: Upstream) -> AsyncIterator[Logged]:
    upstream.script = answer(200, COMPLETION)
    async with logging_gateway(control, upstream) as logged:
        yield logged


async def test_no_text_is_kept_unless_the_app_says_so(logged: Logged) -> None:
    await logged.ask()
    assert await logged.calls() == []
    await logged.keep()
    await logged.keep(logContent=None)
    await logged.ask()
    assert await logged.calls() == []


async def test_what_was_asked_and_answered_can_be_read(logged: Logged) -> None:
    await logged.keep(logContent={"days": 30})
    await logged.ask()
    found = await logged.the_content()
    assert found["request"]["messages"] == [{"role": "user", "content": SECRET}]
    assert found["answer"] == COMPLETION
    call = found["call"]
    assert (call["userId"], call["model"], call["status"]) == (USER, "m", "ok")
    assert float(call["costUsd"]) > 0
    kept = datetime.fromisoformat(call["expiresAt"]) - datetime.fromisoformat(call["at"])
    assert kept.total_seconds() == pytest.approx(30 * 86_400, abs=7200)  # a clock may change


async def test_a_stream_is_kept_as_it_was_sent(logged: Logged, upstream: Upstream) -> None:
    await logged.keep()
    upstream.script = stream(chunk("Hel"), chunk("lo"), chunk("", finish="stop"), DONE)
    await logged.ask(stream=True)
    found = await logged.the_content()
    assert found["answer"].startswith("data: {")
    assert '"content": "lo"' in found["answer"]


@pytest.mark.parametrize("is_cut", [False, True])
async def test_of_a_call_that_fails_only_the_request_is_kept(
    logged: Logged, upstream: Upstream, is_cut: bool
) -> None:
    await logged.keep()
    upstream.script = stream(chunk("Hel"), cut=True) if is_cut else hang_up
    await logged.ask(stream=is_cut)
    found = await logged.the_content()
    assert found["request"]["messages"][0]["content"] == SECRET
    assert found["answer"] is None
    assert found["call"]["status"] == "failed"


async def test_what_is_refused_before_it_goes_anywhere_is_not_kept(logged: Logged) -> None:
    await logged.keep(guards={"inputBytesMax": 10})
    assert await logged.ask() == 413
    await logged.keep(guards=None, budgets=[{"scope": "app", "period": "day", "limitUsd": "0"}])
    assert await logged.ask() == 402
    assert await logged.calls() == []


async def test_in_the_table_nobody_reads_a_text(logged: Logged) -> None:
    await logged.keep()
    await logged.ask()
    ((request, reply, is_logged),) = logged.harness.execute(
        "select request, answer, (select relpersistence = 'p' from pg_class"
        " where oid = 'butterbase.ai_contents'::regclass)"
        " from butterbase.ai_contents where app_id = %s",
        logged.harness.app_id,
    )
    assert SECRET.encode() not in request
    assert b"Hello" not in reply
    assert not is_logged
    (event,) = logged.harness.events()
    assert SECRET not in json.dumps(event)


async def test_a_text_that_was_moved_to_another_call_does_not_open(logged: Logged) -> None:
    await logged.keep()
    await logged.ask("one")
    await logged.ask("two")
    first, second = await logged.calls()
    logged.harness.execute(
        "update butterbase.ai_contents a set request = b.request from butterbase.ai_contents b"
        " where a.call_id = %s and b.call_id = %s",
        first["callId"],
        second["callId"],
    )
    assert (await logged.read(first["callId"]))["request"] is None
    assert (await logged.read(second["callId"]))["request"] is not None


async def test_values_that_guards_hide_are_not_kept(logged: Logged) -> None:
    await logged.keep(guards={"redact": ["email"]})
    await logged.ask("I am ada@example.com")
    found = await logged.the_content()
    assert "ada@example.com" not in json.dumps(found)
    assert "EMAIL-1-" in json.dumps(found["request"])
    assert found["answer"] is None


async def test_a_text_that_is_too_long_is_not_kept(logged: Logged, upstream: Upstream) -> None:
    await logged.keep()
    upstream.script = answer(200, COMPLETION | {"more": "x" * TEXT_BYTES_MAX})
    await logged.ask("y" * TEXT_BYTES_MAX)
    found = await logged.the_content()
    assert (found["request"], found["answer"]) == (None, None)


async def test_calls_are_listed_newest_first_in_pages_and_by_user(logged: Logged) -> None:
    await logged.keep()
    for number, who in enumerate((ADA, BOB, ADA)):
        await logged.ask(str(number), who)
    found = await logged.calls()
    assert [call["userId"] for call in found] == [USER, OTHER_USER, USER]
    assert await logged.calls(limit=1, before=found[0]["callId"]) == [found[1]]
    assert await logged.calls(userId=OTHER_USER) == [found[1]]


async def test_texts_are_deleted_by_user_and_by_age(logged: Logged) -> None:
    await logged.keep()
    for who in (ADA, BOB):
        await logged.ask(headers=who)
    assert (await logged.http.delete(logged.path, params={"olderThanS": "60"})).json() == {
        "deleted": 0
    }
    gone = await logged.http.delete(logged.path, params={"userId": USER})
    assert gone.json() == {"deleted": 1}
    (left,) = await logged.calls()
    assert left["userId"] == OTHER_USER
    assert (await logged.http.delete(logged.path)).json() == {"deleted": 1}


@pytest.mark.parametrize("query", ["user=x", "userId=x", "olderThanS=0", "olderThanS=-1"])
async def test_a_filter_that_is_wrong_deletes_nothing(logged: Logged, query: str) -> None:
    await logged.keep()
    await logged.ask()
    assert (await logged.http.delete(f"{logged.path}?{query}")).status_code == 400
    assert len(await logged.calls()) == 1


async def test_texts_are_for_the_service_role_of_their_app(logged: Logged) -> None:
    await logged.keep()
    await logged.ask()
    (call,) = await logged.calls()
    for path in (logged.path, f"{logged.path}/{call['callId']}"):
        for headers in (ADA, {"x-test-role": "anon"}):
            assert (await logged.http.get(path, headers=headers)).status_code == 403
            assert (await logged.http.delete(logged.path, headers=headers)).status_code == 403
    other = await logged.http.get(f"/v1/another/ai/contents/{call['callId']}")
    assert (other.status_code, other.json()["error"]["code"]) == (404, "ai_content_not_found")
    for unknown in (str(uuid4()), "no-id"):
        assert (await logged.http.get(f"{logged.path}/{unknown}")).status_code == 404


async def test_what_has_expired_is_not_told_and_then_deleted(logged: Logged) -> None:
    await logged.keep()
    await logged.ask()
    (call,) = await logged.calls()
    expire = "update butterbase.ai_contents set expires_at = now() where call_id = %s"
    logged.harness.execute(expire, call["callId"])
    assert await logged.calls() == []
    await logged.store.sweep(bytes_max=10**9)
    find = "select 1 from butterbase.ai_contents where call_id = %s"
    assert logged.harness.execute(find, call["callId"]) == []


async def test_an_app_keeps_so_many_bytes_at_the_most(
    own_control: Database, upstream: Upstream
) -> None:
    upstream.script = answer(200, COMPLETION)
    async with logging_gateway(own_control, upstream) as logged:
        await logged.keep()
        for number in range(3):
            await logged.ask(str(number))
        newest, *_ = await logged.calls()
        ((size,),) = logged.harness.execute("select max(bytes) from butterbase.ai_contents")
        assert await logged.store.sweep(bytes_max=size + size // 2) == 2
        assert await logged.calls() == [newest]


async def test_texts_wait_while_the_database_is_away_and_not_without_end(
    monkeypatch: pytest.MonkeyPatch, logged: Logged
) -> None:
    async def away(_statements: object) -> None:
        raise DatabaseUnavailableError

    app_id = logged.harness.app_id
    texts = [Content(app_id, uuid4(), None, b"x" * TEXT_BYTES_MAX, None, 7) for _ in range(40)]
    with monkeypatch.context() as patch:
        patch.setattr(logged.store, "keep", away)
        for content in texts:
            logged.log.add(content)
        with pytest.raises(DatabaseUnavailableError):
            await logged.log.flush()
    await logged.log.flush()
    assert len(await logged.calls(limit=200)) == WAITING_BYTES_MAX // texts[0].byte_count


async def test_an_app_that_is_gone_holds_up_no_other(logged: Logged) -> None:
    for app_id in ("gone", logged.harness.app_id):
        logged.log.add(Content(app_id, uuid4(), None, b"{}", None, 7))
    await logged.log.flush()
    assert len(await logged.calls()) == 1


@pytest.mark.parametrize("rules", [{"days": 0}, {"days": 91}, {"day": 1}, True])
async def test_rules_that_are_none_are_refused(logged: Logged, rules: object) -> None:
    response = await logged.harness.http.put(
        f"{logged.harness.path}/ai/config", json={"logContent": rules}
    )
    assert response.status_code == 400
    assert "logContent" in response.text


async def test_an_error_of_the_providers_is_no_answer(logged: Logged, upstream: Upstream) -> None:
    await logged.keep()
    upstream.script = answer(400, RATE_LIMITED)
    assert await logged.ask() == 400
    assert (await logged.the_content())["answer"] is None
