"""The consumer against a real server: what it delivers, and what it acknowledges."""

import asyncio
import logging
import re

import pytest
from psycopg import sql

from butterbase.ingest import assembler as assembler_module
from butterbase.ingest.changes import (
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Toast,
    Truncate,
    Update,
)
from butterbase.ingest.consumer import Lag
from butterbase.ingest.errors import MalformedMessageError, ReplicationError, SlotError
from butterbase.ingest.lsn import LSN, ZERO
from butterbase.ingest.settings import ConsumerSettings
from butterbase.sql.errors import DatabaseUnavailableError
from tests.ingest.conftest import DEADLINE_S, FAST, Capture, Recorder, eventually


async def test_changes_arrive_in_order_and_rolled_back_ones_do_not(capture: Capture) -> None:
    reader = Recorder()
    async with capture.consuming(reader):
        for statement in (
            "insert into items values (1, 'a'), (2, null)",
            "begin; insert into items values (8); rollback",
            "begin; update items set body = 'b' where id = 1; savepoint s;"
            " insert into items values (9); rollback to savepoint s;"
            " delete from items where id = 2; commit",
            "update items set id = 3",
            "truncate items",
        ):
            await capture.conn.execute(statement)
        await reader.wait_for_mark(capture.conn)

    told = [
        (type(change), getattr(change, "old", None), getattr(change, "new", None))
        for commit in reader.commits[:-1]
        for change in commit.changes
    ]
    assert told == [
        (Insert, None, ("1", "a")),
        (Insert, None, ("2", None)),
        (Update, None, ("1", "b")),
        (Delete, ("2", None), None),
        (Update, ("1", None), ("3", "b")),
        (Truncate, None, None),
    ]
    assert [len(commit.changes) for commit in reader.commits] == [2, 2, 1, 1, 1]
    lsns = [commit.lsn for commit in reader.commits]
    assert lsns == sorted(set(lsns))


async def test_a_commit_knows_its_transaction_and_time(capture: Capture) -> None:
    reader = Recorder()
    async with capture.consuming(reader):
        cursor = await capture.conn.execute(
            "insert into items values (1) returning xmin::text::bigint, now()"
        )
        row = await cursor.fetchone()
        (commit,) = await reader.wait_for_commits(1)
    assert row is not None
    xid, began_at = row
    assert commit.xid == xid
    assert began_at <= commit.at
    assert commit.lsn <= await capture.wal_lsn()


async def test_an_unchanged_large_value_is_marked_or_known_from_the_old_row(
    capture: Capture,
) -> None:
    reader = Recorder()
    large = "x" * 10_000
    await capture.conn.execute("alter table items alter body set storage external")
    async with capture.consuming(reader):
        await capture.conn.execute("insert into items values (1, %s)", [large])
        await capture.conn.execute("update items set id = 2")
        await capture.conn.execute("alter table items replica identity full")
        await capture.conn.execute("update items set id = 3")
        await reader.wait_for_mark(capture.conn)
    first, second = (change for change in reader.changes if isinstance(change, Update))
    assert (first.old, first.new) == (("1", None), ("2", Toast.UNCHANGED))
    assert (second.old, second.new) == (("2", large), ("3", large))


async def test_ddl_in_mid_stream_changes_the_relation(capture: Capture) -> None:
    reader = Recorder()
    async with capture.consuming(reader):
        await capture.conn.execute(
            "begin; insert into items values (1, 'a'); alter table items add extra int default 5;"
            " insert into items values (2, 'b'); alter table items drop body;"
            " alter table items rename to things; insert into things values (3, 6); commit"
        )
        await capture.conn.execute("create table later (a text); insert into later values ('x')")
        await reader.wait_for_mark(capture.conn)
    told = [
        (change.relation.name, {c.name: v for c, v in change.relation.pairs(change.new)})
        for change in reader.changes
        if isinstance(change, Insert)
    ]
    assert told == [
        ("items", {"id": "1", "body": "a"}),
        ("items", {"id": "2", "body": "b", "extra": "5"}),
        ("things", {"id": "3", "extra": "6"}),
        ("later", {"a": "x"}),
    ]


