"""A database whose log is read, and readers that remember what they were told."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from psycopg import AsyncConnection

from butterbase.ingest.changes import Change, Commit, Insert, LogicalMessage
from butterbase.ingest.consumer import Consumer, Reader
from butterbase.ingest.lsn import LSN, ZERO, parse_lsn
from butterbase.ingest.settings import ConsumerSettings
from butterbase.ingest.slot import ensure_publication, ensure_slot
from tests.postgres import Database

CAPTURES = Path(__file__).parents[2] / "sql" / "migrations" / "app" / "0010_captures.sql"

DEADLINE_S = 20.0

FAST = ConsumerSettings(
    status_interval_s=0.2,
    status_gap_s=0.01,
    sender_timeout_s=5.0,
    shutdown_patience_s=0.2,
    backoff_s_min=0.02,
    backoff_s_max=0.1,
    standby_interval_s=0.05,
)


@dataclass
class Recorder:
    """A reader that keeps every commit and calls it durable at once, unless told otherwise.

    Not those without a change: Postgres tells its own transactions too, at times of its choosing.
    """

    commits: list[Commit] = field(default_factory=list)
    durable: LSN | None = ZERO
    is_durable_at_once: bool = True
    _arrived: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def deliver(self, commit: Commit) -> None:
        async with self._arrived:
            if commit.changes:
                self.commits.append(commit)
            if self.is_durable_at_once:
                self.durable = commit.lsn
            self._arrived.notify_all()

    def position(self) -> LSN | None:
        return self.durable

    async def wait_until(self, is_enough: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_S), self._arrived:
            await self._arrived.wait_for(is_enough)

    async def wait_for_commits(self, count: int) -> list[Commit]:
        await self.wait_until(lambda: len(self.commits) >= count)
        return self.commits

    @property
    def changes(self) -> list[Change]:
        return [change for commit in self.commits for change in commit.changes]

    @property
    def ids(self) -> list[int]:
        """The first column of each inserted row."""
        return [int(str(change.new[0])) for change in self.changes if isinstance(change, Insert)]

    async def wait_for_mark(self, conn: AsyncConnection, mark: str = "mark") -> None:
        """Write a message to the log and wait until it, and so all before, has arrived."""
        await conn.execute("select pg_logical_emit_message(true, %s, '')", [mark])
        await self.wait_until(lambda: LogicalMessage(mark, b"") in self.changes)


async def eventually(is_so: Callable[[], Awaitable[bool]]) -> None:
    """For what sends no signal: ask until it is so, or fail at the deadline."""
    async with asyncio.timeout(DEADLINE_S):
        while not await is_so():  # noqa: ASYNC110  what happens in the server sets no event here
            await asyncio.sleep(0.01)


@dataclass
class Capture:
    """A published schema with a slot, and a superuser's connection that writes there."""

    dsn: str
    slot: str
    conn: AsyncConnection

    def consumer(self, *readers: Reader, settings: ConsumerSettings = FAST) -> Consumer:
        return Consumer(
            self.dsn, slot=self.slot, publications=["capture"], readers=readers, settings=settings
        )

    @asynccontextmanager
    async def consuming(
        self, *readers: Reader, settings: ConsumerSettings = FAST
    ) -> AsyncIterator[Consumer]:
        """A consumer that is connected, and closed in the end."""
        consumer = self.consumer(*readers, settings=settings)
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(consumer.run())
            try:
                async with asyncio.timeout(DEADLINE_S):
                    await consumer.wait_connected()
                yield consumer
            finally:
                await consumer.close()

    async def confirmed(self) -> LSN:
        confirmed, _ = await self._slot_state()
        return parse_lsn(confirmed)

    async def walsender(self) -> int | None:
        """The process that serves the slot, None when nobody reads."""
        _, pid = await self._slot_state()
        return pid

    async def wal_lsn(self) -> LSN:
        row = await (await self.conn.execute("select pg_current_wal_lsn()::text")).fetchone()
        assert row is not None
        return parse_lsn(row[0])

    async def _slot_state(self) -> tuple[str, int | None]:
        cursor = await self.conn.execute(
            "select confirmed_flush_lsn::text, active_pid from pg_replication_slots"
            " where slot_name = %s",
            [self.slot],
        )
        row = await cursor.fetchone()
        assert row is not None
        confirmed, pid = row
        return confirmed, pid


@asynccontextmanager
async def capturing(database: Database) -> AsyncIterator[Capture]:
    """A capture of one table."""
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        await conn.execute("create table items (id int primary key, body text)")
        await ensure_publication(conn, "capture", schemas=["public"])
        await ensure_slot(conn, database.name)
        yield Capture(database.dsn, database.name, conn)


@pytest.fixture
async def capture(database: Database) -> AsyncIterator[Capture]:
    async with capturing(database) as capture:
        yield capture


@pytest.fixture
async def recording(database: Database) -> None:
    """Before the capture is made: where its slots are recorded."""
    table, _, _ = CAPTURES.read_text().partition("grant ")
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        await conn.execute("create schema butterbase")
        await conn.execute(table.encode())
