"""Money while the stream process is killed, again and again, in the middle of calls."""

import asyncio
import random
from pathlib import Path
from uuid import uuid4

import msgspec
from psycopg import AsyncConnection

from butterbase.ai.money.errors import BudgetExceededError
from butterbase.ai.money.journal import Settlement
from butterbase.ai.money.ledger import Admitted, Ledger
from butterbase.ai.money.reconcile import differences
from butterbase.cli.setup import set_up, slot_name
from butterbase.sql.cluster import LoginRole
from butterbase.sql.pipeline import Executor
from tests.ai.money.conftest import ADMISSION, CALL, NANO
from tests.installation import Installation
from tests.processes import running, start
from tests.waiting import until

CALL_COUNT = 1000
ADMITTED_COUNT = 100
KILL_COUNT = 6

ACTIVE = "select from pg_replication_slots where slot_name = %s and active"
PUT_BUDGETS = """
select butterbase.ai_put_budgets('main', '{app,user}', jsonb_build_array(
  jsonb_build_object('scope', 'app', 'period', 'lifetime', 'action', 'block',
    'limit_nanos', %s::bigint, 'alert_percents', array[50, 80])))
"""


async def one_call(ledger: Ledger, chance: random.Random) -> bool:
    """Whether it was admitted; it costs something up to its bound, after a while."""
    call_id = uuid4()
    try:
        verdict = await ledger.admit(call_id, ADMISSION)
    except BudgetExceededError:
        return False
    assert isinstance(verdict, Admitted)
    await asyncio.sleep(chance.uniform(0, 0.5))
    cost = chance.randint(0, NANO)
    call = msgspec.structs.replace(CALL, cost_nanos=cost, admitted_at=verdict.at)
    assert await ledger.settle(Settlement(call_id, "main", "authenticated", None, "r", call))
    return True


async def test_spent_is_the_sum_of_the_events_however_often_the_stream_is_killed(
    installation: Installation, tmp_path: Path
) -> None:
    """Waves of calls, until nothing is left that would have room for one more."""
    seed = random.randrange(1_000_000)  # noqa: S311  guards nothing
    print("seed", seed)  # noqa: T201  shown when the test fails
    chance = random.Random(seed)  # noqa: S311  guards nothing
    cluster = installation.cluster
    await set_up(cluster, database=installation.main.name)  # its slots
    control = Executor(cluster.dsn(LoginRole.SERVICE, cluster.control_database))
    checking = Executor(cluster.dsn(LoginRole.STREAM, cluster.control_database))
    ledger = Ledger(control, default_plan="enterprise")
    limit = ADMITTED_COUNT * NANO

    async with await AsyncConnection.connect(installation.control.dsn, autocommit=True) as conn:
        await conn.execute(PUT_BUDGETS, [limit])

        async def is_active() -> bool:
            cursor = await conn.execute(ACTIVE, [slot_name(cluster.control_database)])
            return await cursor.fetchone() is not None

        async def kept() -> tuple[int, int]:
            cursor = await conn.execute(
                "select spent_nanos, reserved_nanos from butterbase.ai_budget_periods"
            )
            row = await cursor.fetchone()
            assert row is not None
            assert sum(row) <= limit
            return row[0], row[1]

        async def is_settled() -> bool:
            return (await kept())[1] == 0

        calls = [asyncio.create_task(one_call(ledger, chance)) for _ in range(CALL_COUNT)]
        for _ in range(KILL_COUNT):
            process = start("stream", installation, tmp_path)
            await until(is_active)
            calls += [asyncio.create_task(one_call(ledger, chance)) for _ in range(50)]
            await asyncio.sleep(chance.uniform(0, 0.4))
            process.kill()
            process.wait()
            await kept()
        admitted = await asyncio.gather(*calls)
        with running("stream", installation, tmp_path):
            await until(is_settled)
        spent, reserved = await kept()
        cursor = await conn.execute(
            "select sum((data ->> 'cost_nanos')::bigint), count(*) from butterbase.events"
            " where type = 'ai.call'"
        )
        assert await cursor.fetchone() == (spent, sum(admitted))
        assert sum(admitted) >= ADMITTED_COUNT
        assert reserved == 0
        cursor = await conn.execute(
            "select data ->> 'percent' from butterbase.events where type = 'ai.budget.alert'"
            " order by id"
        )
        passed = [percent for percent in (50, 80) if spent * 100 >= limit * percent]
        assert [int(row[0]) for row in await cursor.fetchall()] == passed
        assert await differences(checking) == []
    await control.close()
    await checking.close()
