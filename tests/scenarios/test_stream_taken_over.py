"""Of two stream processes the leading one is killed: the other takes over, and clients with it."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from butterbase.cli.setup import set_up
from tests.installation import Installation
from tests.realtime.resuming import EVENTS, read
from tests.scenarios.processes import StreamProcesses
from tests.scenarios.test_stream_killed import listening
from tests.waiting import until

TAKE_OVER_S = 15.0
"""On an idle machine it is two; five are promised."""


@pytest.fixture
def processes(
    installation: Installation, control: AsyncConnection, tmp_path: Path
) -> Iterator[StreamProcesses]:
    processes = StreamProcesses(installation, control, tmp_path)
    yield processes
    processes.stop()


async def test_the_other_takes_over_with_the_clients(
    installation: Installation, processes: StreamProcesses, tmp_path: Path
) -> None:
    installation.as_owner(EVENTS)
    await set_up(installation.cluster, database=installation.main.name)  # its slots
    processes.start()
    first = await processes.leader()
    processes.start()
    await processes.standby()
    began_at, _ = await read(installation.main.dsn)
    async with listening(installation, tmp_path, str(began_at)) as clients:
        await until(lambda: all(client.is_joined for client in clients))
        installation.as_owner("insert into events (body) values ('before')")
        await until(lambda: all(client.ids == [1] for client in clients))
        killed_at_s = time.monotonic()
        processes.kill(first)
        installation.as_owner("insert into events (body) values ('between')")
        await until(lambda: all(client.ids == [1, 2] for client in clients), TAKE_OVER_S)
        print(f"taken over in {time.monotonic() - killed_at_s:.1f} s")  # noqa: T201
        second = await processes.leader()
        assert second != first
        installation.as_owner("insert into events (body) values ('after')")
        await until(lambda: all(client.ids == [1, 2, 3] for client in clients))
        assert all(client.join_count == 2 for client in clients)


async def test_one_that_stops_leaves_the_lead_at_once(
    installation: Installation, processes: StreamProcesses, control: AsyncConnection
) -> None:
    processes.start()
    first = await processes.leader()
    processes.start()
    await processes.standby()
    processes.stop_one(first)
    assert await processes.leader() != first
    cursor = await control.execute("select count(*) from butterbase.streams")
    assert await cursor.fetchone() == (1,)
