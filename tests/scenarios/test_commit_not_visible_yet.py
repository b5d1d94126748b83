"""A commit is in the log and not visible yet: who reads now and subscribes from there gets it."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest
from psycopg import AsyncConnection

from tests.installation import Installation
from tests.realtime.resuming import EVENTS, Listener, read
from tests.realtime.streaming import ALICE, BOB, streaming, user_claims
from tests.waiting import until

INSERT = "insert into events (body) values ('held')"


@pytest.fixture
def installation(installation_alone: Installation) -> Installation:
    """Commits of the whole server hang."""
    installation_alone.as_owner(EVENTS)
    return installation_alone


@asynccontextmanager
async def held_commit(installation: Installation, statement: str) -> AsyncIterator[None]:
    """A transaction that is committed and waits for a standby which is not there."""
    with psycopg.connect(installation.cluster.admin_dsn(), autocommit=True) as admin:
        admin.execute("alter system set synchronous_standby_names = 'nobody'")
        admin.execute("select pg_reload_conf()")
        async with await AsyncConnection.connect(installation.owner_dsn, autocommit=True) as conn:
            await conn.execute("set synchronous_commit to on")
            await until(lambda: shows(installation, "synchronous_standby_names", "nobody"))
            held = asyncio.create_task(conn.execute(statement.encode()))
            try:
                await until(lambda: is_waiting(admin))
                yield
            finally:
                admin.execute("alter system reset synchronous_standby_names")
                admin.execute("select pg_reload_conf()")
                await held


def shows(installation: Installation, name: str, value: str) -> bool:
    with psycopg.connect(installation.cluster.admin_dsn()) as conn:
        return conn.execute("select current_setting(%s)", [name]).fetchone() == (value,)


def is_waiting(admin: psycopg.Connection) -> bool:
    query = "select exists (select from pg_stat_activity where wait_event = 'SyncRep')"
    return admin.execute(query).fetchone() == (True,)


async def test_who_does_not_see_it_is_told_and_who_sees_it_is_not(
    installation: Installation,
) -> None:
    async with streaming(installation) as stream:
        first, reader, joiner, later = (Listener() for _ in range(4))
        await first.open(stream.hub)
        async with held_commit(installation, INSERT):
            await until(lambda: first.ids == [1])
            reader.position, rows = await read(installation.owner_dsn)
            assert rows == []
            assert first.position is not None
            assert reader.position.lsn >= first.position.lsn, "its record lies before the read"
            await reader.open(stream.hub)
            await joiner.open(stream.hub)
            await until(lambda: reader.ids == joiner.ids == [1])
        later.position, rows = await read(installation.owner_dsn)
        assert rows == [1]
        await later.open(stream.hub)
        installation.as_owner("insert into events (body) values ('next')")
        listeners = (first, reader, joiner, later)
        await until(lambda: all(2 in one.ids for one in listeners))
        assert [one.ids for one in listeners] == [[1, 2], [1, 2], [1, 2], [2]]


async def test_a_policy_that_is_not_visible_yet_is_waited_for(installation: Installation) -> None:
    installation.as_owner("create policy open on events for select using (true)")
    async with streaming(installation) as stream:
        user, other = (Listener(user_claims(id_)) for id_ in (ALICE, BOB))
        await user.open(stream.hub)
        installation.as_owner(INSERT)
        await until(lambda: user.ids == [1])
        before = stream.hub.tail
        async with held_commit(installation, "alter policy open on events using (id > 2)"):
            await until(lambda: stream.hub.tail > before)
            joining = asyncio.create_task(other.open(stream.hub))
            await asyncio.wait({joining}, timeout=0.2)
        await joining  # what it had read before would be kept
        installation.as_owner(f"{INSERT}; {INSERT}")
        await until(lambda: user.ids == [1, 3])
        await until(lambda: other.ids == [3])
