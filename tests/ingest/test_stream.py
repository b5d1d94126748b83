"""The replication socket alone."""

import asyncio
from pathlib import Path
from typing import NoReturn

import pytest
from psycopg.conninfo import conninfo_to_dict

from butterbase.ingest.errors import SlotError
from butterbase.ingest.frames import Keepalive, decode_frame
from butterbase.ingest.lsn import LSN, ZERO
from butterbase.ingest.session import replication_dsn
from butterbase.ingest.settings import ConsumerSettings
from butterbase.ingest.stream import ReplicationStream
from butterbase.sql.errors import DatabaseUnavailableError, SettingError
from tests.ingest.conftest import DEADLINE_S, Capture, eventually
from tests.ingest.proxy import Proxy


async def connect(
    capture: Capture, settings: ConsumerSettings, *, dsn: str | None = None
) -> ReplicationStream:
    return await ReplicationStream.connect(
        dsn or capture.dsn,
        slot=capture.slot,
        publications=["capture"],
        position=lambda: ZERO,
        settings=settings,
    )


async def read_on(stream: ReplicationStream) -> NoReturn:
    async with asyncio.timeout(DEADLINE_S):
        while True:
            await stream.read()


async def test_each_message_of_the_plugin_is_a_frame(capture: Capture) -> None:
    frames: list[bytes] = []
    async with await connect(capture, ConsumerSettings()) as stream:
        await capture.conn.execute("insert into items values (1, 'a')")
        async with asyncio.timeout(DEADLINE_S):
            while not any(f[:1] == b"w" and f[25:26] == b"C" for f in frames):
                frames += await stream.read()
    kinds = [frame[25:26] for frame in frames if frame[:1] == b"w"]
    assert kinds == [b"B", b"R", b"I", b"C"]


async def test_a_status_that_the_server_asks_for_is_sent_at_once(capture: Capture) -> None:
    settings = ConsumerSettings(status_interval_s=0.2, sender_timeout_s=0.7)
    async with await connect(capture, settings) as stream:
        # Only silence makes the server ask, so the statuses by interval must stop.
        assert stream._feedback is not None
        stream._feedback.cancel()
        requests = 0
        async with asyncio.timeout(DEADLINE_S):
            while requests < 3:  # it would drop us after two
                frames = await stream.read()
                requests += sum(
                    isinstance(f, Keepalive) and f.reply_requested
                    for f in map(decode_frame, frames)
                )
        assert await capture.walsender() is not None


async def test_reading_ends_when_the_server_hangs_up(capture: Capture) -> None:
    async with await connect(capture, ConsumerSettings()) as stream:
        await capture.conn.execute("select pg_terminate_backend(%s)", [await capture.walsender()])
        with pytest.raises(DatabaseUnavailableError):
            await read_on(stream)


async def test_a_position_that_cannot_be_told_ends_the_stream(capture: Capture) -> None:
    def position() -> LSN:
        if not is_connected:
            return ZERO
        raise ValueError("no position")

    is_connected = False
    stream = await ReplicationStream.connect(
        capture.dsn,
        slot=capture.slot,
        publications=["capture"],
        position=position,
        settings=ConsumerSettings(),
    )
    async with stream:
        is_connected = True
        stream.nudge()
        with pytest.raises(ValueError, match="no position"):
            await read_on(stream)


def test_the_options_of_a_dsn_are_kept_and_ours_win() -> None:
    dsn = "host=h application_name=mine options='-c work_mem=1MB -c timezone=Asia/Tokyo'"
    parameters = conninfo_to_dict(replication_dsn(dsn, ConsumerSettings()))
    options = str(parameters.pop("options"))
    assert options.startswith("-c work_mem=1MB -c timezone=Asia/Tokyo -c ")
    assert options.rindex("-c timezone=UTC") > options.index("-c timezone=Asia/Tokyo")
    assert parameters == {
        "host": "h",
        "application_name": "mine",
        "replication": "database",
        "client_encoding": "utf8",
        "connect_timeout": "10",
    }


async def test_a_refused_connection_leaves_nothing_behind(capture: Capture) -> None:
    await capture.conn.execute("select pg_drop_replication_slot(%s)", [capture.slot])
    with pytest.raises(SlotError, match="does not exist"):
        await connect(capture, ConsumerSettings())

    async def is_gone() -> bool:
        cursor = await capture.conn.execute(
            "select count(*) from pg_stat_activity"
            " where backend_type = 'walsender' and datname = current_database()"
        )
        return await cursor.fetchone() == (0,)

    await eventually(is_gone)


@pytest.mark.parametrize("fault", ["cut_at", "freeze_at"])
async def test_a_server_that_does_not_answer_is_unavailable(
    capture: Capture, tmp_path: Path, fault: str
) -> None:
    proxy = Proxy(capture.dsn, tmp_path, **{fault: b"START_REPLICATION"})
    async with proxy.listening():
        with pytest.raises(DatabaseUnavailableError, match="START_REPLICATION failed"):
            await connect(capture, ConsumerSettings(connect_timeout_s=1), dsn=proxy.dsn)


async def test_what_is_no_dsn_is_a_wrong_setting(capture: Capture) -> None:
    with pytest.raises(SettingError):
        await connect(capture, ConsumerSettings(), dsn="nonsense")
