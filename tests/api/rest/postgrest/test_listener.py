import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg
import pytest

from butterbase.api.rest.postgrest.listener import Listener
from tests.postgres import Database
from tests.waiting import DEADLINE_S, until


class Heard:
    """What the listener asked for; `wait` returns when it has asked once more."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self._changed = asyncio.Event()

    def __call__(self, what: str) -> None:
        self.counts[what] += 1
        self._changed.set()

    async def wait(self, **wanted: int) -> None:
        async with asyncio.timeout(DEADLINE_S):
            while any(self.counts[what] < count for what, count in wanted.items()):
                await self._changed.wait()
                self._changed.clear()


@asynccontextmanager
async def listening(dsn: str, heard: Heard, channel: str = "pgrst") -> AsyncIterator[Listener]:
    async def at_once(_pause_s: float) -> None:
        await asyncio.sleep(0)

    listener = Listener(
        dsn,
        channel,
        on_schema=lambda: heard("schema"),
        on_config=lambda: heard("config"),
        on_failure=lambda: heard("failure"),
        sleep=at_once,
    )
    task = asyncio.create_task(listener.run())
    try:
        await until(lambda: listener.is_listening)
        yield listener
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def notify(database: Database, channel: str, payload: str) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute("select pg_notify(%s, %s)", [channel, payload])


async def test_payloads_ask_for_what_they_say(database: Database) -> None:
    heard = Heard()
    async with listening(database.dsn, heard):
        for payload in ("", "something of the user's", "reload schema", "reload config"):
            notify(database, "pgrst", payload)
        await heard.wait(schema=2, config=1)
    assert heard.counts == {"schema": 2, "config": 1}


async def test_a_channel_may_have_any_name(database: Database) -> None:
    heard = Heard()
    async with listening(database.dsn, heard, 'My "channel"'):
        notify(database, 'My "channel"', "reload config")
        await heard.wait(config=1)


async def test_a_lost_connection_is_made_anew_and_the_schema_read(database: Database) -> None:
    heard = Heard()
    async with listening(database.dsn, heard) as listener:
        with psycopg.connect(database.dsn, autocommit=True) as connection:
            connection.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity"
                " where datname = current_database() and query like 'listen%'"
            )
        await heard.wait(failure=1, schema=1)
        assert listener.is_listening
        notify(database, "pgrst", "reload config")
        await heard.wait(config=1)


@pytest.mark.parametrize("dsn", ["host=127.0.0.1 port=1", "postgresql://127.0.0.1:1/none"])
async def test_a_database_that_is_down_is_tried_again(dsn: str) -> None:
    heard = Heard()
    pauses_s: list[float] = []

    async def note(pause_s: float) -> None:
        pauses_s.append(pause_s)
        await asyncio.sleep(0)

    listener = Listener(
        dsn,
        "pgrst",
        on_schema=lambda: heard("schema"),
        on_config=lambda: heard("config"),
        on_failure=lambda: heard("failure"),
        sleep=note,
    )
    task = asyncio.create_task(listener.run())
    await heard.wait(failure=8)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert pauses_s[:7] == [1, 2, 4, 8, 16, 32, 32]
    assert not listener.is_listening
    assert heard.counts["schema"] == 0
