"""What becomes of a transaction on its way, on a real server: in progress, prepared, by turns."""

# ruff: noqa: S311, S608  random statements of the test's own making

import asyncio
import random
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace

import pytest
from psycopg import AsyncConnection, sql
from psycopg.conninfo import make_conninfo

from butterbase.ingest.changes import (
    Change,
    Commit,
    Delete,
    Insert,
    LoggedChanges,
    ReplicaIdentity,
    Truncate,
    Update,
)
from butterbase.ingest.lsn import LSN
from butterbase.ingest.settings import ConsumerSettings
from tests.ingest.conftest import FAST, Capture, Recorder, eventually
from tests.postgres import Database

SMALL = ConsumerSettings(
    status_interval_s=FAST.status_interval_s,
    status_gap_s=FAST.status_gap_s,
    sender_timeout_s=FAST.sender_timeout_s,
    backoff_s_min=FAST.backoff_s_min,
    backoff_s_max=FAST.backoff_s_max,
    standby_interval_s=FAST.standby_interval_s,
    held_bytes_max=4_000,
)
"""So that most transactions of a test go through files."""


def streamed(capture: Capture) -> Capture:
    """The same, read by consumers that are sent every change at once (Postgres 16 and newer), or
    what is more than 64 KiB.
    """
    option = "debug_logical_replication_streaming=immediate"
    if capture.conn.info.server_version < 16_00_00:
        option = "logical_decoding_work_mem=64kB"
    return replace(capture, dsn=make_conninfo(capture.dsn, options=f"-c {option}"))


@dataclass
class Mirror:
    """A reader that keeps a copy of all tables, by key."""

    tables: dict[str, dict[str, Mapping[str, object]]] = field(default_factory=dict)

    async def deliver(self, commit: Commit) -> None:
        for change in commit.changes:
            self.apply(change)

    def position(self) -> LSN | None:
        return None

    def apply(self, change: Change) -> None:
        match change:
            case Insert(relation, new):
                row = {column.name: value for column, value in relation.pairs(new)}
                self.tables.setdefault(relation.name, {})[str(new[0])] = row
            case Update(relation, new, old):
                table = self.tables.setdefault(relation.name, {})
                table.pop(str((old or new)[0]), None)
                table[str(new[0])] = {c.name: value for c, value in relation.pairs(new)}
            case Delete(relation, old):
                del self.tables[relation.name][str(old[0])]
            case Truncate(relation):
                self.tables[relation.name] = {}
            case _:
                pass


class Workload:
    """Random transactions on several connections by turns, each on a table of its own and on a
    shared one.
    """

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.next_id = 0

    def statement(self, own: str) -> str:
        table = self.random.choice([own, "shared"])
        self.next_id += 1
        some = f"(select id from {table} where owner = '{own}' order by random() limit 3)"
        return self.random.choice(
            [
                f"insert into {table} (id, owner, body) values ({self.next_id}, '{own}', 'new')",
                f"insert into {table} (id, owner, body) select {self.next_id * 1000} + g, '{own}',"
                f" repeat('x', 50) from generate_series(1, {self.random.choice([2, 30])}) g",
                f"update {table} set body = '{self.next_id}' where id in {some}",
                f"update {table} set id = -{self.next_id} where id = (select min(id) from {table}"
                f" where owner = '{own}')",
                f"delete from {table} where id in {some}",
                f"alter table {own} add c{self.next_id} int default {self.next_id}",
                f"alter table {own} alter body type varchar({200 + self.next_id})",
                f"truncate {own}",
                "savepoint s",
                "rollback to savepoint s",
                "commit",
                "rollback",
            ]
        )


