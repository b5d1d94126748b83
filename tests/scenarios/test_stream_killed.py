"""The leading stream process is killed, again and again, under load.

Clients come back and projections go on: each sees each row once, in the order of the commits.
"""

import asyncio
import os
import random
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from psycopg import AsyncConnection

from butterbase.api.apps import keys_of
from butterbase.api.settings import ApiSettings
from butterbase.cli.setup import set_up
from tests.cli.processes import free_port
from tests.installation import Installation
from tests.processes import running
from tests.projections.following import insert_call
from tests.projections.ledger import Ledger, written
from tests.realtime.resuming import EVENTS as EVENTS_TABLE
from tests.realtime.resuming import Truth, read
from tests.scenarios.processes import StreamProcesses
from tests.scenarios.resuming_client import ResumingClient
from tests.scenarios.stream_process import EVENTS, NAMES
from tests.waiting import until

KILL_COUNT = int(os.environ.get("BUTTERBASE_FUZZ_ROUNDS", "5"))
SEED = int(os.environ.get("BUTTERBASE_FUZZ_SEED", random.randrange(1_000_000)))  # noqa: S311
CLIENT_COUNT = 4
WRITER_COUNT = 2
PATIENCE_S = 120.0

DOCUMENT = """
insert into ai.documents (collection_id, content) values (%s, %s)
"""
COLLECTION = "00000000-0000-4000-8000-000000000001"
CALLS = "select count(*)::int from butterbase.events"
COUNTED = "select coalesce(sum(requests), 0)::int from butterbase.usage"
DOCUMENTS = "select count(*)::int from ai.documents"
INDEXED = """
select count(*)::int from ai.index_rows r join ai.documents d on d.id = r.document_id
where exists (select from ai.chunks c where c.document_id = d.id and c.content = d.content)
"""


@pytest.fixture
def truth(installation: Installation) -> Iterator[Truth]:
    installation.as_owner(EVENTS_TABLE)
    truth = Truth(installation)
    yield truth
    truth.drop()


@pytest.fixture
def processes(
    installation: Installation, control: AsyncConnection, tmp_path: Path
) -> Iterator[StreamProcesses]:
    """Not started yet."""
    processes = StreamProcesses(
        installation, control, tmp_path, main="tests.scenarios.stream_process"
    )
    yield processes
    processes.stop()


class Load:
    """Commits and rollbacks of rows, calls and documents, until cancelled."""

    def __init__(self, installation: Installation, chance: random.Random) -> None:
        self._installation = installation
        self._chance = chance

    async def write_rows(self) -> None:
        async with await AsyncConnection.connect(self._installation.owner_dsn) as conn:
            while True:
                count = self._chance.choice([1, 1, 2, 5, 50])
                for _ in range(count):
                    await conn.execute("insert into events (body) values ('a')")
                await (conn.rollback() if self._chance.random() < 0.15 else conn.commit())
                await asyncio.sleep(self._chance.uniform(0, 0.02))

    async def write_calls(self) -> None:
        async with await AsyncConnection.connect(
            self._installation.control.dsn, autocommit=True
        ) as conn:
            while True:
                await insert_call(conn)
                await asyncio.sleep(self._chance.uniform(0, 0.03))

    async def write_documents(self) -> None:
        async with await AsyncConnection.connect(
            self._installation.main.dsn, autocommit=True
        ) as conn:
            await conn.execute(
                "insert into ai.collections (id, name) values (%s, 'all')", [COLLECTION]
            )
            while True:
                await conn.execute(DOCUMENT, [COLLECTION, f"Text {self._chance.random()}"])
                await asyncio.sleep(self._chance.uniform(0, 0.2))


