"""Publications and slots, on a real server."""

import asyncio
from collections.abc import AsyncIterator

import pytest
from psycopg import AsyncConnection

from butterbase.ingest.errors import PublicationError, SlotError
from butterbase.ingest.slot import ensure_publication, ensure_slot, read_resyncs
from butterbase.sql.cluster import LoginRole
from butterbase.sql.errors import DatabaseUnavailableError
from tests.ingest.conftest import Capture, Recorder, capturing
from tests.installation import Installation
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


@pytest.mark.usefixtures("recording")
async def test_a_slot_that_is_gone_is_made_anew_and_the_gap_is_recorded(
    database: Database,
) -> None:
    async with capturing(database) as capture:
        for _ in range(2):
            await capture.conn.execute("select pg_drop_replication_slot(%s)", [capture.slot])
            await ensure_slot(capture.conn, capture.slot)
        told = await read_resyncs(capture.conn, capture.slot)
        assert [resync.resync for resync in told] == ["missing", "missing"]


@pytest.mark.usefixtures("recording")
async def test_a_crash_between_record_and_slot_hides_no_gap(database: Database) -> None:
    async with capturing(database) as capture:
        await capture.conn.execute(
            "insert into butterbase.captures (slot, resync) values (%s, 'missing')", [capture.slot]
        )
        lsn = await ensure_slot(capture.conn, capture.slot)
        assert [r.lsn for r in await read_resyncs(capture.conn, capture.slot)] == [lsn]


async def test_a_slot_is_for_failover_where_the_server_knows_of_it(capture: Capture) -> None:
    query = "select to_jsonb(s) ->> 'failover' from pg_replication_slots s where slot_name = %s"
    row = await (await capture.conn.execute(query, [capture.slot])).fetchone()
    is_known = capture.conn.info.server_version >= 17_00_00
    assert row == ("true" if is_known else None,)


async def test_the_stream_process_may_make_its_slots_and_record_them(
    installation: Installation,
) -> None:
    cluster = installation.cluster
    for database in (cluster.control_database, installation.main.name):
        name = f"mine_{database}"
        dsn = cluster.dsn(LoginRole.STREAM, database)
        async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
            await ensure_slot(conn, name)
            await conn.execute("select pg_drop_replication_slot(%s)", [name])
            lsn = await ensure_slot(conn, name)
            assert [r.lsn for r in await read_resyncs(conn, name)] == [lsn]
            await conn.execute("select pg_drop_replication_slot(%s)", [name])
