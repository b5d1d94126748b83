"""Many admissions at once: no budget is exceeded, and none waits for what waits for it."""

import asyncio
import multiprocessing
import random
from concurrent.futures import ProcessPoolExecutor
from uuid import UUID, uuid4

import msgspec
from psycopg import AsyncConnection

from butterbase.ai.money.errors import BudgetExceededError
from butterbase.ai.money.ledger import Admitted, Ledger
from butterbase.ai.money.reconcile import differences
from butterbase.sql.pipeline import Executor
from tests.ai.money.conftest import ADMISSION, KEY, NANO, SERVICE, STREAM, WAITING, Books, as_role
from tests.waiting import until

PROCESS_COUNT = 4
CALL_COUNT = 1000
USERS = [UUID(int=number) for number in range(1, 6)]


def admit_in_a_process(dsn: str, count: int, seed: int) -> list[UUID]:
    """The calls that were admitted."""
    return asyncio.run(admit_many(dsn, count, random.Random(seed)))  # noqa: S311  guards nothing


async def admit_many(dsn: str, count: int, chance: random.Random) -> list[UUID]:
    executor = Executor(dsn, connection_count_max=4)
    ledger = Ledger(executor, default_plan="enterprise")

    async def admit() -> UUID | None:
        call_id = uuid4()
        admission = msgspec.structs.replace(
            ADMISSION,
            user_id=chance.choice(USERS),
            key_id=chance.choice((None, KEY)),
            models=tuple(chance.sample(("m", "n", "o"), chance.randint(1, 3))),
        )
        try:
            assert isinstance(await ledger.admit(call_id, admission), Admitted)
        except BudgetExceededError:
            return None
        return call_id

    try:
        admitted = await asyncio.gather(*(admit() for _ in range(count)))
    finally:
        await executor.close()
    return [call_id for call_id in admitted if call_id is not None]


async def admit_in_processes(books: Books) -> list[UUID]:
    loop = asyncio.get_running_loop()
    context = multiprocessing.get_context("spawn")
    share, dsn = CALL_COUNT // PROCESS_COUNT, as_role(books.database, SERVICE)
    with ProcessPoolExecutor(PROCESS_COUNT, mp_context=context) as pool:
        parts = await asyncio.gather(
            *(
                loop.run_in_executor(pool, admit_in_a_process, dsn, share, seed)
                for seed in range(PROCESS_COUNT)
            )
        )
    return [call_id for part in parts for call_id in part]


async def assert_reconciled(books: Books) -> None:
    executor = Executor(as_role(books.database, STREAM), connection_count_max=1)
    try:
        assert await differences(executor) == []
    finally:
        await executor.close()


async def test_a_budget_for_a_hundred_admits_a_hundred_of_a_thousand(books: Books) -> None:
    books.put_budgets({"limit_nanos": 100 * NANO})
    admitted = await admit_in_processes(books)
    assert len(admitted) == 100
    assert [row[3:] for row in books.periods()] == [(0, 100 * NANO)]
    costs = [random.randint(0, NANO) for _ in admitted]  # noqa: S311  guards nothing
    for call_id, cost in zip(admitted, costs, strict=True):
        await books.settle(call_id, cost)
    await books.project()
    assert [row[3:] for row in books.periods()] == [(sum(costs), 0)]
    await assert_reconciled(books)


OVERLAPPING: list[dict[str, object]] = [
    {"limit_nanos": 300 * NANO},
    {"limit_nanos": 200 * NANO, "period": "day"},
    {"scope": "user", "limit_nanos": 50 * NANO, "period": "month"},
    {"scope": "key", "limit_nanos": 100 * NANO, "period": "day"},
    {"scope": "model", "limit_nanos": 120 * NANO, "period": "month"},
    {"scope": "model", "subject": "n", "limit_nanos": 60 * NANO, "period": "lifetime"},
]


async def test_overlapping_budgets_never_wait_for_each_other(books: Books) -> None:
    """While calls are admitted in several processes, others end, and budgets come and go."""
    books.put_budgets(*OVERLAPPING)
    books.put_budgets({"scope": "global", "limit_nanos": 150 * NANO}, app_id=None)
    books.execute(
        "insert into butterbase.ai_limits (app_id, scope, requests_per_minute, tokens_per_minute)"
        " values ('main', 'app', 1000000, 1000000000), ('main', 'user', 1000000, 1000000000),"
        " ('main', 'model', null, 1000000000)"
    )
    settled: set[UUID] = set()

    async def settle_running() -> None:
        rows = books.execute("select call_id from butterbase.ai_reservations")
        for (call_id,) in rows:
            if call_id not in settled:
                settled.add(call_id)
                await books.settle(call_id, random.randint(0, NANO // 10))  # noqa: S311
        await books.project()

    async def disturb() -> None:
        turn = 0
        while True:
            await settle_running()
            turn += 1
            await asyncio.to_thread(books.put_budgets, *OVERLAPPING[: 2 + turn % 5])

    disturbing = asyncio.create_task(disturb())
    admitted = await admit_in_processes(books)
    disturbing.cancel()
    await asyncio.gather(disturbing, return_exceptions=True)
    assert disturbing.cancelled()
    books.put_budgets(*OVERLAPPING)
    await settle_running()
    await books.project()
    assert len(admitted) >= 150
    rows = books.periods()
    assert sum(row[3] for row in rows) > 0
    assert {row[4] for row in rows} == {0}
    await assert_reconciled(books)


async def test_a_waiting_admission_sees_what_was_taken_before_it(books: Books) -> None:
    """It read the row before it waited for the row's lock."""
    books.put_budgets({"limit_nanos": NANO})
    await books.admit(nanos=0)  # the row is there
    async with await AsyncConnection.connect(books.database.dsn) as conn:
        await conn.execute("update butterbase.ai_budget_periods set reserved_nanos = 1")
        waiting = asyncio.create_task(books.admit())
        await until(lambda: bool(books.execute(WAITING, books.database.name)))
        await conn.commit()
        (refused,) = await asyncio.gather(waiting, return_exceptions=True)
    assert isinstance(refused, BudgetExceededError)
    assert refused.refusal.reserved_nanos == 1
