"""One connection that hears a channel, and listens again when it is lost."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from butterbase.sql.listening import Listener
from tests.postgres import Database
from tests.waiting import until


class Heard:
    def __init__(self) -> None:
        self.payloads: list[str] = []
        self.listening_count = 0
        self.failure_count = 0

    def listening(self) -> None:
        self.listening_count += 1

    def failed(self) -> None:
        self.failure_count += 1


@asynccontextmanager
async def listening(
    dsn: str, heard: Heard, pauses_s: list[float] | None = None, channel: str = "told"
) -> AsyncIterator[Listener]:
    async def note(pause_s: float) -> None:
        if pauses_s is not None:
            pauses_s.append(pause_s)
        await asyncio.sleep(0)

    listener = Listener(
        dsn,
        channel,
        hear=heard.payloads.append,
        on_listening=heard.listening,
        on_failure=heard.failed,
        sleep=note,
    )
    task = asyncio.create_task(listener.run())
    try:
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def notify(database: Database, payload: str, channel: str = "told") -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("select pg_notify(%s, %s)", [channel, payload])


@pytest.mark.parametrize("channel", ["told", 'My "channel"'])
async def test_payloads_are_heard_in_their_order(database: Database, channel: str) -> None:
    heard = Heard()
    async with listening(database.dsn, heard, channel=channel) as listener:
        await until(lambda: listener.is_listening)
        for payload in ("a", "", "b"):
            notify(database, payload, channel)
        await until(lambda: heard.payloads == ["a", "", "b"])
    assert heard.listening_count == 1


async def test_each_connection_is_told_since_some_may_have_been_missed(database: Database) -> None:
    heard = Heard()
    async with listening(database.dsn, heard) as listener:
        await until(lambda: listener.is_listening)
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and query like 'listen%'"
            )
        await until(lambda: (heard.failure_count, heard.listening_count) == (1, 2))
        notify(database, "again")
        await until(lambda: heard.payloads == ["again"])


@pytest.mark.parametrize("dsn", ["host=127.0.0.1 port=1", "postgresql://127.0.0.1:1/none"])
async def test_a_database_that_is_down_is_tried_again_and_again(dsn: str) -> None:
    heard, pauses_s = Heard(), list[float]()
    async with listening(dsn, heard, pauses_s) as listener:
        await until(lambda: heard.failure_count >= 8)
        assert not listener.is_listening
    assert pauses_s[:7] == [1, 2, 4, 8, 16, 32, 32]
    assert heard.listening_count == 0
