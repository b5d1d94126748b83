"""Connections that break: no commit is lost, and none delivered twice in one process."""

import asyncio
import os
import sys
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from butterbase.ingest.consumer import Consumer
from butterbase.ingest.settings import ConsumerSettings
from butterbase.ingest.slot import ensure_publication, ensure_slot
from butterbase.sql.embedded import EmbeddedPostgres
from tests.ingest.conftest import DEADLINE_S, FAST, Capture, Recorder, eventually
from tests.ingest.proxy import Proxy


async def terminate_walsender(capture: Capture) -> None:
    """Wait until the slot is served and end the process that serves it."""

    async def is_terminated() -> bool:
        cursor = await capture.conn.execute(
            "select pg_terminate_backend(active_pid, 5000) from pg_replication_slots"
            " where slot_name = %s and active_pid is not null",
            [capture.slot],
        )
        return await cursor.fetchone() == (True,)

    await eventually(is_terminated)


async def test_a_broken_connection_under_load_loses_and_doubles_nothing(capture: Capture) -> None:
    rows, breaks = 3000, 6
    reader = Recorder()
    async with capture.consuming(reader) as consumer:

        async def write() -> None:
            async with await AsyncConnection.connect(capture.dsn, autocommit=True) as conn:
                for key in range(1, rows + 1):
                    await conn.execute("insert into items values (%s, 'x')", [key])

        writing = asyncio.create_task(write())
        for number in range(1, breaks + 1):
            await reader.wait_for_commits(rows // 10 * number)
            await terminate_walsender(capture)
        await writing
        await reader.wait_for_mark(capture.conn)
        assert consumer.is_connected
    assert reader.ids == list(range(1, rows + 1))
    lsns = [commit.lsn for commit in reader.commits]
    assert lsns == sorted(set(lsns))


async def test_commits_that_are_not_acknowledged_come_once_more_only_to_a_new_process(
    capture: Capture,
) -> None:
    reader = Recorder(is_durable_at_once=False)
    async with capture.consuming(reader):
        for key in (1, 2, 3):
            await capture.conn.execute("insert into items values (%s)", [key])
        first, second, third = await reader.wait_for_commits(3)
        reader.durable = first.lsn
        await terminate_walsender(capture)
        await capture.conn.execute("insert into items values (4)")
        await reader.wait_for_commits(4)
        assert reader.ids == [1, 2, 3, 4]

    restarted = Recorder(durable=first.lsn)
    async with capture.consuming(restarted):
        await restarted.wait_for_mark(capture.conn)
    assert restarted.ids == [2, 3, 4]
    assert restarted.commits[:2] == [second, third]


async def test_a_transaction_cut_off_in_the_middle_arrives_whole(capture: Capture) -> None:
    reader = Recorder()
    async with capture.consuming(reader):
        await capture.conn.execute(
            "insert into items select g, repeat('x', 500) from generate_series(1, 20000) g"
        )
        # Large enough that the walsender is still sending when it is ended.
        await terminate_walsender(capture)
        await reader.wait_for_mark(capture.conn)
    assert [len(commit.changes) for commit in reader.commits] == [20_000, 1]


async def test_a_consumer_stands_by_while_the_slot_has_a_reader(capture: Capture) -> None:
    first, second = Recorder(), Recorder()
    waiting = capture.consumer(second)
    async with asyncio.TaskGroup() as tasks:
        async with capture.consuming(first):
            tasks.create_task(waiting.run())
            await capture.conn.execute("insert into items values (1)")
            await first.wait_for_commits(1)
            assert not waiting.is_connected
        await asyncio.wait_for(waiting.wait_connected(), DEADLINE_S)
        await capture.conn.execute("insert into items values (2)")
        await second.wait_for_commits(1)
        await waiting.close()
    assert (first.ids, second.ids) == ([1], [2])


async def test_a_server_that_cannot_be_reached_is_tried_until_it_can(
    capture: Capture, tmp_path: Path
) -> None:
    proxy = Proxy(capture.dsn, tmp_path)
    reader = Recorder()
    consumer = Consumer(
        proxy.dsn, slot=capture.slot, publications=["capture"], readers=[reader], settings=FAST
    )
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run())
        await capture.conn.execute("insert into items values (1)")
        assert not consumer.is_connected
        async with proxy.listening():
            await reader.wait_for_commits(1)
            await consumer.close()
    assert reader.ids == [1]