@pytest.mark.parametrize("seed", range(4))
async def test_random_transactions_arrive_as_the_tables_hold_them(
    capture: Capture, seed: int
) -> None:
    work = Workload(seed)
    mirror, reader = Mirror(), Recorder()
    async with AsyncExitStack() as stack:
        conns = {}
        for own in ("a", "b", "c"):
            await capture.conn.execute(create_table(own))
            conn = await AsyncConnection.connect(capture.dsn)
            conns[own] = await stack.enter_async_context(conn)
        await capture.conn.execute(create_table("shared"))
        consuming = streamed(capture) if seed % 2 else capture
        await stack.enter_async_context(consuming.consuming(mirror, reader, settings=SMALL))
        for _ in range(400):
            own = work.random.choice(list(conns))
            statement = work.statement(own)
            if statement == "rollback to savepoint s":
                # Where there is none there is nothing to go back to.
                statement = "savepoint s; rollback to savepoint s; savepoint s"
            await conns[own].execute(statement.encode())
        for conn in conns.values():
            await conn.commit()
        await reader.wait_for_mark(capture.conn)
        for table in ("a", "b", "c", "shared"):
            expected = await contents(capture.conn, table)
            told = mirror.tables.get(table, {})
            assert told.keys() == expected.keys()
            for key, row in expected.items():
                # A column that was added is in the log from the row's next change on.
                added = {name: name[1:] for name in row if name[1:].isdigit()}
                assert {**added, **told[key]} == row


def create_table(name: str) -> bytes:
    return f"create table {name} (id int primary key, owner text, body text)".encode()


async def contents(conn: AsyncConnection, table: str) -> dict[str, Mapping[str, object]]:
    cursor = await conn.execute(sql.SQL("select * from {}").format(sql.Identifier(table)))
    names = [column.name for column in cursor.description or ()]
    rows = await cursor.fetchall()
    return {
        str(row[0]): dict(zip(names, (None if v is None else str(v) for v in row), strict=True))
        for row in rows
    }


async def test_transactions_in_progress_are_told_in_the_order_of_their_commits(
    capture: Capture,
) -> None:
    reader = Recorder()
    async with (
        streamed(capture).consuming(reader, settings=SMALL),
        await AsyncConnection.connect(capture.dsn) as first,
        await AsyncConnection.connect(capture.dsn) as second,
    ):
        for number in range(2_000):
            conn = (first, second)[number % 2]
            await conn.execute("insert into items values (%s, repeat('x', 100))", [number])
        await second.commit()
        await first.commit()
        told = await reader.wait_for_commits(2)
        assert [len(commit.changes) for commit in told] == [1_000, 1_000]
        assert all(isinstance(commit.changes, LoggedChanges) for commit in told)
    assert reader.ids == [*range(1, 2_000, 2), *range(0, 2_000, 2)]


@pytest.mark.parametrize(
    ("identity", "old_of_update", "old_of_delete"),
    [
        ("default", None, ("1", None, None)),
        ("full", ("1", "k", "a"), ("1", "k", "b")),
        ("using index items_key", None, (None, "k", None)),
    ],
)
async def test_the_old_row_is_what_the_replica_identity_says(
    capture: Capture, identity: str, old_of_update: object, old_of_delete: object
) -> None:
    for statement in (
        "drop table items",
        "create table items (id int primary key, key text not null, body text)",
        "create unique index items_key on items (key)",
        f"alter table items replica identity {identity}",
    ):
        await capture.conn.execute(statement.encode())
    reader = Recorder()
    async with capture.consuming(reader):
        await capture.conn.execute("insert into items values (1, 'k', 'a')")
        await capture.conn.execute("update items set body = 'b'")
        await capture.conn.execute("delete from items")
        await reader.wait_for_mark(capture.conn)
    _, update, delete = reader.changes[:3]
    assert isinstance(update, Update)
    assert isinstance(delete, Delete)
    assert (update.old, delete.old) == (old_of_update, old_of_delete)


async def test_without_a_replica_identity_inserts_are_told(capture: Capture) -> None:
    await capture.conn.execute("alter table items replica identity nothing")
    reader = Recorder()
    async with capture.consuming(reader):
        await capture.conn.execute("insert into items values (1)")
        ((insert,),) = [commit.changes for commit in await reader.wait_for_commits(1)]
    assert isinstance(insert, Insert)
    assert insert.relation.replica_identity is ReplicaIdentity.NOTHING
    assert not any(column.is_key for column in insert.relation.columns)


