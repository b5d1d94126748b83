"""Calls whose worker is gone: who is dead, and what becomes of what it held."""

import asyncio
import subprocess
import sys
from typing import Any
from uuid import UUID, uuid4

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection

from butterbase.ai.money.ledger import Ledger
from butterbase.projections.sweeper import Liveness, Sweeper, tidy
from tests.ai.money.conftest import ADMISSION, NANO, SERVICE, STREAM, USER, Books, as_role
from tests.ai.money.conftest import books as books
from tests.ai.money.conftest import money as money
from tests.ai.money.conftest import money_template as money_template
from tests.waiting import until

WORKER, OTHER = UUID(int=1), UUID(int=2)


def test_a_worker_whose_number_stands_still_is_dead() -> None:
    liveness = Liveness(lost_after_s=30.0)
    for now_s, beat in ((0.0, 1), (10.0, 2), (39.9, 2)):
        assert liveness.observe({WORKER: beat}, now_s) == set()
    assert liveness.observe({WORKER: 2}, 40.0) == {WORKER}
    assert liveness.observe({WORKER: 3}, 41.0) == set()


def test_a_worker_that_never_said_anything_is_dead_as_well() -> None:
    liveness = Liveness(lost_after_s=30.0)
    assert liveness.observe({WORKER: None}, 0.0) == set()
    assert liveness.observe({WORKER: None, OTHER: 1}, 30.0) == {WORKER}


def test_nobody_is_dead_who_could_not_be_heard() -> None:
    liveness = Liveness(lost_after_s=30.0)
    liveness.observe({WORKER: 1}, 0.0)
    liveness.forget()
    assert liveness.observe({WORKER: 1}, 100.0) == set()


@given(st.lists(st.tuples(st.floats(0.1, 29.0), st.booleans()), max_size=50))
def test_who_beats_at_least_every_half_minute_is_never_dead(
    steps: list[tuple[float, bool]],
) -> None:
    liveness, now_s, beat, since_s = Liveness(lost_after_s=30.0), 0.0, 0, 0.0
    for pause_s, beats in steps:
        now_s += pause_s
        since_s += pause_s
        if beats or since_s >= 30.0:
            beat, since_s = beat + 1, 0.0
        assert liveness.observe({WORKER: beat}, now_s) == set()


class Clock:
    now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


async def sweep_twice(books: Books, *, beating: Ledger | None = None, pause_s: float = 30.0) -> int:
    """Calls given up by a sweeper that has looked, waited, and looked again."""
    clock = Clock()
    sweeper = Sweeper("", clock=clock)
    async with await AsyncConnection.connect(
        as_role(books.database, STREAM), autocommit=True
    ) as conn:
        count = await sweeper.sweep(conn)
        clock.now_s += pause_s
        if beating:
            await beating.beat()
        return count + await sweeper.sweep(conn)


def lost_events(books: Books) -> list[tuple[Any, ...]]:
    return books.execute(
        "select call_id, user_id, data ->> 'model', (data ->> 'reserved_nanos')::bigint,"
        " data ->> 'cost_nanos' from butterbase.events where data ->> 'status' = 'lost'"
    )


async def test_a_dead_workers_call_is_lost_and_its_reservation_released_once(
    books: Books,
) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO})
    await books.ledger.beat()
    call_id, _ = await books.admit()
    assert await sweep_twice(books) == 1
    assert lost_events(books) == [(call_id, USER, "m", NANO, "0")]
    assert await sweep_twice(books) == 0
    assert [row[3:] for row in books.periods()] == [(0, NANO)]
    for _ in range(2):
        await books.project()
        assert [row[3:] for row in books.periods()] == [(0, 0)]
    assert books.execute("select requests, failures from butterbase.usage") == [(1, 1)]
    assert await sweep_twice(books) == 0
    assert books.execute("select count(*) from butterbase.ai_workers") == [(0,)]


async def test_a_living_workers_calls_go_on(books: Books) -> None:
    await books.ledger.beat()
    await books.admit()
    assert await sweep_twice(books, beating=books.ledger) == 0
    assert await sweep_twice(books, pause_s=29.9) == 0


async def test_a_call_that_outlives_its_time_is_lost_though_its_worker_lives(books: Books) -> None:
    await books.ledger.beat()
    await books.admit(life_s=-301.0)
    assert await sweep_twice(books, beating=books.ledger) == 1


async def test_two_sweepers_give_a_call_up_once(books: Books) -> None:
    for _ in range(50):
        await books.admit()
    counts = await asyncio.gather(*(sweep_twice(books) for _ in range(4)))
    assert sum(counts) >= 50
    assert len(lost_events(books)) == 50


async def test_what_was_recorded_before_it_was_swept_is_not_lost(books: Books) -> None:
    call_id, admitted = await books.admit()
    await books.settle(call_id, 3, admitted_at=admitted.at)
    assert await sweep_twice(books) == 0


