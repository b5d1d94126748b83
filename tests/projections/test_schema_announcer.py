"""DDL in an app's log becomes a notification in the control database."""

import asyncio
from contextlib import suppress
from datetime import UTC, datetime

import pytest
from psycopg import AsyncConnection

from butterbase.ingest.changes import DDL_PREFIX, Commit, LogicalMessage
from butterbase.ingest.lsn import LSN
from butterbase.projections import schema_announcer
from butterbase.projections.schema_announcer import CHANNEL, SchemaAnnouncer
from tests.postgres import Database
from tests.waiting import until


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


async def test_no_connection_is_held_while_there_is_nothing_to_say(database: Database) -> None:
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:

        async def is_alone() -> bool:
            asked = await conn.execute(
                "select count(*) from pg_stat_activity"
                " where datname = current_database() and pid <> pg_backend_pid()"
            )
            return await asked.fetchone() == (0,)

        await conn.execute(f"listen {CHANNEL}")
        heard = conn.notifies()
        announcer = SchemaAnnouncer("main", database.dsn)
        running = asyncio.create_task(announcer.run())
        try:
            assert (await anext(heard)).payload == "main"
            await heard.aclose()
            await until(is_alone)
        finally:
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running


async def test_what_could_not_be_announced_is_announced_later(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(schema_announcer, "RETRY_S", 0)
    announcer = SchemaAnnouncer("main", "host=127.0.0.1 port=1")
    running = asyncio.create_task(announcer.run())
    try:
        async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
            await conn.execute(f"listen {CHANNEL}")
            announcer._control_dsn = database.dsn
            heard = conn.notifies()
            assert (await anext(heard)).payload == "main"
            await heard.aclose()
    finally:
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running
