"""DDL in an app's log becomes a notification in the control database."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

from psycopg import AsyncConnection

from butterbase.ingest.changes import DDL_PREFIX, Commit, LogicalMessage
from butterbase.ingest.lsn import LSN
from butterbase.projections.schema_announcer import CHANNEL, SchemaAnnouncer
from tests.postgres import Database


def commit(prefix: str) -> Commit:
    return Commit(
        LSN(1), datetime(2026, 1, 1, tzinfo=UTC), 7, (LogicalMessage(prefix, b"CREATE TABLE"),)
    )


async def test_ddl_is_announced_and_other_commits_are_not(database: Database) -> None:
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        await conn.execute(f"listen {CHANNEL}")
        heard = conn.notifies()
        announcer = SchemaAnnouncer("main", database.dsn)
        running = asyncio.create_task(announcer.run())
        try:
            # What changed while nobody read the log is announced at the start.
            assert (await anext(heard)).payload == "main"
            await announcer.deliver(commit("something.else"))
            await announcer.deliver(commit(DDL_PREFIX))
            assert (await anext(heard)).payload == "main"
            await heard.aclose()
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
        assert announcer.position() is None
        assert [n async for n in conn.notifies(timeout=0)] == []  # one commit, one word
