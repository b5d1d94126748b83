"""A projection is stuck while changes pass: nobody else notices, and it misses none.

BUTTERBASE_FUZZ_ROUNDS=20 makes it a million changes.
"""

import os
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import pytest
from psycopg import AsyncConnection

from butterbase.cli.setup import set_up
from butterbase.projections.status import ProjectionStatus, StreamStatus
from tests.installation import Installation
from tests.projections.ledger import Ledger
from tests.realtime.resuming import EVENTS as EVENTS_TABLE
from tests.realtime.resuming import read
from tests.scenarios.processes import StreamProcesses
from tests.scenarios.resuming_client import ResumingClient
from tests.scenarios.stream_process import EVENTS, NAMES
from tests.scenarios.test_stream_killed import listening
from tests.waiting import until

ROUNDS = int(os.environ.get("BUTTERBASE_FUZZ_ROUNDS", "4"))
ROWS = 50_000
"""Of a round, in one commit."""

GROWTH_BYTES_MAX = 300 * 1024**2
"""Of the process's memory. The replay window has a quarter of it, and what was decoded is garbage
for a while; a million changes are four times as much."""

PATIENCE_S = 120.0

STUCK, FREE = NAMES
TOTALS = """
select count(*), count(distinct id), coalesce(bool_and(follows), true)
from (select id, id > lag(id, 1, 0) over (order by place) as follows from public.{}) ledger
"""


@pytest.fixture
def processes(
    installation: Installation, control: AsyncConnection, tmp_path: Path
) -> Iterator[StreamProcesses]:
    processes = StreamProcesses(
        installation, control, tmp_path, main="tests.scenarios.stream_process"
    )
    yield processes
    processes.stop()


async def test_a_stuck_projection_costs_nobody_anything_and_misses_nothing(
    installation: Installation,
    control: AsyncConnection,
    main: AsyncConnection,
    processes: StreamProcesses,
    tmp_path: Path,
) -> None:
    installation.as_owner(EVENTS_TABLE)
    await main.execute("alter table public.events disable row level security")
    await main.execute("grant select on public.events to butterbase_stream")
    for name in NAMES:
        await main.execute(Ledger(name, EVENTS).make.encode())
    await set_up(installation.cluster, database=installation.main.name)  # its slots
    processes.start()
    pid = await processes.leader()
    began_at, _ = await read(installation.main.dsn)
    async with (
        listening(installation, tmp_path, str(began_at), filter="body=eq.seen") as clients,
        await AsyncConnection.connect(installation.main.dsn) as lock,
    ):
        await until(lambda: all(client.is_joined for client in clients))
        await until(lambda: are_told(control, NAMES))  # both are in step
        await lock.execute(f"lock table public.{STUCK} in access exclusive mode".encode())
        before = memory_bytes(pid, "VmRSS")
        for number in range(1, ROUNDS + 1):
            installation.as_owner(
                f"insert into events (body) select 'a' from generate_series(1, {ROWS - 1});"  # noqa: S608
                "insert into events (body) values ('seen')"
            )
            await until(partial(have, clients, number), PATIENCE_S)
        assert memory_bytes(pid, "VmHWM") - before < GROWTH_BYTES_MAX
        await until(lambda: is_applied(main, FREE), PATIENCE_S)
        stuck = (await projections(control))[STUCK]
        assert stuck.is_behind
        assert stuck.lag_s > 0
        await lock.rollback()
        await until(lambda: is_applied(main, STUCK), PATIENCE_S)
        assert [client.ids for client in clients] == [
            [n * ROWS for n in range(1, ROUNDS + 1)] for _ in clients
        ]
        assert all(client.join_count == 1 for client in clients)
    for name in NAMES:
        assert await totals(main, name) == (ROUNDS * ROWS, ROUNDS * ROWS, True)
    growth = memory_bytes(pid, "VmHWM") - before
    print(f"{ROUNDS * ROWS} changes, {growth / 1024**2:.0f} MiB more memory")  # noqa: T201
    assert growth < GROWTH_BYTES_MAX


def have(clients: Sequence[ResumingClient], count: int) -> bool:
    return all(len(client.ids) == count for client in clients)


async def totals(conn: AsyncConnection, name: str) -> tuple[Any, ...]:
    """Rows, distinct ids, and whether they are in order."""
    row = await (await conn.execute(TOTALS.format(name).encode())).fetchone()
    assert row is not None
    return row


async def is_applied(conn: AsyncConnection, name: str) -> bool:
    last = f"select from public.{name} where id = {ROUNDS * ROWS}"
    return (await conn.execute(last.encode())).rowcount == 1


async def projections(control: AsyncConnection) -> dict[str, ProjectionStatus]:
    """By name, as the process tells them."""
    cursor = await control.execute("select status::text from butterbase.streams")
    statuses = [msgspec.json.decode(text, type=StreamStatus) for (text,) in await cursor.fetchall()]
    return {each.name: each for s in statuses for log in s.logs for each in log.projections}


async def are_told(control: AsyncConnection, names: tuple[str, ...]) -> bool:
    return {*names} <= {*await projections(control)}


def memory_bytes(pid: int, what: str) -> int:
    """`VmRSS`: at present; `VmHWM`: at most so far."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == what:
            return int(rest.split()[0]) * 1024
    raise AssertionError(f"no {what}")
