"""Sums that are not those of the events: they are found, and can be made anew."""

from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection

from butterbase.ai.money.reconcile import TRIES_MAX, differences, reconcile
from butterbase.sql.pipeline import Executor
from tests.ai.money.conftest import NANO, STREAM, Books, as_role


@pytest.fixture
async def checking(books: Books) -> AsyncIterator[Executor]:
    executor = Executor(as_role(books.database, STREAM), connection_count_max=1)
    yield executor
    await executor.close()


async def spend(books: Books, cost: int) -> None:
    call_id, admitted = await books.admit()
    await books.settle(call_id, cost, admitted_at=admitted.at)


async def test_sums_agree_also_while_events_wait_to_be_projected(
    books: Books, checking: Executor
) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO}, {"scope": "user", "limit_nanos": NANO * 9})
    for cost in (1, 2, 3):
        await spend(books, cost)
        assert await differences(checking) == []
    await books.project(2)
    assert await differences(checking) == []


async def test_a_sum_that_was_spoiled_is_found(books: Books, checking: Executor) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO, "period": "day"})
    await spend(books, 5)
    await books.project()
    books.execute("update butterbase.ai_budget_periods set spent_nanos = 6")
    books.execute("update butterbase.usage set cost_nanos = 4")
    pauses: list[float] = []

    async def sleep(seconds: float) -> None:
        pauses.append(seconds)

    found = await reconcile(checking, sleep=sleep)
    assert len(pauses) == TRIES_MAX - 1
    assert [(d.scope, d.kept_nanos, d.event_nanos) for d in found] == [
        ("app", 6, 5),
        ("usage", 4, 5),
    ]


async def test_what_agrees_a_moment_later_is_no_difference(
    books: Books, checking: Executor
) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO})
    call_id, admitted = await books.admit()
    # As after a crash of the server that took the admission with it.
    books.execute("delete from butterbase.ai_reservations")
    await books.settle(call_id, 5, admitted_at=admitted.at)
    assert len(await differences(checking)) == 2

    async def sleep(_seconds: float) -> None:
        await books.project()

    assert await reconcile(checking, sleep=sleep) == []


async def test_all_sums_can_be_made_anew_from_the_events(books: Books, checking: Executor) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO, "period": "month"})
    await spend(books, 5)
    await books.project()
    await spend(books, 6)  # its event is recorded, and not projected
    _, running = await books.admit()
    books.execute("update butterbase.ai_budget_periods set spent_nanos = 99, reserved_nanos = 98")
    books.execute("update butterbase.usage set requests = 97, cost_nanos = 96")
    async with await AsyncConnection.connect(as_role(books.database, STREAM)) as conn:
        await books.projection.rebuild(conn)
    assert [row[3:] for row in books.periods()] == [(11, running.reserved_nanos)]
    assert books.execute("select requests, cost_nanos from butterbase.usage") == [(2, 11)]
    assert await differences(checking) == []