async def test_a_server_that_has_gone_silent_is_left(capture: Capture, tmp_path: Path) -> None:
    proxy = Proxy(capture.dsn, tmp_path)
    reader = Recorder()
    consumer = Consumer(
        proxy.dsn,
        slot=capture.slot,
        publications=["capture"],
        readers=[reader],
        settings=ConsumerSettings(
            status_interval_s=0.1, sender_timeout_s=0.4, backoff_s_min=0.02, backoff_s_max=0.1
        ),
    )
    async with proxy.listening(), asyncio.TaskGroup() as tasks:
        tasks.create_task(consumer.run())
        await consumer.wait_connected()
        proxy.freeze()
        await capture.conn.execute("insert into items values (1)")
        await reader.wait_for_commits(1)
        await consumer.close()
    assert reader.ids == [1]


async def is_cut_off(consumer: Consumer) -> bool:
    return not consumer.is_connected


@pytest.mark.parametrize("is_durable", [True, False])
async def test_a_restarted_server_is_read_on(tmp_path: Path, is_durable: bool) -> None:
    settings = {"fsync": "off", "synchronous_commit": "off"}
    server = EmbeddedPostgres(tmp_path / "pg", password="secret", settings=settings)
    dsn = server.start()
    reader = Recorder(is_durable_at_once=is_durable)
    try:
        async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
            await conn.execute("create table items (id int primary key)")
            await ensure_publication(conn, "capture", schemas=["public"])
            await ensure_slot(conn, "restarted")
        capture = Capture(dsn, "restarted", conn)
        async with capture.consuming(reader) as consumer:
            async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
                await conn.execute("insert into items values (1)")
            await reader.wait_for_commits(1)
            # It waits for an acknowledgement of everything, or for us to leave.
            async with asyncio.timeout(DEADLINE_S):
                await asyncio.to_thread(server.stop)
            await eventually(lambda: is_cut_off(consumer))
            await asyncio.to_thread(server.start)
            await asyncio.wait_for(consumer.wait_connected(), DEADLINE_S)
            async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
                await conn.execute("insert into items values (2)")
            await reader.wait_for_commits(2)
    finally:
        await asyncio.to_thread(server.stop)
    assert reader.ids == [1, 2]


LEADER = """
import asyncio, sys
from butterbase.ingest.consumer import Consumer

class Reader:
    async def deliver(self, commit):
        print(commit.lsn, flush=True)

    def position(self):
        return 0

consumer = Consumer(sys.argv[1], slot=sys.argv[2], publications=["capture"], readers=[Reader()])
asyncio.run(consumer.run())
"""


async def test_a_standby_takes_over_when_the_reader_is_killed(capture: Capture) -> None:
    leader = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", LEADER, capture.dsn, capture.slot),
        stdout=asyncio.subprocess.PIPE,
        env=dict(os.environ) | {"PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert leader.stdout is not None
    await capture.conn.execute("insert into items values (1)")
    await asyncio.wait_for(leader.stdout.readline(), DEADLINE_S)
    reader = Recorder()
    standby = capture.consumer(reader, settings=ConsumerSettings())
    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(standby.run())
        await eventually(lambda: is_standing_by(capture))
        leader.kill()
        await leader.wait()
        await capture.conn.execute("insert into items values (2)")
        await reader.wait_for_commits(2)
        await standby.close()
    assert reader.ids == [1, 2]


async def is_standing_by(capture: Capture) -> bool:
    """Whether two of our connections could stream."""
    cursor = await capture.conn.execute(
        "select count(*) from pg_stat_activity"
        " where backend_type = 'walsender' and datname = current_database()"
    )
    return await cursor.fetchone() == (2,)
