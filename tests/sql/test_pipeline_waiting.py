"""Callers who wait for a connection, and what becomes of them."""

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

import pytest

from butterbase.sql.errors import AcquisitionTimeoutError, DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Statement, executor
from butterbase.sql.pipeline.waiting import Queue
from tests.postgres import Database

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn

SLEEP = Statement(b"select pg_sleep(60)")
ONE = Statement(b"select 1")


@pytest.fixture
async def single(database: Database) -> AsyncIterator[Executor]:
    single = Executor(database.dsn, connection_count_max=1)
    yield single
    await single.close()


async def test_a_caller_who_waits_too_long_is_told_so(database: Database) -> None:
    single = Executor(database.dsn, connection_count_max=1, acquisition_timeout_s=0.05)
    await single.run(ONE)
    holder = asyncio.create_task(single.run(SLEEP))
    await asyncio.sleep(0)
    waits = await asyncio.gather(*(single.run(ONE) for _ in range(3)), return_exceptions=True)
    assert all(isinstance(error, AcquisitionTimeoutError) for error in waits)
    assert str(waits[0]) == "Timed out acquiring connection from connection pool."
    holder.cancel()
    await asyncio.gather(holder, return_exceptions=True)
    await single.close()


async def test_deadlines_are_each_callers_own() -> None:
    queue = Queue[str](count_max=10, timeout_s=0.01)
    (_, first), (_, second) = queue.join(), queue.join()
    first.cancel()
    with pytest.raises(AcquisitionTimeoutError):
        await second
    (_, third) = queue.join()
    with pytest.raises(AcquisitionTimeoutError):
        await third
    assert not queue.wake("too late")


async def test_the_longest_wait_ends_first_also_after_a_vain_one() -> None:
    queue = Queue[str](count_max=2, timeout_s=60)
    first, (_, second) = queue.join(), queue.join()
    with pytest.raises(DatabaseUnavailableError):
        queue.join()
    queue.wake(None)
    assert await first[1] is None
    (_, again) = queue.rejoin(first)
    queue.wake("a")
    queue.wake("b")
    assert (await again, await second) == ("a", "b")
    queue.close(DatabaseUnavailableError())


async def test_callers_who_left_take_no_place() -> None:
    queue = Queue[str](count_max=1, timeout_s=60)
    for _ in range(3):
        waiter = queue.join()
        waiter[1].cancel()
        queue.leave(waiter)
        queue.leave(waiter)
    queue.close(DatabaseUnavailableError())


async def test_callers_are_served_in_their_order(single: Executor) -> None:
    served: list[int] = []

    async def ask(i: int) -> None:
        await single.run(ONE)
        served.append(i)

    await asyncio.gather(*map(ask, range(5)))  # the first opens the connection
    assert served == [0, 1, 2, 3, 4]


async def test_a_chance_to_connect_passes_by_those_who_left(
    single: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def connect(_dsn: bytes) -> "PGconn":
        await asyncio.sleep(0)
        asyncio.get_running_loop().call_soon(calls[1].cancel)  # woken, and gone before it runs
        raise DatabaseUnavailableError("no route")

    monkeypatch.setattr(executor, "connect", connect)
    calls = [asyncio.create_task(single.run(ONE)) for _ in range(3)]
    async with asyncio.timeout(30):
        first, left, last = await asyncio.gather(*calls, return_exceptions=True)
    assert isinstance(left, asyncio.CancelledError)
    assert [str(first), str(last)] == ["no route", "no route"]


async def test_a_connection_lost_between_wake_up_and_use_is_not_used(
    single: Executor, monkeypatch: pytest.MonkeyPatch
) -> None:
    await single.run(ONE)
    connection = single._idle.pop()
    waiting = asyncio.create_task(single.run(ONE))
    await asyncio.sleep(0)
    single._release(connection)
    connection.close(DatabaseUnavailableError("lost"))
    (result,) = await waiting
    assert result.value() == b"1"


async def test_a_connection_that_is_closed_answers_that_it_is(single: Executor) -> None:
    await single.run(ONE)
    connection = single._idle[0]
    connection.close(DatabaseUnavailableError("lost"))
    async with asyncio.timeout(30):
        with pytest.raises(DatabaseUnavailableError):
            await connection.send((ONE,))


async def test_a_closed_executor_opens_nothing(single: Executor) -> None:
    await single.run(ONE)
    calls = [asyncio.create_task(single.run(SLEEP)) for _ in range(3)]
    await asyncio.sleep(0)
    await single.close()
    calls.append(asyncio.create_task(single.run(ONE)))
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert {str(answer) for answer in answers} == {"the server is stopping"}
    assert single._open == set()


async def test_a_connection_that_opens_while_the_executor_closes_is_closed(
    single: Executor,
) -> None:
    call = asyncio.create_task(single.run(ONE))
    await asyncio.sleep(0)
    await single.close()
    with pytest.raises(DatabaseUnavailableError, match="stopping"):
        await call
    assert single._open == set()
