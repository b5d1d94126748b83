"""Publications and slots, on a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection

from butterbase.ingest.errors import PublicationError, SlotError
from butterbase.ingest.slot import ensure_publication, ensure_slot
from butterbase.sql.errors import DatabaseUnavailableError
from tests.ingest.conftest import Capture, Recorder
from tests.postgres import Database, Databases

PUBLISHED = (
    "select schemaname, tablename from pg_publication_tables where pubname = %s order by 1, 2"
)

VERSIONS = """
    select xmin::text from pg_publication
    union all select xmin::text from pg_publication_rel
    union all select xmin::text from pg_publication_namespace
"""


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        await conn.execute(
            "create schema a; create table a.one (); create table a.two ();"
            'create schema "B ""b"; create table "B ""b"."T t" (); create table "B ""b".other ()'
        )
        yield conn


async def published(conn: AsyncConnection, name: str) -> list[tuple[str, str]]:
    rows = await (await conn.execute(PUBLISHED, [name])).fetchall()
    return [(schema, table) for schema, table in rows]


async def test_a_publication_tells_of_schemas_and_tables(conn: AsyncConnection) -> None:
    name = 'our "log"'
    await ensure_publication(conn, name, schemas=["a"], tables=[('B "b', "T t")])
    assert await published(conn, name) == [('B "b', "T t"), ("a", "one"), ("a", "two")]
    await conn.execute("create table a.later ()")
    assert ("a", "later") in await published(conn, name)


async def test_a_publication_becomes_exactly_what_is_wanted(conn: AsyncConnection) -> None:
    await conn.execute("create publication p for tables in schema a")
    await ensure_publication(conn, "p", schemas=['B "b'], tables=[("a", "one")])
    assert await published(conn, "p") == [('B "b', "T t"), ('B "b', "other"), ("a", "one")]
    await ensure_publication(conn, "p", tables=[("a", "two")])
    assert await published(conn, "p") == [("a", "two")]


async def test_a_publication_that_fits_is_not_touched(conn: AsyncConnection) -> None:
    await ensure_publication(conn, "p", schemas=["a"], tables=[('B "b', "T t")])
    before = await (await conn.execute(VERSIONS)).fetchall()
    await ensure_publication(conn, "p", schemas=["a"], tables=[('B "b', "T t")])
    assert await (await conn.execute(VERSIONS)).fetchall() == before


async def test_two_processes_may_ensure_the_same_publication(
    conn: AsyncConnection, database: Database
) -> None:
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as other:
        await asyncio.gather(
            *(ensure_publication(each, "p", schemas=["a"]) for each in (conn, other))
        )
    assert await published(conn, "p") == [("a", "one"), ("a", "two")]


async def test_a_publication_of_nothing_is_refused(conn: AsyncConnection) -> None:
    with pytest.raises(PublicationError, match="no schema and no table"):
        await ensure_publication(conn, "p")


async def test_a_publication_of_a_missing_table_is_refused(conn: AsyncConnection) -> None:
    with pytest.raises(PublicationError, match=r'"a.missing" does not exist'):
        await ensure_publication(conn, "p", tables=[("a", "missing")])


async def test_a_change_of_a_partition_is_told_under_the_name_of_its_table(
    capture: Capture,
) -> None:
    await capture.conn.execute(
        "create table parts (id int primary key) partition by range (id);"
        "create table parts_1 partition of parts for values from (0) to (10)"
    )
    reader = Recorder()
    async with capture.consuming(reader):
        await capture.conn.execute("insert into parts values (1)")
        (commit,) = await reader.wait_for_commits(1)
    assert [getattr(change, "relation").name for change in commit.changes] == ["parts"]  # noqa: B009


async def test_a_slot_is_made_once(conn: AsyncConnection, database: Database) -> None:
    made = await ensure_slot(conn, database.name)
    await conn.execute("select pg_logical_emit_message(true, '', '')")
    assert await ensure_slot(conn, database.name) == made


async def test_two_processes_may_ensure_the_same_slot(
    conn: AsyncConnection, database: Database
) -> None:
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as other:
        first, second = await asyncio.gather(
            *(ensure_slot(each, database.name) for each in (conn, other))
        )
    assert first == second


async def test_the_slot_of_another_database_is_refused(
    conn: AsyncConnection, database: Database, postgres: Databases
) -> None:
    await ensure_slot(conn, database.name)
    async with await AsyncConnection.connect(postgres.dsn, autocommit=True) as other:
        with pytest.raises(SlotError, match="another database"):
            await ensure_slot(other, database.name)


async def test_a_slot_with_an_impossible_name_is_refused(conn: AsyncConnection) -> None:
    with pytest.raises(SlotError, match="invalid character"):
        await ensure_slot(conn, "Not allowed")


async def test_a_lost_connection_is_not_the_fault_of_the_slot(
    conn: AsyncConnection, database: Database
) -> None:
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as other:
        await other.execute("select pg_terminate_backend(%s, 5000)", [conn.info.backend_pid])
    with pytest.raises(DatabaseUnavailableError):
        await ensure_slot(conn, database.name)


async def test_an_invalidated_slot_says_what_to_do(capture: Capture) -> None:
    conn = capture.conn
    await conn.execute("alter system set max_slot_wal_keep_size = '1MB'")
    try:
        await conn.execute("select pg_reload_conf()")
        for _ in range(3):
            await conn.execute("select pg_logical_emit_message(false, '', ''), pg_switch_wal()")
        await conn.execute("checkpoint")
    finally:
        await conn.execute("alter system reset max_slot_wal_keep_size")
        await conn.execute("select pg_reload_conf()")
    with pytest.raises(SlotError, match="was invalidated") as lost:
        await ensure_slot(conn, capture.slot)
    assert lost.value.hint is not None
    assert f"pg_drop_replication_slot('{capture.slot}')" in lost.value.hint
    with pytest.raises(SlotError, match=f'replication slot "{capture.slot}"') as refused:
        await capture.consumer().run()
    assert refused.value.hint is not None