async def test_a_commit_that_came_from_elsewhere_says_so(capture: Capture) -> None:
    name = f"origin of {capture.slot}"
    await capture.conn.execute("select pg_replication_origin_create(%s)", [name])
    reader = Recorder()
    async with capture.consuming(reader):
        await capture.conn.execute("select pg_replication_origin_session_setup(%s)", [name])
        await capture.conn.execute("insert into items values (1)")
        await capture.conn.execute("select pg_replication_origin_session_reset()")
        await capture.conn.execute("insert into items values (2)")
        told = await reader.wait_for_commits(2)
    assert [commit.origin for commit in told] == [name, None]
    await capture.conn.execute("select pg_replication_origin_drop(%s)", [name])


# Prepared transactions


@pytest.fixture(params=["of its own accord", "told at once"])
async def two_phase(
    capture: Capture, database: Database, request: pytest.FixtureRequest
) -> AsyncIterator[Capture]:
    """A capture whose slot tells of prepared transactions."""
    row = await (await capture.conn.execute("show max_prepared_transactions")).fetchone()
    if row == ("0",):
        pytest.skip("the server has max_prepared_transactions = 0")
    await capture.conn.execute("select pg_drop_replication_slot(%s)", [capture.slot])
    await capture.conn.execute(
        "select pg_create_logical_replication_slot(%s, 'pgoutput', false, true)", [capture.slot]
    )
    yield streamed(capture) if request.param == "told at once" else capture
    rows = await (
        await capture.conn.execute(
            "select gid from pg_prepared_xacts where database = %s", [database.name]
        )
    ).fetchall()
    for (gid,) in rows:
        await capture.conn.execute(sql.SQL("rollback prepared {}").format(gid))


async def prepare(capture: Capture, gid: str, key: int) -> None:
    await capture.conn.execute(
        sql.SQL("begin; insert into items values ({}); prepare transaction {}").format(key, gid)
    )


async def finish(capture: Capture, how: str, gid: str) -> None:
    await capture.conn.execute(sql.SQL("{} prepared {}").format(sql.SQL(how), gid))


async def test_a_prepared_transaction_is_told_when_it_commits(two_phase: Capture) -> None:
    capture, reader = two_phase, Recorder()
    async with capture.consuming(reader) as consumer:
        for key in (1, 2):
            await prepare(capture, f"{capture.slot} {key}", key)
        await capture.conn.execute("insert into items values (3)")
        await reader.wait_for_commits(1)
        await finish(capture, "rollback", f"{capture.slot} 1")
        await finish(capture, "commit", f"{capture.slot} 2")
        told = await reader.wait_for_commits(2)
        assert reader.ids == [3, 2]
        assert told[0].lsn < told[1].lsn <= await capture.wal_lsn()

        async def is_acknowledged() -> bool:
            return await capture.confirmed() >= told[1].lsn

        await eventually(is_acknowledged)
        assert consumer.acknowledged >= told[1].lsn


async def test_a_prepared_transaction_outlives_the_consumer(two_phase: Capture) -> None:
    capture, before, after = two_phase, Recorder(), Recorder()
    await prepare(capture, capture.slot, 1)
    async with capture.consuming(before):
        await capture.conn.execute("insert into items values (2)")
        await before.wait_for_mark(capture.conn)
        prepared_at = await capture.wal_lsn()
        await asyncio.sleep(FAST.status_interval_s * 2)  # statuses that could acknowledge too much
    assert await capture.confirmed() < prepared_at
    async with capture.consuming(after):
        await finish(capture, "commit", capture.slot)
        await after.wait_until(lambda: 1 in after.ids)
    assert (before.ids, after.ids) == ([2], [2, 1])


async def test_a_slot_without_two_phase_tells_them_at_their_commit_too(capture: Capture) -> None:
    row = await (await capture.conn.execute("show max_prepared_transactions")).fetchone()
    if row == ("0",):
        pytest.skip("the server has max_prepared_transactions = 0")
    reader = Recorder()
    async with capture.consuming(reader):
        await prepare(capture, capture.slot, 1)
        await capture.conn.execute("insert into items values (2)")
        await finish(capture, "commit", capture.slot)
        await reader.wait_for_commits(2)
    assert reader.ids == [2, 1]