async def test_a_logical_message_stands_among_the_changes(capture: Capture) -> None:
    reader = Recorder()
    async with capture.consuming(reader):
        await capture.conn.execute(
            "begin; insert into items values (1);"
            " select pg_logical_emit_message(true, 'p', '\\x00ff'::bytea);"
            " insert into items values (2); commit"
        )
        (commit,) = await reader.wait_for_commits(1)
    assert [type(change) for change in commit.changes] == [Insert, LogicalMessage, Insert]
    assert list(commit.changes)[1] == LogicalMessage("p", b"\x00\xff")


async def test_text_does_not_depend_on_the_settings_of_the_database(capture: Capture) -> None:
    for name, value in [
        ("datestyle", "German"),
        ("timezone", "Asia/Tokyo"),
        ("bytea_output", "escape"),
        ("extra_float_digits", "-3"),
    ]:
        await capture.conn.execute(
            sql.SQL("alter database {} set {} to {}").format(
                sql.Identifier(capture.conn.info.dbname), sql.Identifier(name), value
            )
        )
    await capture.conn.execute("create table typed (a timestamptz, b bytea, c float8)")
    reader = Recorder()
    async with capture.consuming(reader):
        await capture.conn.execute("insert into typed values ('2026-07-01 12:00Z', '\\xff', 0.1)")
        (commit,) = await reader.wait_for_commits(1)
    (insert,) = commit.changes
    assert isinstance(insert, Insert)
    assert insert.new == ("2026-07-01 12:00:00+00", "\\xff", "0.1")


async def test_a_large_transaction_is_one_commit(capture: Capture) -> None:
    reader = Recorder()
    async with capture.consuming(reader):
        await capture.conn.execute(
            "insert into items select g, repeat('x', 200) from generate_series(1, 20000) g"
        )
        (commit,) = await reader.wait_for_commits(1)
    assert len(commit.changes) == 20_000


async def test_what_is_durable_is_acknowledged_at_once(capture: Capture) -> None:
    reader = Recorder()
    settings = ConsumerSettings(status_gap_s=0.01)
    async with capture.consuming(reader, settings=settings) as consumer:
        await capture.conn.execute("insert into items values (1)")
        (commit,) = await reader.wait_for_commits(1)
        # The next status by interval is 10 s away.
        async with asyncio.timeout(settings.status_interval_s / 2):
            await eventually(lambda: reached(capture, commit.lsn))
        assert consumer.acknowledged >= commit.lsn


async def reached(capture: Capture, lsn: LSN) -> bool:
    return await capture.confirmed() >= lsn


async def test_nothing_is_acknowledged_beyond_what_is_durable(capture: Capture) -> None:
    slow, fast = Recorder(is_durable_at_once=False), Recorder()
    async with capture.consuming(fast, slow, Recorder(durable=None)) as consumer:
        for key in (1, 2, 3):
            await capture.conn.execute("insert into items values (%s)", [key])
        first, second, third = await slow.wait_for_commits(3)
        slow.durable = first.lsn
        consumer.position_moved()
        await eventually(lambda: reached(capture, first.lsn))
        # Traffic of others, and statuses by interval, change nothing.
        await capture.conn.execute("create table unlogged_traffic as select 1")
        for _ in range(3):
            await a_status_more(capture)
        assert first.lsn <= await capture.confirmed() < second.lsn
        assert consumer.lag.behind_bytes > 0
        assert consumer.lag.behind_s >= 0
        slow.durable = third.lsn
        consumer.position_moved()
        await eventually(lambda: reached(capture, third.lsn))


async def a_status_more(capture: Capture) -> None:
    async def replied_at() -> object:
        cursor = await capture.conn.execute(
            "select reply_time from pg_stat_replication where pid = %s",
            [await capture.walsender()],
        )
        return await cursor.fetchone()

    before = await replied_at()

    async def has_another() -> bool:
        return await replied_at() != before

    await eventually(has_another)


async def test_unpublished_traffic_advances_an_idle_slot(capture: Capture) -> None:
    await capture.conn.execute("create schema private; create table private.t (id int)")
    reader = Recorder()
    async with capture.consuming(reader) as consumer:
        await capture.conn.execute("insert into private.t select generate_series(1, 100)")
        end = await capture.wal_lsn()
        await eventually(lambda: reached(capture, end))
        assert consumer.lag == Lag(0, 0.0)
    assert reader.commits == []


