"""A slot whose log Postgres has removed, since it was kept for too long."""

import pytest

from butterbase.ingest.errors import SlotError
from butterbase.ingest.slot import ensure_slot, read_resyncs
from tests.ingest.conftest import Capture, Recorder, capturing
from tests.postgres import Database, Databases


@pytest.fixture
def postgres(postgres_alone: Databases) -> Databases:
    """Each slot of a server is invalidated, whosever it is."""
    return postgres_alone


async def invalidate(capture: Capture) -> None:
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


async def test_an_invalidated_slot_ends_its_consumer(capture: Capture) -> None:
    await invalidate(capture)
    with pytest.raises(SlotError, match=f'replication slot "{capture.slot}"') as refused:
        await capture.consumer().run()
    assert refused.value.hint is not None


@pytest.mark.usefixtures("recording")
async def test_an_invalidated_slot_is_made_anew_and_the_gap_is_recorded(
    database: Database,
) -> None:
    async with capturing(database) as capture:
        assert await read_resyncs(capture.conn, capture.slot) == []
        await invalidate(capture)
        lsn = await ensure_slot(capture.conn, capture.slot)
        (resync,) = await read_resyncs(capture.conn, capture.slot)
        assert (resync.lsn, resync.resync) == (lsn, "wal_removed")
        reader = Recorder()
        async with capture.consuming(reader):
            await reader.wait_for_mark(capture.conn)
        await ensure_slot(capture.conn, capture.slot)
        assert len(await read_resyncs(capture.conn, capture.slot)) == 1
