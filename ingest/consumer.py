"""Reads the log and hands each commit, in order, to every reader; then acknowledges.

    stream → frames → assembler → readers
                          └─ progress → standby status

What is acknowledged when is decided in progress.py.
"""

import asyncio
import logging
import random
import tempfile
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import IO, Protocol

from msgspec import Struct

from butterbase.ingest.assembler import Assembler, Prepared
from butterbase.ingest.changes import Commit
from butterbase.ingest.errors import (
    MalformedMessageError,
    PreparedTransactionError,
    ReplicationError,
)
from butterbase.ingest.frames import start_of
from butterbase.ingest.lsn import LSN, ZERO, format_lsn
from butterbase.ingest.progress import Progress
from butterbase.ingest.settings import ConsumerSettings
from butterbase.ingest.stream import ReplicationStream
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError

logger = logging.getLogger(__name__)


class Reader(Protocol):
    """What commits are delivered to.

    In one life of the process each commit is delivered once. After a restart those come again that
    were not acknowledged: a reader skips what its own checkpoint covers.
    """

    async def deliver(self, commit: Commit) -> None:
        """Take the commit. While this waits nothing more is read from the log, for any reader.

        What it raises stops the consumer.
        """
        ...

    def position(self) -> LSN | None:
        """The LSN up to which all commits are durable for this reader, whether it wanted them or
        not: that of a commit, never one less than a commit's, which lies inside its record. None
        for one that keeps nothing and so holds nothing back.
        """
        ...


class Retention(Protocol):
    """Wants part of the log to come again after a restart, whatever the readers say."""

    async def begin(self, lsn: LSN) -> None:
        """The log is told from here on, for the first time or after somebody else read on: what
        came before will not come. Raises DatabaseUnavailableError.
        """
        ...

    def advance(self, lsn: LSN) -> None:
        """Every commit up to here was delivered."""
        ...

    @property
    def held_at(self) -> LSN | None:
        """What follows is to come again."""
        ...


class Lag(Struct, frozen=True):
    behind_bytes: int
    """Log that the server has sent or told of and that readers are not done with. The server may
    have written more that it has not decoded yet: pg_replication_slots knows."""
    behind_s: float
    """The age of the last commit received, 0 when everything is acknowledged."""


