"""The log tells a commit before it is visible: what is derived from it waits until it is."""

import asyncio
from collections.abc import Iterable

import pytest
from psycopg import AsyncConnection

from butterbase.ingest.slot import ensure_slot
from butterbase.projections.runner import ProjectionRunner
from tests.installation import Installation
from tests.projections.following import log_of, reading
from tests.projections.ledger import Ledger, written
from tests.waiting import until


@pytest.fixture
def installation(installation_alone: Installation) -> Installation:
    """Commits of the whole server hang."""
    return installation_alone


@pytest.fixture
async def main(installation: Installation, main: AsyncConnection) -> AsyncConnection:
    """With a slot."""
    await ensure_slot(main, installation.main.name)
    return main


async def test_a_commit_that_postgres_does_not_show_is_not_applied(
    installation: Installation, main: AsyncConnection
) -> None:
    """The log may tell a commit long before it is visible, with synchronous replication."""
    await main.execute(
        "create table public.items (id bigint primary key);"
        "alter table public.items disable row level security;"
        "grant select on public.items to butterbase_stream"
    )
    ledger = Ledger("ledger", ("public", "items"))
    await main.execute(ledger.make.encode())
    log = log_of(installation.cluster, installation.main.name)
    runner = ProjectionRunner(ledger, log)
    async with reading(log, runner):
        # Its first start waits for open transactions, and the one that hangs stays open.
        await main.execute("insert into public.items values (-2)")
        await until(lambda: _is_written(main, ledger, [-2]))
        async with await AsyncConnection.connect(installation.main.dsn) as slow:
            await slow.execute("set synchronous_commit = on")
            await slow.commit()
            await main.execute("alter system set synchronous_standby_names = 'nobody'")
            await main.execute("select pg_reload_conf()")
            try:
                number, committing = await _hang(slow, main)
                await main.execute("insert into public.items values (-1)")  # this one is visible
                # The one that waits, and this one behind it.
                await until(lambda: runner.backlog.waiting_change_count >= 2)
                await until(lambda: _is_written(main, ledger, [-2, *range(number)]))
            finally:
                await main.execute("alter system reset synchronous_standby_names")
                await main.execute("select pg_reload_conf()")
            await committing
        await until(lambda: _is_written(main, ledger, [-2, *range(number + 1), -1]))


async def _hang(slow: AsyncConnection, main: AsyncConnection) -> tuple[int, "asyncio.Task[None]"]:
    """Insert numbers until the commit of one waits for a standby; that number."""
    waits = "select from pg_stat_activity where pid = %s and wait_event = 'SyncRep'"
    for number in range(1000):  # processes of the server hear of the setting one after the other
        await slow.execute("insert into public.items values (%s)", [number])
        committing = asyncio.create_task(slow.commit())

        async def is_over_or_waits(task: "asyncio.Task[None]" = committing) -> bool:
            waiting = await main.execute(waits, [slow.info.backend_pid])
            return task.done() or waiting.rowcount == 1

        await until(is_over_or_waits)
        if not committing.done():
            return number, committing
    raise AssertionError("no commit waits")


async def _is_written(conn: AsyncConnection, ledger: Ledger, ids: Iterable[int]) -> bool:
    return await written(conn, ledger) == list(ids)