async def test_no_gap_no_double_in_order(
    installation: Installation,
    control: AsyncConnection,
    main: AsyncConnection,
    truth: Truth,
    processes: StreamProcesses,
    tmp_path: Path,
) -> None:
    print("seed", SEED)  # noqa: T201  shown when the test fails
    chance = random.Random(SEED)  # noqa: S311  guards nothing
    await set_up(installation.cluster, database=installation.main.name)  # its slots
    await main.execute("alter table public.events disable row level security")
    await main.execute("grant select on public.events to butterbase_stream")
    ledgers = [Ledger(name, EVENTS) for name in NAMES]
    for ledger in ledgers:
        await main.execute(ledger.make.encode())
    for _ in range(2):
        processes.start()
    await processes.leader()
    began_at, there = await read(installation.main.dsn)
    assert there == []
    async with listening(installation, tmp_path, str(began_at)) as clients:
        async with writing(Load(installation, chance)):
            await kill_leaders(installation, processes, clients, chance)
        # Whatever would come twice comes before what comes now.
        installation.as_owner("insert into events (body) values ('last')")
        expected = await truth.read()
        await until(partial(have, clients, expected[-1]), PATIENCE_S)
    for ledger in ledgers:
        await until(partial(is_applied, main, ledger, expected[-1]), PATIENCE_S)
    for counts in ((control, CALLS, COUNTED), (main, DOCUMENTS, INDEXED)):
        await until(partial(is_projected, *counts), PATIENCE_S)

    assert len(expected) > 10 * KILL_COUNT
    for client in clients:
        assert twice(client.ids) == []
        assert client.ids == expected
    for ledger in ledgers:
        applied = await written(main, ledger)
        assert twice(applied) == []
        assert applied == expected
    assert await number(control, COUNTED) == await number(control, CALLS)


async def kill_leaders(
    installation: Installation,
    processes: StreamProcesses,
    clients: Sequence[ResumingClient],
    chance: random.Random,
) -> None:
    for _ in range(KILL_COUNT):
        leader = await processes.leader()
        match chance.randrange(3):
            case 0:
                pass  # while they come back
            case 1:
                await until(lambda: all(client.is_joined for client in clients), PATIENCE_S)
            case _:
                mark = await write_mark(installation)
                await until(partial(have, clients, mark), PATIENCE_S)
        await asyncio.sleep(chance.uniform(0, 0.5))
        processes.kill(leader)
        processes.start()


async def write_mark(installation: Installation) -> int:
    async with await AsyncConnection.connect(installation.owner_dsn, autocommit=True) as conn:
        return await number(conn, "insert into events (body) values ('mark') returning id")


def have(clients: Sequence[ResumingClient], id_: int) -> bool:
    return all(id_ in client.seen for client in clients)


@asynccontextmanager
async def listening(
    installation: Installation,
    directory: Path,
    position: str,
    **changes: str,
) -> AsyncIterator[list[ResumingClient]]:
    """Clients that come by the api, from the position on."""
    keys = keys_of(installation.cluster, "main", installation.app.created_at, ApiSettings())
    port = free_port()
    url = f"ws://127.0.0.1:{port}/realtime/v1/websocket"
    clients = [
        ResumingClient(url, keys.service_role, position=position, **changes)
        for _ in range(CLIENT_COUNT)
    ]
    with running("api", installation, directory, port=port):
        async with until_end(*(client.run() for client in clients)):
            yield clients


@asynccontextmanager
async def writing(load: Load) -> AsyncIterator[None]:
    writers = [load.write_rows() for _ in range(WRITER_COUNT)]
    async with until_end(*writers, load.write_calls(), load.write_documents()):
        yield


@asynccontextmanager
async def until_end(*runs: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run them beside; what one raises ends all."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(run) for run in runs]
        yield
        for task in tasks:
            task.cancel()


async def number(conn: AsyncConnection, query: str) -> int:
    row = await (await conn.execute(query.encode())).fetchone()
    assert row is not None
    return int(row[0])


async def is_applied(conn: AsyncConnection, ledger: Ledger, id_: int) -> bool:
    return id_ in await written(conn, ledger)


async def is_projected(conn: AsyncConnection, source: str, projected: str) -> bool:
    return await number(conn, projected) >= await number(conn, source)


def twice(ids: list[int]) -> list[int]:
    return [id_ for id_, count in Counter(ids).items() if count > 1]