class Consumer:
    """One slot's consumer: `run` it, with `close` from elsewhere or cancellation as the end.

    Of several for one slot, in whatever processes, one reads and the others stand by.
    """

    def __init__(
        self,
        dsn: str,
        *,
        slot: str,
        publications: Sequence[str],
        readers: Sequence[Reader],
        retention: Retention | None = None,
        settings: ConsumerSettings | None = None,
    ) -> None:
        self._dsn = dsn
        self._slot = slot
        self._publications = tuple(publications)
        self._readers = tuple(readers)
        self._retention = retention
        self._settings = settings or ConsumerSettings()
        self._progress = Progress()
        self._prepared = Prepared()
        self._stream: ReplicationStream | None = None
        self._wal_end = ZERO
        self._last_commit_at: datetime | None = None
        self._is_standby = False
        self._runner: asyncio.Task[None] | None = None
        self._connected_or_ended = asyncio.Event()

    async def run(self) -> None:
        """Consume until `close`, over as many connections as that takes.

        Raises SlotError, MalformedMessageError, PreparedTransactionError, SettingError, and what a
        reader raises.
        """
        assert self._runner is None, "a consumer runs once"
        self._runner = asyncio.create_task(self._reconnect(), name=f"consumer {self._slot}")
        try:
            await self._runner
        except asyncio.CancelledError:
            # Cancelled by `close`, the runner ended as it should; otherwise it was run itself.
            task = asyncio.current_task()
            if task is not None and task.cancelling():
                raise
        finally:
            self._connected_or_ended.set()

    async def close(self) -> None:
        """End `run`, after telling the server the last position."""
        if self._runner is not None:
            self._runner.cancel()
            await asyncio.wait([self._runner])

    @property
    def is_connected(self) -> bool:
        return self._stream is not None

    @property
    def is_standby(self) -> bool:
        """Whether somebody else reads the slot, and this waits for its turn."""
        return self._is_standby

    async def wait_connected(self) -> None:
        """Wait until commits flow: none that comes after is missed. Raises what ended `run`."""
        while self._stream is None:
            if self._runner is not None and self._runner.done():
                if not self._runner.cancelled():
                    self._runner.result()
                raise ReplicationError("the consumer was closed")
            await self._connected_or_ended.wait()

    @property
    def acknowledged(self) -> LSN:
        """What the server need not send again, from the readers' present positions."""
        return self._progress.acknowledge(
            (reader.position() for reader in self._readers),
            held_at=(
                self._prepared.held_at,
                None if self._retention is None else self._retention.held_at,
            ),
        )

    @property
    def delivered(self) -> LSN:
        """Every commit up to here was handed to each reader."""
        return self._progress.delivered

    @property
    def lag(self) -> Lag:
        durable = self._progress.durable(reader.position() for reader in self._readers)
        behind_bytes = max(0, self._wal_end - durable)
        if not behind_bytes or self._last_commit_at is None:
            return Lag(behind_bytes, 0.0)
        age = datetime.now(UTC) - self._last_commit_at
        return Lag(behind_bytes, max(0.0, age.total_seconds()))

    def position_moved(self) -> None:
        """A reader's position moved outside of `deliver`: tell the server soon."""
        if self._stream is not None:
            self._stream.nudge()

    async def _reconnect(self) -> None:
        loop = asyncio.get_running_loop()
        attempt = 0
        while True:
            began_s = loop.time()
            error = await self._consume_connection()
            if loop.time() - began_s > self._settings.backoff_s_max:
                attempt = 0
            delay_s = self._backoff_s(attempt)
            attempt += 1
            logger.warning("slot %s: %s; connecting again in %.1f s", self._slot, error, delay_s)
            await asyncio.sleep(delay_s)

    def _backoff_s(self, attempt: int) -> float:
        # The exponent is bounded, or a long outage would overflow the float.
        longest_s = min(
            self._settings.backoff_s_max, self._settings.backoff_s_min * 2.0 ** min(attempt, 30)
        )
        # Jitter: the consumers of all apps lose a restarted server at the same moment.
        return longest_s * random.uniform(0.5, 1.0)  # noqa: S311  spreads load, guards nothing

    async def _consume_connection(self) -> ButterbaseError:
        """Connect and deliver until the connection breaks; returns why it did."""
        try:
            stream = await ReplicationStream.connect(
                self._dsn,
                slot=self._slot,
                publications=self._publications,
                position=lambda: self.acknowledged,
                settings=self._settings,
                on_standby=self._stand_by,
                begin=self._begin,
            )
        except (DatabaseUnavailableError, ReplicationError) as error:
            return error
        finally:
            self._is_standby = False
        async with stream:
            self._stream = stream
            self._connected_or_ended.set()
            try:
                return await self._consume(stream)
            finally:
                self._stream = None
                self._connected_or_ended.clear()

    async def _consume(self, stream: ReplicationStream) -> ButterbaseError:
        assembler = Assembler(
            prepared=self._prepared,
            held_bytes_max=self._settings.held_bytes_max,
            open_file=self._open_file,
        )
        while True:
            try:
                frames = await stream.read()
            # Only here: the same error out of a reader must not pass for a broken connection, after
            # which the commit would count as delivered.
            except (DatabaseUnavailableError, ReplicationError) as error:
                return error
            self._wal_end = max(self._wal_end, start_of(frames[-1]))
            for told in self._assemble(assembler, frames):
                if isinstance(told, Commit):
                    await self._deliver(told)
                else:
                    self._advance(told)
            stream.nudge()

    async def _begin(self, confirmed: LSN) -> LSN:
        if confirmed > self._progress.delivered:
            # The first time, or somebody else has read on while we had no connection.
            self._prepared.transactions.clear()
            if self._retention is not None:
                await self._retention.begin(confirmed)
            self._progress.begin(confirmed)
        # What was delivered need not come again: acknowledged it may be only much later.
        return self._progress.delivered

    def _advance(self, lsn: LSN) -> None:
        self._progress.advance(lsn)
        if self._retention is not None:
            self._retention.advance(lsn)

    def _stand_by(self) -> None:
        self._is_standby = True

    def _open_file(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self._settings.spill_directory)

    def _assemble(self, assembler: Assembler, frames: Sequence[bytes]) -> Iterator[Commit | LSN]:
        try:
            yield from assembler.feed(frames)
        except (MalformedMessageError, PreparedTransactionError) as error:
            logger.critical(
                "slot %s: cannot read the log between %s and %s: %s",
                self._slot,
                format_lsn(start_of(frames[0])),
                format_lsn(start_of(frames[-1])),
                error,
            )
            raise

    async def _deliver(self, commit: Commit) -> None:
        self._last_commit_at = commit.at
        if not self._progress.is_repeated(commit.lsn):
            self._progress.begin_delivery(commit.lsn)
            for reader in self._readers:
                await reader.deliver(commit)
        self._advance(commit.lsn)