async def test_a_reader_that_waits_holds_the_log_but_not_the_statuses(capture: Capture) -> None:
    class Blocked(Recorder):
        def __init__(self) -> None:
            super().__init__()
            self.entered, self.released = asyncio.Event(), asyncio.Event()

        async def deliver(self, commit: Commit) -> None:
            self.entered.set()
            await self.released.wait()
            await super().deliver(commit)

    reader = Blocked()
    settings = ConsumerSettings(status_interval_s=0.1, sender_timeout_s=0.5)
    async with capture.consuming(reader, settings=settings):
        walsender = await capture.walsender()
        for _ in range(20):  # more than socket buffers hold
            await insert_next(capture, 1000)
        await asyncio.wait_for(reader.entered.wait(), DEADLINE_S)
        for _ in range(10):  # longer than the server's patience
            await a_status_more(capture)
        assert await capture.walsender() == walsender
        reader.released.set()
        await reader.wait_for_mark(capture.conn)
    assert reader.ids == list(range(1, 20_001))


async def insert_next(capture: Capture, count: int) -> None:
    await capture.conn.execute(
        "insert into items select (select coalesce(max(id), 0) from items) + g, repeat('x', 1000)"
        " from generate_series(1, %s) g",
        [count],
    )


async def test_a_missing_slot_stops_the_consumer(capture: Capture) -> None:
    await capture.conn.execute("select pg_drop_replication_slot(%s)", [capture.slot])
    consumer = capture.consumer()
    running = asyncio.create_task(consumer.run())
    with pytest.raises(SlotError, match="does not exist"):
        await consumer.wait_connected()
    with pytest.raises(SlotError):
        await running


async def test_bytes_that_cannot_be_read_stop_the_consumer_and_are_located(
    capture: Capture, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def decode(payload: bytes, *, streaming: bool) -> None:
        raise MalformedMessageError("gibberish")

    monkeypatch.setattr(assembler_module, "decode", decode)
    consumer = capture.consumer(reader := Recorder())
    await capture.conn.execute("insert into items values (1)")
    with caplog.at_level(logging.CRITICAL), pytest.raises(MalformedMessageError):
        await asyncio.wait_for(consumer.run(), DEADLINE_S)
    assert re.search(rf"{capture.slot}: cannot read the log between [0-9A-F]+/", caplog.text)
    assert reader.commits == []
    assert not consumer.is_connected


@pytest.mark.parametrize("error", [ValueError("boom"), DatabaseUnavailableError("no tables")])
async def test_the_error_of_a_reader_stops_the_consumer(capture: Capture, error: Exception) -> None:
    class Failing(Recorder):
        async def deliver(self, commit: Commit) -> None:
            self.commits.append(commit)
            raise error

    await capture.conn.execute("insert into items values (1)")
    failing = Failing()
    with pytest.raises(type(error)) as raised:
        await asyncio.wait_for(capture.consumer(failing).run(), DEADLINE_S)
    assert raised.value is error
    # Log before the commit may be acknowledged by then, the commit itself is not.
    assert await capture.confirmed() < failing.commits[0].lsn


async def test_close_ends_run_and_frees_the_slot(capture: Capture) -> None:
    consumer = capture.consumer(Recorder())
    running = asyncio.create_task(consumer.run())
    await consumer.wait_connected()
    await consumer.close()
    await asyncio.wait_for(running, DEADLINE_S)
    assert not consumer.is_connected
    with pytest.raises(ReplicationError, match="closed"):
        await consumer.wait_connected()

    async def is_free() -> bool:
        return await capture.walsender() is None

    await eventually(is_free)


async def test_cancelling_run_ends_it_as_cancelled(capture: Capture) -> None:
    consumer = capture.consumer(Recorder())
    running = asyncio.create_task(consumer.run())
    await consumer.wait_connected()
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    assert not consumer.is_connected


async def test_closing_acknowledges_what_became_durable(capture: Capture) -> None:
    reader = Recorder(is_durable_at_once=False, durable=ZERO)
    async with capture.consuming(reader, settings=ConsumerSettings()):
        await capture.conn.execute("insert into items values (1)")
        (commit,) = await reader.wait_for_commits(1)
        reader.durable = commit.lsn
    await eventually(lambda: reached(capture, commit.lsn))


def test_settings_that_would_lose_the_connection_are_refused() -> None:
    with pytest.raises(ValueError, match="a third"):
        ConsumerSettings(status_interval_s=30, sender_timeout_s=60)
    with pytest.raises(ValueError, match="backoff"):
        ConsumerSettings(backoff_s_min=2, backoff_s_max=1)
    assert FAST.backoff_s_min < FAST.backoff_s_max
