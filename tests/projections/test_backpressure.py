"""A projection that is slow or stuck, and the others, who do not notice."""

from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN
from butterbase.ingest.slot import ensure_publication, ensure_slot
from butterbase.projections.backlog import Limits
from butterbase.projections.runner import ProjectionRunner
from tests.installation import Installation
from tests.projections.following import log_of, reading
from tests.projections.ledger import Ledger, written
from tests.waiting import until

ITEMS = ("public", "items")
SMALL = Limits(change_count_max=100, batch_change_count_max=50)


class Counter:
    """A reader beside it, such as realtime is."""

    def __init__(self) -> None:
        self.count = 0

    async def deliver(self, commit: Commit) -> None:
        self.count += sum(1 for _ in commit.changes_of(ITEMS))

    def position(self) -> LSN | None:
        return None


@pytest.fixture
async def conn(installation: Installation) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn:
        await conn.execute(
            "create table public.items (id bigint primary key);"
            "alter table public.items disable row level security;"
            "grant select on public.items to butterbase_stream"
        )
        await ensure_publication(conn, "butterbase", schemas=["public"])
        await ensure_slot(conn, installation.main.name)
        yield conn


async def insert(conn: AsyncConnection, first: int, count: int, *, rows: int = 1) -> None:
    """`count` commits of so many rows."""
    for start in range(first, first + count * rows, rows):
        await conn.execute(
            "insert into public.items select generate_series(%s::bigint, %s)",
            [start, start + rows - 1],
        )


async def test_a_stuck_projection_stops_nobody_and_then_misses_nothing(
    conn: AsyncConnection, installation: Installation
) -> None:
    ledger, other = Ledger("ledger", ITEMS), Counter()
    await conn.execute(ledger.make.encode())
    ledger.is_open.clear()
    runner = ProjectionRunner(
        ledger, log_of(installation.cluster, installation.main.name), limits=SMALL
    )
    async with reading(log_of(installation.cluster, installation.main.name), runner, other):
        await insert(conn, 0, 1000)
        await until(lambda: other.count == 1000)
        assert runner.backlog.is_behind
        assert 0 < runner.backlog.waiting_change_count <= SMALL.change_count_max
        ledger.is_open.set()

        async def is_in_step() -> bool:
            return len(await written(conn, ledger)) >= 1000 and runner.position() is None

        await until(is_in_step)
        await insert(conn, 1000, 10)
        await until(lambda: other.count == 1010)
        await until(lambda: runner.position() is None)
    assert await written(conn, ledger) == list(range(1010))


async def test_a_projection_slower_than_the_log_comes_into_step_by_turns(
    conn: AsyncConnection, installation: Installation
) -> None:
    """Commits come while it reads again, more than it has room for, and it fails now and then."""
    ledger, other = Ledger("ledger", ITEMS), Counter()
    await conn.execute(ledger.make.encode())
    runner = ProjectionRunner(
        ledger,
        log_of(installation.cluster, installation.main.name),
        limits=Limits(change_count_max=5, batch_change_count_max=2),
    )
    async with reading(log_of(installation.cluster, installation.main.name), runner, other):
        for first in range(0, 1500, 100):
            ledger.failure = RuntimeError("now and then") if first % 500 == 0 else None
            await insert(conn, first, 50, rows=2)
        ledger.failure = None
        await until(lambda: other.count == 1500)
        await until(lambda: runner.position() is None)
    assert await written(conn, ledger) == list(range(1500))


async def test_what_is_behind_survives_the_process(
    conn: AsyncConnection, installation: Installation
) -> None:
    ledger, other = Ledger("ledger", ITEMS), Counter()
    await conn.execute(ledger.make.encode())
    ledger.is_open.clear()
    runner = ProjectionRunner(
        ledger, log_of(installation.cluster, installation.main.name), limits=SMALL
    )
    async with reading(
        log_of(installation.cluster, installation.main.name), runner, other
    ) as consumer:
        await insert(conn, 0, 500)
        await until(lambda: other.count == 500)
        acknowledged = consumer.acknowledged
        assert runner.backlog.is_behind
    ledger.is_open.set()
    runner = ProjectionRunner(
        ledger, log_of(installation.cluster, installation.main.name), limits=SMALL
    )
    async with reading(log_of(installation.cluster, installation.main.name), runner) as consumer:

        async def is_in_step() -> bool:
            return len(await written(conn, ledger)) >= 500 and runner.position() is None

        await until(is_in_step)
        assert consumer.acknowledged > acknowledged
    assert await written(conn, ledger) == list(range(500))


async def test_what_comes_in_the_pause_after_a_transaction_waits_and_is_held_in_the_log(
    conn: AsyncConnection, installation: Installation
) -> None:
    log = log_of(installation.cluster, installation.main.name)
    ledger, other = Ledger("ledger", ITEMS), Counter()
    await conn.execute(ledger.make.encode())
    applied: list[None] = []
    runner = ProjectionRunner(ledger, log, on_applied=lambda: applied.append(None), pause_s=3600)
    async with reading(log, runner, other) as consumer:
        await until(lambda: len(applied) == 1)  # the table was read, and is empty
        await insert(conn, 0, 1)
        await until(lambda: len(applied) == 2)  # and the pause has begun
        await insert(conn, 1, 10)
        await until(lambda: other.count == 11 and runner.backlog.waiting_change_count == 10)
        position = runner.position()
        assert position is not None
        assert consumer.acknowledged <= position
    assert await written(conn, ledger) == [0]
    runner = ProjectionRunner(ledger, log)
    async with reading(log, runner):

        async def are_all_written() -> bool:
            return len(await written(conn, ledger)) >= 11

        await until(are_all_written)
    assert await written(conn, ledger) == list(range(11))
