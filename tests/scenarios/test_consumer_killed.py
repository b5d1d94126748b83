"""The stream process is killed, again and again, while events are written."""

import asyncio
import random
from contextlib import suppress
from pathlib import Path
from typing import Any

from psycopg import AsyncConnection

from butterbase.cli.setup import set_up, slot_name
from tests.installation import Installation
from tests.processes import running, start
from tests.waiting import until

KILL_COUNT = 20

WRITE = """
insert into butterbase.events (app_id, type, user_id, role, data)
select 'main', 'ai.call',
  case when i %% 3 = 0 then null
    else format('00000000-0000-0000-0000-%%s', lpad(i::text, 12, '0'))::uuid end,
  'authenticated',
  jsonb_build_object('endpoint', 'chat/completions', 'provider', 'p', 'model', 'm' || i %% 2,
    'stream', false, 'status', case when i %% 5 = 0 then 'failed' else 'ok' end,
    'http_status', 200, 'error_code', null, 'prompt_tokens', i, 'completion_tokens', 2 * i,
    'total_tokens', 3 * i, 'cached_tokens', 0, 'reasoning_tokens', 0,
    'usage_source', 'reported', 'latency_ms', 1, 'first_token_ms', null)
from generate_series(1, %s) i
"""

# What the projection should hold, computed from the events alone.
EXPECTED = """
select (at at time zone 'utc')::date, user_id, data ->> 'model', count(*),
  count(*) filter (where data ->> 'status' <> 'ok'),
  sum((data ->> 'prompt_tokens')::bigint), sum((data ->> 'completion_tokens')::bigint)
from butterbase.events group by 1, 2, 3 order by 1, 2, 3
"""
PROJECTED = """
select day, user_id, model, requests, failures, prompt_tokens, completion_tokens
from butterbase.usage order by 1, 2, 3
"""
ACTIVE = "select from pg_replication_slots where slot_name = %s and active"


async def write(dsn: str, chance: random.Random) -> None:
    """Commits of different sizes, some rolled back, until cancelled."""
    async with await AsyncConnection.connect(dsn) as conn:
        while True:
            await conn.execute(WRITE, [chance.randint(1, 12)])
            await (conn.rollback() if chance.random() < 0.2 else conn.commit())
            await asyncio.sleep(0.001)


async def test_usage_equals_the_events(installation: Installation, tmp_path: Path) -> None:
    seed = random.randrange(1_000_000)  # noqa: S311  guards nothing
    print("seed", seed)  # noqa: T201  shown when the test fails
    chance = random.Random(seed)  # noqa: S311  guards nothing
    dsn = installation.control.dsn
    await set_up(installation.cluster, database=installation.main.name)  # its slots
    writer = asyncio.create_task(write(dsn, chance))
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:

        async def is_active() -> bool:
            cursor = await conn.execute(ACTIVE, [slot_name(installation.control.name)])
            return await cursor.fetchone() is not None

        for _ in range(KILL_COUNT):
            process = start("stream", installation, tmp_path)
            await until(is_active)
            await asyncio.sleep(chance.uniform(0, 0.3))
            process.kill()
            process.wait()
        writer.cancel()
        with suppress(asyncio.CancelledError):
            await writer

        async def fetch(query: str) -> list[tuple[Any, ...]]:
            return await (await conn.execute(query.encode())).fetchall()

        async def is_caught_up() -> bool:
            (counted,), (written,) = (
                await fetch("select coalesce(sum(requests), 0) from butterbase.usage"),
                await fetch("select count(*) from butterbase.events"),
            )
            assert counted[0] <= written[0], "an event was counted twice"
            return counted == written

        with running("stream", installation, tmp_path):
            await until(is_caught_up)
            # One event more: whatever would come twice comes before it.
            await conn.execute(WRITE, [1])
            await until(is_caught_up)
        expected = await fetch(EXPECTED)
        assert sum(row[3] for row in expected) > 100
        assert await fetch(PROJECTED) == expected
