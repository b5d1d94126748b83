"""Turns of the calls of one app, which keep it from holding what others need."""

import asyncio

import psycopg
import pytest

from butterbase.ai.money.turns import AT_ONCE_COUNT, Turns
from butterbase.sql.errors import AcquisitionTimeoutError
from tests.ai.money.conftest import WAITING, Books
from tests.waiting import until


async def test_an_app_whose_rows_are_locked_leaves_connections_to_others(books: Books) -> None:
    books.put_budgets({"limit_nanos": 10**12})
    await books.admit(nanos=1)
    with psycopg.connect(books.database.dsn) as conn:
        conn.execute("select from butterbase.ai_budget_periods for update")
        waiting = [asyncio.create_task(books.admit(nanos=1)) for _ in range(20)]
        await until(lambda: len(books.execute(WAITING, books.database.name)) == AT_ONCE_COUNT)
        await books.admit(app_id="b", nanos=1)
        assert not any(task.done() for task in waiting)
    await asyncio.gather(*waiting)
    assert books.periods() == [("app", "", books.periods()[0][2], 0, 21)]


async def test_who_waits_for_too_long_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("butterbase.ai.money.turns.WAIT_S_MAX", 0)
    turns = Turns()
    async with turns.of("a"), turns.of("a"), turns.of("b"):
        with pytest.raises(AcquisitionTimeoutError):
            async with turns.of("a"):
                pytest.fail("there was no turn")
    monkeypatch.setattr("butterbase.ai.money.turns.WAIT_S_MAX", 60)
    async with turns.of("a"):
        pass


async def test_a_turn_passes_on_whatever_becomes_of_its_holder() -> None:
    turns, order = Turns(), list[int]()

    async def take(number: int, *, fails: bool) -> None:
        async with turns.of("a"):
            await asyncio.sleep(0)
            order.append(number)
            if fails:
                raise ValueError

    tasks = [asyncio.create_task(take(n, fails=n % 3 == 0)) for n in range(9)]
    await asyncio.sleep(0)
    tasks[5].cancel()  # while it waits
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert sorted(order) == [0, 1, 2, 3, 4, 6, 7, 8]
    assert sum(isinstance(result, ValueError) for result in results) == 3


async def test_a_turn_that_came_to_one_who_leaves_is_the_next_ones() -> None:
    turns = Turns()
    taken = []

    async def take(name: str) -> None:
        async with turns.of("a"):
            taken.append(name)

    async with turns.of("a"):
        async with turns.of("a"):
            leaves, stays = (asyncio.create_task(take(name)) for name in ("leaves", "stays"))
            await asyncio.sleep(0)
        leaves.cancel()  # the turn is given to it, and it has not run since
        await asyncio.gather(leaves, stays, return_exceptions=True)
    assert leaves.cancelled()
    assert taken == ["stays"]
    async with turns.of("a"), turns.of("a"):
        pass  # none was lost
