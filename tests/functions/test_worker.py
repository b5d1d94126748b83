"""Invocations that wait are claimed, run, tried again and given up."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from butterbase.api.functions.runtime.model import CallRequest, Failure, FunctionVersion
from butterbase.api.functions.versions import QUERIES
from butterbase.api.functions.work import worker as worker_module
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Result, Statement
from tests.functions.working import App, app_of
from tests.installation import Installation
from tests.waiting import until


@pytest.fixture
async def app(installation: Installation) -> AsyncIterator[App]:
    async with app_of(installation) as app:
        await app.function("f")
        yield app


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(worker_module, "POLL_S", 0.05)
    monkeypatch.setattr(worker_module, "BUSY_S", 0.02)
    monkeypatch.setattr("butterbase.api.functions.work.backoff.FIRST_S", 0.02)


async def test_what_waits_is_run_and_recorded(app: App) -> None:
    seen: list[tuple[Any, CallRequest]] = []

    async def handler(_version: FunctionVersion, request: CallRequest, body: Any) -> int:
        seen.append((body, request))
        return 200

    trigger = await app.trigger("f", "queue", queue="q")
    await app.queue(trigger, {"n": 1})
    async with app.working(handler):
        await until(lambda: _is(app, succeeded=1))
    body, request = seen[0]
    assert body == {"n": 1}
    assert (request.method, request.url) == ("POST", "http://127.0.0.1:9/f")
    headers = dict(request.headers)
    assert headers["x-butterbase-trigger"] == "queue"
    assert headers["x-butterbase-attempt"] == "1"
    rows = await app.all(
        "select attempts, http_status, worker, error_code from functions.invocations"
    )
    assert rows == [(1, 200, None, None)]


async def _is(app: App, **counts: int) -> bool:
    return all([await app.count(status) == count for status, count in counts.items()])


async def test_what_fails_is_tried_again_and_given_up_with_its_error(app: App) -> None:
    attempts = []

    async def handler(_version: FunctionVersion, request: CallRequest, _body: Any) -> Failure:
        attempts.append(request.context.attempt)
        return Failure("function_failed", "Error: no\0thing", "Error: nothing\n  at x.ts:1:1")

    trigger = await app.trigger("f", "queue", attempts=3, queue="q")
    await app.queue(trigger, 1)
    async with app.working(handler):
        await until(lambda: _is(app, dead=1))
    assert attempts == [1, 2, 3]
    rows = await app.all("select error_code, error_message, error_stack from functions.invocations")
    assert rows == [("function_failed", "Error: no�thing", "Error: nothing\n  at x.ts:1:1")]


async def test_an_answer_that_is_no_success_is_a_failure(app: App) -> None:
    answers = iter([404, 302, 204])

    async def handler(*_: object) -> int:
        return next(answers)

    await app.queue(await app.trigger("f", "queue", queue="q"), 1)
    async with app.working(handler):
        await until(lambda: _is(app, succeeded=1))
    assert await app.all("select attempts, http_status from functions.invocations") == [(3, 204)]


async def test_where_there_is_no_process_the_attempt_does_not_count(app: App) -> None:
    answers: list[Failure | int] = [*[Failure("functions_busy", "busy")] * 5, 200]

    async def handler(*_: object) -> int | Failure:
        return answers.pop(0)

    await app.queue(await app.trigger("f", "queue", attempts=1, queue="q"), 1)
    async with app.working(handler):
        await until(lambda: _is(app, succeeded=1))
    assert await app.all("select attempts from functions.invocations") == [(1,)]


async def test_of_one_key_one_runs_at_a_time_and_in_order(app: App) -> None:
    seen: dict[str, list[int]] = {"a": [], "b": []}
    failed = set()

    async def handler(_version: FunctionVersion, _request: CallRequest, body: Any) -> int:
        key, number = body
        if number % 5 == 0 and (key, number) not in failed:
            failed.add((key, number))
            return 500
        await asyncio.sleep(0.001)
        seen[key].append(number)
        return 200

    trigger = await app.trigger("f", "queue", queue="q")
    for number in range(12):
        for key in seen:
            await app.queue(trigger, [key, number], key=key)
    async with app.working(handler) as stand_in, app.working(handler):
        await until(lambda: _is(app, succeeded=24))
    assert seen == {"a": list(range(12)), "b": list(range(12))}
    assert stand_in.most_count <= 2


async def test_one_app_runs_so_many_at_a_time(app: App) -> None:
    gate = asyncio.Event()

    async def handler(*_: object) -> int:
        await gate.wait()
        return 200

    await app.queue(await app.trigger("f", "queue", queue="q"), *range(10))
    async with app.working(handler, jobs=3) as stand_in:
        await until(lambda: stand_in.running_count == 3)
        assert await app.count("running") == 3
        gate.set()
        await until(lambda: _is(app, succeeded=10))
        assert stand_in.most_count == 3


async def test_two_workers_share_what_waits(app: App) -> None:
    seen: list[int] = []

    async def handler(_version: FunctionVersion, _request: CallRequest, body: Any) -> int:
        seen.append(body)
        return 200

    await app.queue(await app.trigger("f", "queue", queue="q"), *range(200))
    async with app.working(handler), app.working(handler):
        await until(lambda: _is(app, succeeded=200))
    assert sorted(seen) == list(range(200))


async def test_what_a_worker_leaves_is_claimed_by_another(app: App) -> None:
    await app.queue(await app.trigger("f", "queue", queue="q"), 1)
    # As one leaves it that is killed.
    await app.conn.execute(
        "update functions.invocations set status = 'running', attempts = 1,"
        " worker = gen_random_uuid(), leased_until = now() - interval '1 second'"
    )

    async def handler(*_: object) -> int:
        return 200

    async with app.working(handler):
        await until(lambda: _is(app, succeeded=1))
    assert await app.all("select attempts from functions.invocations") == [(2,)]


@pytest.mark.parametrize(("attempts", "status"), [(3, "succeeded"), (8, "dead")])
async def test_what_kills_its_workers_is_given_up(app: App, attempts: int, status: str) -> None:
    await app.queue(await app.trigger("f", "queue", attempts=3, queue="q"), 1)
    await app.conn.execute(
        "update functions.invocations set status = 'running', attempts = %s,"
        " worker = gen_random_uuid(), leased_until = now() - interval '1 second'",
        [attempts],
    )

    async def handler(*_: object) -> int:
        return 200

    async with app.working(handler) as stand_in:
        await until(lambda: _is(app, **{status: 1}))
    assert stand_in.most_count == (1 if status == "succeeded" else 0)


async def test_a_worker_that_ends_gives_back_what_it_has_not_done(app: App) -> None:
    gate = asyncio.Event()

    async def handler(*_: object) -> int:
        await gate.wait()
        return 200

    await app.queue(await app.trigger("f", "queue", queue="q"), 1, 2)
    async with app.working(handler) as stand_in:
        await until(lambda: stand_in.running_count == 2)
    assert (
        await app.all("select status, attempts, worker from functions.invocations")
        == [("queued", 0, None)] * 2
    )


async def test_a_worker_whose_lease_is_over_writes_nothing(app: App) -> None:
    gate = asyncio.Event()

    async def handler(*_: object) -> int:
        await gate.wait()
        return 200

    await app.queue(await app.trigger("f", "queue", queue="q"), 1)
    async with app.working(handler) as stand_in:
        await until(lambda: stand_in.running_count == 1)
        await app.conn.execute("update functions.invocations set worker = gen_random_uuid()")
        gate.set()
        await until(lambda: stand_in.running_count == 0)
    assert await app.count("succeeded") == 0


async def test_an_end_that_postgres_refuses_keeps_nothing_else_waiting(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "RETRY_S", 0.01)
    await app.conn.execute(
        "alter table functions.invocations"
        " add constraint refused check (payload::text <> '1' or status <> 'succeeded')"
    )
    await app.queue(await app.trigger("f", "queue", queue="q"), 1, 2)

    async def handler(*_: object) -> int:
        return 200

    async with app.working(handler, jobs=1):
        await until(lambda: _is(app, succeeded=1, running=1))
        await app.conn.execute("alter table functions.invocations drop constraint refused")
        await app.conn.execute(
            "update functions.invocations set leased_until = now() where status = 'running'"
        )
        await until(lambda: _is(app, succeeded=2))
    rows = await app.all("select payload::text, attempts from functions.invocations order by seq")
    assert rows == [("1", 2), ("2", 1)]


async def test_a_function_without_a_version_fails_its_invocations(app: App) -> None:
    trigger = await app.trigger("f", "queue", attempts=1, queue="q")
    await app.conn.execute("update functions.functions set active_version = null")
    await app.queue(trigger, 1)

    async def handler(*_: object) -> int:
        return 200

    async with app.working(handler):
        await until(lambda: _is(app, dead=1))
    assert await app.all("select error_code from functions.invocations") == [
        ("function_not_found",)
    ]


async def test_claims_are_kept_once_the_invocation_has_ended_well(app: App) -> None:
    await app.queue(await app.trigger("f", "queue", queue="q"), 1)
    ids = await app.all("select id::text from functions.invocations")
    await app.conn.execute(
        "insert into functions.claims (function_id, key, invocation_id, expires_at)"
        " select function_id, 'k', id, now() + interval '1 day' from functions.invocations"
    )

    async def handler(*_: object) -> int:
        return 200

    async with app.working(handler):
        await until(lambda: _is(app, succeeded=1))
    rows = await app.all("select invocation_id::text, is_kept from functions.claims")
    assert rows == [(ids[0][0], True)]


class Losing(Executor):
    """Whose connection is lost as the answer to a claim is on its way."""

    lost_count = 0

    async def run(self, *statements: Statement, **options: Any) -> list[Result]:
        results = await super().run(*statements, **options)
        is_claim = any(statement.text == QUERIES["claim"] for statement in statements)
        if is_claim and not self.lost_count and (results[1].value() or b"[]") != b"[]":
            self.lost_count += 1
            raise DatabaseUnavailableError("the connection was lost")
        return results


async def test_what_was_claimed_unheard_is_claimed_again_while_its_worker_is_busy(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(worker_module, "LEASE_S", 0.5)
    monkeypatch.setattr(worker_module, "RENEW_S", 0.05)
    monkeypatch.setattr(worker_module, "RETRY_S", 0.02)
    monkeypatch.setattr("tests.functions.working.Executor", Losing)
    done = asyncio.Event()

    async def handler(_version: FunctionVersion, _request: CallRequest, body: Any) -> int:
        if body == "long":
            await done.wait()
        return 200

    trigger = await app.trigger("f", "queue", queue="q")
    await app.queue(trigger, "unheard")
    async with app.working(handler) as stand_in:
        await until(lambda: app.executors[0].lost_count == 1)  # type: ignore[attr-defined]
        await app.queue(trigger, "long")
        await until(lambda: stand_in.running_count == 1)
        await until(lambda: _is(app, succeeded=1))
        assert stand_in.running_count == 1
        done.set()
        await until(lambda: _is(app, succeeded=2))
    assert await app.all("select attempts from functions.invocations order by seq") == [(2,), (1,)]
