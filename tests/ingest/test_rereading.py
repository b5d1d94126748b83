"""The log read once more, beside its consumer."""

from contextlib import aclosing

import pytest

from butterbase.ingest.changes import Insert
from butterbase.ingest.errors import SlotError
from butterbase.ingest.lsn import LSN, ZERO, parse_lsn
from butterbase.ingest.rereading import Log, reread
from tests.ingest.conftest import FAST, Capture, Recorder, eventually


def log_of(capture: Capture) -> Log:
    return Log(capture.dsn, capture.slot, ("capture",))


async def ids_between(capture: Capture, after: LSN, until: LSN) -> list[int]:
    found = []
    parts = reread(log_of(capture), after=after, until=until, settings=FAST)
    async with aclosing(parts):
        async for part in parts:
            assert after <= part.position <= until
            for commit in part.commits:
                assert after < commit.lsn <= until
                found += [int(str(c.new[0])) for c in commit.changes if isinstance(c, Insert)]
    return found


async def end_of(capture: Capture) -> LSN:
    """Behind all that is committed; pg_current_wal_lsn() is what has been written of it."""
    cursor = await capture.conn.execute("select pg_current_wal_insert_lsn()::text")
    row = await cursor.fetchone()
    assert row is not None
    return parse_lsn(row[0])


async def test_commits_are_read_again_while_the_consumer_reads_on(capture: Capture) -> None:
    reader = Recorder(durable=ZERO, is_durable_at_once=False)
    async with capture.consuming(reader):
        for id_ in range(10):
            await capture.conn.execute("insert into items values (%s)", [id_])
        commits = list(await reader.wait_for_commits(10))
        assert await ids_between(capture, commits[2].lsn, commits[6].lsn) == [3, 4, 5, 6]
        await capture.conn.execute("insert into items values (10)")
        assert (await reader.wait_for_commits(11))[-1].lsn > commits[-1].lsn


async def test_the_end_is_found_where_no_commit_stands(capture: Capture) -> None:
    await capture.conn.execute("insert into items values (1)")
    await capture.conn.execute("create schema hidden create table others (id int)")
    await capture.conn.execute("insert into hidden.others values (1)")
    assert await ids_between(capture, ZERO, await end_of(capture)) == [1]


async def test_the_copy_of_the_slot_goes_with_its_reader(capture: Capture) -> None:
    await capture.conn.execute("insert into items values (1)")
    parts = reread(log_of(capture), after=ZERO, until=await end_of(capture), settings=FAST)
    async with aclosing(parts):
        await anext(parts)
        assert len(await slots(capture)) == 2

    async def is_gone() -> bool:
        return await slots(capture) == [capture.slot]

    await eventually(is_gone)


async def slots(capture: Capture) -> list[str]:
    cursor = await capture.conn.execute(
        "select slot_name from pg_replication_slots where database = current_database()"
    )
    return [name for (name,) in await cursor.fetchall()]


async def test_without_the_slot_there_is_nothing_to_read(capture: Capture) -> None:
    log = Log(capture.dsn, "no_such_slot", ("capture",))
    with pytest.raises(SlotError):
        await anext(reread(log, after=ZERO, until=LSN(1)))


async def test_changes_after_ddl_are_read_as_they_were(capture: Capture) -> None:
    reader = Recorder(durable=ZERO, is_durable_at_once=False)
    async with capture.consuming(reader):
        await capture.conn.execute("insert into items values (1, 'before')")
        await capture.conn.execute("alter table items drop column body")
        await capture.conn.execute("insert into items values (2)")
        commits = list(await reader.wait_for_commits(2))
        assert await ids_between(capture, ZERO, commits[-1].lsn) == [1, 2]
