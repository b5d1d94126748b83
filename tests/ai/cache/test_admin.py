"""What is told of a cache, what is deleted of it, and how large it gets."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import psycopg
import pytest
from falcon.asgi import App, Request, Response
from psycopg.conninfo import make_conninfo

from butterbase.ai.cache.resource import add_routes
from butterbase.ai.cache.store import QUERIES
from butterbase.ai.settings import AiSettings
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Result, Statement
from tests.ai.cache.conftest import OTHER_USER, SEMANTIC, USER, Desk, Worker, fresh, text_of
from tests.waiting import until

ONE, NEAR = "Passwords how to reset one", "passwords the way of resetting"


class _Callers:
    def __init__(self, app_id: str) -> None:
        self._app_id = app_id

    async def process_request(self, req: Request, _resp: Response) -> None:
        from butterbase.sql.claims import Claims

        req.context.app_id = self._app_id
        req.context.claims = Claims(role=req.get_header("x-role") or "service_role", json="{}")


@asynccontextmanager
async def http_of(worker: Worker, app_id: str | None = None) -> AsyncIterator[httpx.AsyncClient]:
    app: App[Any, Any] = App(middleware=[_Callers(app_id or worker.app_id)])
    add_routes(app, worker.cache.admin, prefix="")
    transport = httpx.ASGITransport(app)  # type: ignore[arg-type]  # it says Mapping
    async with httpx.AsyncClient(transport=transport, base_url="http://app.test") as http:
        yield http


async def test_the_report_tells_hits_savings_and_samples(worker: Worker) -> None:
    await worker.ask(ONE, rules=SEMANTIC)
    await worker.ask(ONE, rules=SEMANTIC)
    await worker.ask(NEAR, rules=SEMANTIC)
    await worker.find(ONE, rules=SEMANTIC, cache_control="no-store")
    await worker.cache.close()
    async with http_of(worker) as http:
        report = (await http.get("/ai/cache")).json()
    assert report["entries"] == 1
    assert report["totals"] == {
        "hits": 1,
        "semanticHits": 1,
        "misses": 1,
        "bypasses": 1,
        "hitRate": 0.6667,
        "savedUsd": "0.00001",
        "savedMs": 3000,
    }
    (day,) = report["days"]
    assert (day["model"], day["hits"]) == ("m", 1)
    (sample,) = report["samples"]
    assert (sample["asked"], sample["answered"]) == (NEAR, ONE)
    assert 0.9 <= sample["similarity"] < 1


async def test_a_new_apps_report_is_empty(worker: Worker) -> None:
    async with http_of(worker) as http:
        report = (await http.get("/ai/cache", params={"days": 1})).json()
    assert report["totals"]["hitRate"] is None
    assert (report["entries"], report["days"], report["samples"]) == (0, [], [])


async def test_no_app_is_told_of_anothers(worker: Worker, desk: Desk) -> None:
    await worker.ask(ONE, rules=SEMANTIC)
    await worker.ask(NEAR, rules=SEMANTIC)
    await worker.cache.close()
    async with http_of(worker, desk.other_app_id) as http:
        assert (await http.get("/ai/cache")).json()["entries"] == 0
        assert (await http.delete("/ai/cache")).json() == {"deleted": 0}
    assert len(desk.entries()) == 1


@pytest.mark.parametrize("role", ["anon", "authenticated"])
async def test_users_see_and_delete_nothing(worker: Worker, role: str) -> None:
    async with http_of(worker) as http:
        for method in ("GET", "DELETE"):
            answer = await http.request(method, "/ai/cache", headers={"x-role": role})
            assert answer.status_code == 403
            assert answer.json()["error"]["code"] == "ai_role_denied"


@pytest.mark.parametrize(
    ("method", "query"),
    [("GET", "days=0"), ("GET", "days=367"), ("GET", "days=x"), ("GET", "day=1"),
     ("DELETE", "userid=1"), ("DELETE", "userId=1"), ("DELETE", "olderThanS=-1"),
     ("DELETE", "model=%00")],
)  # fmt: skip
async def test_a_request_that_says_nothing_clear_does_nothing(
    worker: Worker, desk: Desk, method: str, query: str
) -> None:
    await worker.ask()
    async with http_of(worker) as http:
        assert (await http.request(method, f"/ai/cache?{query}")).status_code == 400
    assert len(desk.entries()) == 1


async def test_what_is_deleted_no_worker_gives_any_more(
    worker: Worker, other: Worker, desk: Desk
) -> None:
    for each in (worker, other):
        await each.ask()
    assert len(other.cache._recent) == 1
    async with http_of(worker) as http:
        assert (await http.delete("/ai/cache")).json() == {"deleted": 1}
    await until(lambda: not len(worker.cache._recent) and not len(other.cache._recent))
    assert (await other.find()).state == "miss"


async def test_a_call_of_before_the_deletion_is_not_kept(worker: Worker, desk: Desk) -> None:
    lookup = await worker.find()
    await worker.cache.admin.purge(worker.app_id)
    await until(lambda: bool(worker.cache._keeper._purged_s))
    await lookup.keep(fresh())
    assert desk.entries() == []
    assert (await worker.find()).state == "miss"


async def test_what_is_deleted_while_it_is_read_is_not_remembered(
    worker: Worker, other: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.ask()
    look = other.cache._store.look_or_lead

    async def look_as_it_is_deleted(*of: Any, **given: Any) -> Any:
        found = await look(*of, **given)
        await worker.cache.admin.purge(worker.app_id)
        await until(lambda: bool(other.cache._keeper._purged_s))
        return found

    monkeypatch.setattr(other.cache._store, "look_or_lead", look_as_it_is_deleted)
    assert (await other.find()).state == "hit"
    monkeypatch.undo()
    assert (await other.find()).state == "miss"


async def test_what_is_read_while_nothing_was_heard_is_not_remembered(
    worker: Worker, other: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    await worker.ask()
    look = other.cache._store.look_or_lead

    async def look_as_the_connection_is_lost(*of: Any, **given: Any) -> Any:
        found = await look(*of, **given)
        other.cache._listener._on_failure()
        other.cache._listener._on_listening()
        return found

    monkeypatch.setattr(other.cache._store, "look_or_lead", look_as_the_connection_is_lost)
    assert (await other.find()).state == "hit"
    assert not len(other.cache._recent)


async def test_an_answer_whose_app_is_purged_while_its_question_is_embedded_is_not_kept(
    worker: Worker, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    lookup, read = await worker.find(rules=SEMANTIC), worker.cache._search.read

    async def read_as_it_is_purged(*of: Any) -> Any:
        await worker.cache.admin.purge(worker.app_id)
        await until(lambda: bool(worker.cache._keeper._purged_s))
        return await read(*of)

    lookup.meaning = None  # type: ignore[attr-defined]  # as when it could not be embedded before
    monkeypatch.setattr(worker.cache._search, "read", read_as_it_is_purged)
    await lookup.keep(fresh())
    assert desk.entries() == []


async def test_one_users_answers_are_deleted(worker: Worker, desk: Desk) -> None:
    await worker.ask(ONE, rules=SEMANTIC)
    await worker.ask(NEAR, rules=SEMANTIC)
    await worker.ask(user_id=OTHER_USER)
    await worker.cache._keeper.finish()
    assert await worker.cache.admin.purge(worker.app_id, user_id=USER) == 1
    assert desk.entries("user_id") == [(OTHER_USER,)]
    samples = desk.execute(
        "select 1 from butterbase.ai_cache_samples where app_id = %s", worker.app_id
    )
    assert samples == []


async def test_answers_are_deleted_by_model_and_age(worker: Worker, desk: Desk) -> None:
    await worker.ask()
    assert await worker.cache.admin.purge(worker.app_id, model="other") == 0
    assert await worker.cache.admin.purge(worker.app_id, before_s=1.0) == 0
    assert await worker.cache.admin.purge(worker.app_id, model="m", before_s=2**33) == 1


# At rest


async def test_texts_are_sealed_and_hashes_are_keyed(worker: Worker, desk: Desk) -> None:
    await worker.ask("Passwords of ada", rules=SEMANTIC, text="hunter2")
    ((prompt, question, answer),) = desk.entries("prompt, question, answer")
    for text in (b"Passwords", b"ada", b"hunter2"):
        assert text not in bytes(prompt) + bytes(question) + bytes(answer)


async def test_an_answer_that_is_moved_to_another_row_does_not_open(
    worker: Worker, other: Worker, desk: Desk
) -> None:
    await worker.ask("one", text="ones")
    await worker.ask("two", text="twos")
    desk.execute(
        "update butterbase.ai_cache c set answer = o.answer from butterbase.ai_cache o"
        " where c.app_id = %s and o.app_id = c.app_id and o.id <> c.id",
        desk.app_id,
    )
    assert (await other.find("one")).state == "miss"


@pytest.mark.parametrize("role", ["butterbase_stream", "anon", "authenticated", "service_role"])
@pytest.mark.parametrize(
    "table", ["ai_cache", "ai_cache_flights", "ai_cache_days", "ai_cache_samples", "ai_prompts"]
)
def test_no_other_role_reads_it(desk: Desk, role: str, table: str) -> None:
    dsn = make_conninfo(desk.database.dsn, options=f"-c role={role}")
    with (
        psycopg.connect(dsn, autocommit=True) as conn,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        conn.execute(f"select from butterbase.{table}".encode())


def test_texts_are_not_in_the_log(desk: Desk) -> None:
    kinds = dict(
        desk.execute(
            "select relname, relpersistence from pg_class where relname like 'ai_cache%%'"
            " and relkind = 'r'"
        )
    )
    assert kinds == {
        "ai_cache": "u",
        "ai_cache_flights": "u",
        "ai_cache_samples": "u",
        "ai_cache_days": "p",
    }


# Size


async def test_what_has_expired_is_deleted(worker: Worker, desk: Desk) -> None:
    await worker.ask("one")
    await worker.ask("two")
    desk.execute(
        "update butterbase.ai_cache set expires_at = now()"
        " where id = (select min(id) from butterbase.ai_cache where app_id = %s)",
        desk.app_id,
    )
    await worker.cache.sweep()
    assert len(desk.entries()) == 1


async def test_an_app_keeps_what_was_used_last(worker: Worker, desk: Desk) -> None:
    settings = AiSettings(ai_cache_bytes_max=3500)
    async with desk.worker(settings=settings) as small:
        for text in "abcdef":
            await small.ask(text)
        assert await small.ask("a") is not None
        await small.cache.flush()
        await small.cache.sweep()
        left = desk.entries("id")
        assert sum(size for (size,) in desk.entries("bytes")) <= 3500
        assert 0 < len(left) < 6
    # What is gone is only asked for anew; the used one is there.
    assert await worker.ask("a") == "the answer"
    assert await worker.ask("b") is None


async def test_memory_is_bounded_and_the_oldest_go_first(desk: Desk) -> None:
    settings = AiSettings(ai_cache_memory_bytes_max=5000)
    async with desk.worker(settings=settings) as small:
        for number in range(20):
            await small.ask(f"question {number}")
        recent = small.cache._recent
        assert 0 < recent.bytes_count <= 5000
        assert len(recent) < 20
        assert text_of(await small.find("question 0")) == "the answer"


async def test_memory_is_not_used_where_deletions_are_not_heard_of(desk: Desk) -> None:
    async with desk.worker(is_running=False) as deaf:
        await deaf.ask()
        assert len(deaf.cache._recent) == 0
        assert await deaf.ask() == "the answer"


async def test_a_control_database_that_is_away_makes_misses(desk: Desk) -> None:
    async with desk.worker(is_running=False) as worker:
        await worker.cache._store._control.close()
        lookup = await worker.find(rules=SEMANTIC)
        assert lookup.state == "miss"
        await lookup.keep(fresh())


async def test_counts_that_could_not_all_be_written_are_counted_once(
    worker: Worker, desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        await worker.ask()
    control = worker.cache._store._control
    run = control.run

    async def run_but_for_uses(*statements: Statement, **options: Any) -> list[Result]:
        if any(statement.text == QUERIES["count_uses"] for statement in statements):
            raise DatabaseUnavailableError
        return await run(*statements, **options)

    with monkeypatch.context() as patch:
        patch.setattr(control, "run", run_but_for_uses)
        with pytest.raises(DatabaseUnavailableError):
            await worker.cache.flush()
    await worker.cache.flush()
    async with http_of(worker) as http:
        totals = (await http.get("/ai/cache")).json()["totals"]
    assert (totals["hits"], totals["misses"]) == (1, 1)
    assert desk.entries("hits") == [(1,)]
