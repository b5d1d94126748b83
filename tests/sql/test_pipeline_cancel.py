"""Callers who leave while their statements run."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import psycopg
import pytest

from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Statement, connecting, connection
from tests.postgres import Database

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

SLEEP = Statement(b"select pg_sleep(60)")
SLEEPING = (
    "select count(*) from pg_stat_activity where query = 'select pg_sleep(60)'"
    " and state = 'active' and datname = current_database()"
)


@pytest.fixture
async def executor(database: Database) -> AsyncIterator[Executor]:
    executor = Executor(database.dsn, connection_count_max=1)
    yield executor
    await executor.close()


async def until_sleeping(database: Database, count: int) -> None:
    async with await psycopg.AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        while await (await conn.execute(SLEEPING)).fetchone() != (count,):
            pass


async def backend(executor: Executor) -> bytes | None:
    (result,) = await executor.run(Statement(b"select pg_backend_pid()"))
    return result.value()


async def leave(call: "asyncio.Task[object]") -> None:
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_caller_that_leaves_has_its_query_cancelled(
    executor: Executor, database: Database
) -> None:
    before = await backend(executor)
    call = asyncio.create_task(executor.run(SLEEP))
    await until_sleeping(database, 1)
    await leave(call)
    await until_sleeping(database, 0)
    assert await backend(executor) == before


async def test_nothing_of_a_cancelled_transaction_stays(
    executor: Executor, database: Database
) -> None:
    await executor.run(Statement(b"create table t (i int)"))
    insert = Statement(b"insert into t values (1)")
    for options in ({}, {"check": lambda _results: None}, {"is_rolled_back": True}):
        call = asyncio.create_task(executor.run(insert, SLEEP, **options))
        await until_sleeping(database, 1)
        await leave(call)
        (count,) = await executor.run(Statement(b"select count(*) from t"))
        assert count.value() == b"0", options


async def test_a_cancellation_never_meets_the_next_caller(executor: Executor) -> None:
    short = Statement(b"select pg_sleep(0.002)")
    one = Statement(b"select 1, pg_sleep(0.001)")
    for i in range(150):
        call = asyncio.create_task(executor.run(short))
        await asyncio.sleep(i % 10 * 0.0004)
        call.cancel()
        # It waits for the only connection, whatever came of the call before.
        (result,) = await executor.run(one)
        assert result.value() == b"1"
        await asyncio.gather(call, return_exceptions=True)


async def test_a_caller_that_leaves_while_it_waits_cancels_nobody(
    executor: Executor, database: Database
) -> None:
    call = asyncio.create_task(executor.run(Statement(b"select pg_sleep(0.05)")))
    await asyncio.sleep(0.01)
    await leave(asyncio.create_task(executor.run(SLEEP)))
    waiting = asyncio.create_task(executor.run(SLEEP))
    await asyncio.sleep(0)
    await leave(waiting)
    assert len(await call) == 1


async def test_a_connection_whose_cancellation_fails_is_given_up(
    executor: Executor, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_pgconn: object) -> None:
        raise DatabaseUnavailableError("no route")

    before = await backend(executor)
    monkeypatch.setattr(connection, "cancel", fail)
    call = asyncio.create_task(executor.run(SLEEP))
    await until_sleeping(database, 1)
    await leave(call)
    assert await backend(executor) != before


async def test_an_executor_is_closed_in_mid_cancellation(
    executor: Executor, database: Database
) -> None:
    call = asyncio.create_task(executor.run(SLEEP))
    await until_sleeping(database, 1)
    call.cancel()
    await asyncio.sleep(0)
    await executor.close()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_cancellation_that_comes_too_early_is_repeated(
    executor: Executor, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries = 0

    async def cancel(pgconn: "PGconn") -> None:
        nonlocal tries
        tries += 1
        if tries > 2:
            await connecting.cancel(pgconn)

    monkeypatch.setattr(connection, "cancel", cancel)
    monkeypatch.setattr(connection, "CANCEL_AGAIN_S", 0.01)
    before = await backend(executor)
    call = asyncio.create_task(executor.run(SLEEP))
    await until_sleeping(database, 1)
    await leave(call)
    assert await backend(executor) == before
    assert tries == 3