async def test_a_call_that_ends_after_it_was_given_up_is_paid_for(books: Books) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO})
    call_id, admitted = await books.admit()
    await sweep_twice(books)
    await books.project()
    for _ in range(2):  # the second as after a lost answer
        await books.settle(call_id, 7, admitted_at=admitted.at)
    await books.project()
    assert [row[3:] for row in books.periods()] == [(7, 0)]
    assert books.execute("select sum(requests), sum(cost_nanos) from butterbase.usage") == [(1, 7)]


async def test_what_is_admitted_after_its_end_is_released_once_that_is_settled(
    books: Books,
) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO})
    call_id = uuid4()
    await books.settle(call_id, 3)
    await books.ledger.admit(call_id, msgspec.structs.replace(ADMISSION, life_s=-301.0))
    sweeper, before = Sweeper(""), books.execute("select pg_current_wal_insert_lsn()::text")[0][0]
    books.execute("create table later (); drop table later")
    async with await AsyncConnection.connect(
        as_role(books.database, STREAM), autocommit=True
    ) as conn:
        await sweeper.sweep(conn)
        # How far the projection has come: not to where the event was seen, then as far.
        advance = (
            "insert into butterbase.checkpoints (projection, lsn) values ('usage', %s)"
            " on conflict (projection) do update set lsn = excluded.lsn"
        )
        books.execute(advance, before)
        await sweeper.sweep(conn)
        assert [row[3:] for row in books.periods()] == [(0, NANO)]
        books.execute(advance, books.execute("select pg_current_wal_insert_lsn()::text")[0][0])
        for _ in range(2):
            await sweeper.sweep(conn)
            assert [row[3:] for row in books.periods()] == [(0, 0)]
    assert lost_events(books) == []
    assert books.execute("select count(*) from butterbase.ai_reservations") == [(0,)]


KILLED = """
import asyncio, sys
from uuid import uuid4
from butterbase.ai.money.ledger import Ledger
from butterbase.sql.pipeline import Executor
from tests.ai.money.conftest import ADMISSION

async def main():
    ledger = Ledger(Executor(sys.argv[1]), default_plan="enterprise")
    await ledger.beat()
    for _ in range(10):
        await ledger.admit(uuid4(), ADMISSION)
    print("admitted", flush=True)
    await ledger.run()

asyncio.run(main())
"""


async def test_a_worker_that_is_killed_in_the_middle_of_its_calls(books: Books) -> None:
    books.put_budgets({"limit_nanos": 10 * NANO})
    worker = subprocess.Popen(  # noqa: ASYNC220
        [sys.executable, "-c", KILLED, as_role(books.database, SERVICE)],
        env={"PYTHONPATH": ":".join(path for path in sys.path if path)},
        stdout=subprocess.PIPE,
    )
    try:
        assert worker.stdout is not None
        assert await asyncio.to_thread(worker.stdout.readline) == b"admitted\n"
    finally:
        worker.kill()
        worker.wait()
        worker.stdout.close()  # type: ignore[union-attr]
    assert [row[3:] for row in books.periods()] == [(0, 10 * NANO)]
    assert await sweep_twice(books) == 10
    await books.project()
    assert [row[3:] for row in books.periods()] == [(0, 0)]
    await books.admit()


async def test_counters_that_nobody_needs_any_more_are_deleted(books: Books) -> None:
    books.put_budgets(
        {"limit_nanos": 0, "period": "day"},
        {"limit_nanos": 0, "period": "month"},
        {"limit_nanos": 0, "period": "lifetime"},
    )
    books.execute(
        "insert into butterbase.ai_budget_periods (budget_id, subject, starts_on)"
        " select b.id, '', d::date from butterbase.ai_budgets b,"
        " unnest(array[current_date, current_date - 41, current_date - 401]) d"
    )
    books.execute(
        "insert into butterbase.ai_budget_periods (budget_id, subject, starts_on)"
        " values (0, '', current_date)"
    )
    books.execute(
        "insert into butterbase.ai_limit_buckets (limit_id, subject, requests_until, tokens_until)"
        " values (1, 'old', now() - interval '2 hours', '-infinity'), (1, 'new', now(), now())"
    )
    async with await AsyncConnection.connect(
        as_role(books.database, STREAM), autocommit=True
    ) as conn:
        await tidy(conn)
    kept = books.execute(
        "select b.period, count(*) from butterbase.ai_budget_periods p"
        " left join butterbase.ai_budgets b on b.id = p.budget_id group by 1 order by 1"
    )
    assert kept == [("day", 1), ("lifetime", 3), ("month", 2)]
    assert books.execute("select subject from butterbase.ai_limit_buckets") == [("new",)]


async def test_the_sweeper_runs_again_when_the_database_was_away(
    books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("butterbase.projections.sweeper.SWEEP_S", 0.01)
    sweeper = Sweeper(as_role(books.database, STREAM), liveness=Liveness(lost_after_s=0.2))
    await books.admit()
    running = asyncio.create_task(sweeper.run())
    await asyncio.sleep(0)
    books.execute(
        "select pg_terminate_backend(pid) from pg_stat_activity"
        " where datname = %s and pid <> pg_backend_pid()",
        books.database.name,
    )
    await until(lambda: bool(lost_events(books)))
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
