"""The replication socket: frames in, standby statuses out.

psycopg has no replication API, but its binding to libpq has all that is needed:
START_REPLICATION turns the connection into COPY BOTH mode, where each CopyData is a frame.
https://www.postgresql.org/docs/current/protocol-replication.html
"""

import asyncio
import logging
import secrets
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Final, Self

import psycopg
from psycopg import AsyncConnection, pq

from butterbase.ingest.commands import (
    render_confirmed,
    render_copy,
    render_start,
    render_try_lock,
)
from butterbase.ingest.errors import SlotError
from butterbase.ingest.frames import (
    PAYLOAD_AT,
    XLOG_DATA,
    Keepalive,
    StandbyStatus,
    decode_frame,
    encode_status,
)
from butterbase.ingest.lsn import LSN, ZERO, format_lsn, parse_lsn
from butterbase.ingest.pgoutput.reader import POSTGRES_EPOCH
from butterbase.ingest.session import failure, refusal, replication_dsn
from butterbase.ingest.settings import ConsumerSettings
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError, SettingError

logger = logging.getLogger(__name__)

SERVER_VERSION_MIN: Final = 15_00_00
"""The first with TABLES IN SCHEMA and without empty transactions in the log."""

MICROSECOND: Final = timedelta(microseconds=1)

BATCH_BYTES_MAX: Final = 256 * 1024
"""Read at once, before other tasks have their turn; one message may be larger."""


class ReplicationStream:
    """One connection that streams. `read` it all the time; statuses are sent by a task beside."""

    def __init__(
        self, conn: AsyncConnection, position: Callable[[], LSN], settings: ConsumerSettings
    ) -> None:
        self._conn = conn
        self._pgconn = conn.pgconn
        self._socket = conn.pgconn.socket
        self._position = position
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._waiter: asyncio.Future[None] | None = None
        self._failure: BaseException | None = None
        self._is_streaming = False
        self._nudged = asyncio.Event()
        self._waiting_since_s = self._sent_at_s = self._loop.time()
        self._reported = ZERO
        self._stopping_since_s: float | None = None
        self._feedback: asyncio.Task[None] | None = None

    @classmethod
    async def connect(
        cls,
        dsn: str,
        *,
        slot: str,
        publications: Sequence[str],
        position: Callable[[], LSN],
        settings: ConsumerSettings,
        is_copy: bool = False,
        on_standby: Callable[[], None] = lambda: None,
        begin: Callable[[LSN], Awaitable[LSN]] | None = None,
    ) -> Self:
        """Stream from `position()`, or from where the slot stands if that is later. `begin`, where
        it is given, is told where the slot stands once it is ours, and says where to start.

        `position` is asked again at each status: what it returns is acknowledged. With `is_copy`
        through a copy of the slot, beside whoever reads the slot, which is left as it is.
        `on_standby` is called when somebody else is found to read it.

        Raises DatabaseUnavailableError, ReplicationError, SlotError, SettingError.
        """
        try:
            conn = await AsyncConnection.connect(replication_dsn(dsn, settings))
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError(f"no replication connection: {error}") from error
        stream = cls(conn, position, settings)
        try:
            if is_copy:
                slot, start = await stream._copy(slot)
            else:
                await stream._wait_turn(slot, on_standby)
                start = position() if begin is None else await begin(await stream._confirmed(slot))
            async with asyncio.timeout(settings.connect_timeout_s):
                await stream._start(slot, publications, start)
        except BaseException as error:
            await stream.close()
            if isinstance(error, TimeoutError | psycopg.OperationalError):
                reason = str(error) or "timeout"
                raise DatabaseUnavailableError(f"START_REPLICATION failed: {reason}") from error
            raise
        return stream

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.close()

    async def read(self) -> list[bytes]:
        """The frames that have arrived, at least one, undecoded but known to be some: see
        frames.py. At most about BATCH_BYTES_MAX. Gives way to other tasks each time.

        Raises DatabaseUnavailableError, ReplicationError, MalformedMessageError.
        """
        await asyncio.sleep(0)
        try:
            while True:
                if frames := self._take_frames():
                    return frames
                if not self._is_streaming:
                    raise await self._end()
                await self._wait_for_input()
        except psycopg.OperationalError as error:
            raise DatabaseUnavailableError(f"the stream broke: {error}") from error

    def nudge(self) -> None:
        """The position may have moved: tell the server soon instead of at the next interval."""
        self._nudged.set()

    async def close(self) -> None:
        """Tell the server the last position, if it still listens, and hang up."""
        try:
            if self._feedback is not None:
                self._feedback.cancel()
                await asyncio.wait([self._feedback])
            if self._failure is None and self._is_streaming:
                self._send_status()
        except psycopg.OperationalError:
            pass  # It will hear it at the next START_REPLICATION.
        finally:
            await self._conn.close()

    # Setting up

    async def _copy(self, slot: str) -> tuple[str, LSN]:
        """The copy's name, and where to start."""
        copy = f"butterbase_copy_{secrets.token_hex(8)}"
        result = await self._query(slot, render_copy(slot, copy))
        if not result.ntuples:
            raise SlotError(f"slot {slot} is not there to be copied")
        # Of a transaction that was prepared before the start, only its commit would be told.
        return copy, ZERO if result.get_value(0, 0) == b"t" else self._position()

    async def _confirmed(self, slot: str) -> LSN:
        """Zero where there is no slot: starting says what is wrong with it."""
        result = await self._query(slot, render_confirmed(slot))
        text = result.get_value(0, 0) if result.ntuples else None
        return ZERO if text is None else parse_lsn(text.decode())

    async def _wait_turn(self, slot: str, on_standby: Callable[[], None]) -> None:
        """Wait until nobody else reads the slot, as long as it takes: a standby takes over.

        The lock is the replication connection's own, so that it goes when the stream does. It is
        asked for again and again, since a statement that waits would hold back vacuum.
        """
        query = render_try_lock(slot)
        is_standby = False
        while (await self._query(slot, query)).get_value(0, 0) != b"t":
            if not is_standby:
                is_standby = True
                logger.info("slot %s has a reader: standing by", slot)
                on_standby()
            await asyncio.sleep(self._settings.standby_interval_s)

    async def _query(self, slot: str, query: bytes) -> pq.abc.PGresult:
        async with asyncio.timeout(self._settings.connect_timeout_s):
            self._pgconn.send_query(query)
            self._pgconn.flush()
            result = await self._result()
            while await self._result() is not None:
                pass
        if result is None or result.status != pq.ExecStatus.TUPLES_OK:
            raise refusal(slot, result)
        return result

    async def _start(self, slot: str, publications: Sequence[str], start: LSN) -> None:
        server_version = self._pgconn.server_version
        if server_version < SERVER_VERSION_MIN:
            raise SettingError(f"Postgres {server_version // 10000} is too old: 15 is needed")
        self._pgconn.send_query(
            render_start(slot, publications, start=start, server_version=server_version)
        )
        self._pgconn.flush()
        result = await self._result()
        if result is None or result.status != pq.ExecStatus.COPY_BOTH:
            raise refusal(slot, result)
        self._is_streaming = True
        self._feedback = asyncio.create_task(self._report(), name=f"standby status {slot}")
        logger.info("streaming from slot %s after %s", slot, format_lsn(start))

    # Reading

    def _take_frames(self) -> list[bytes]:
        """What libpq and the socket have. Answers the server's requests for a status on the way."""
        frames: list[bytes] = []
        room = BATCH_BYTES_MAX
        while self._is_streaming and room > 0:
            if not (taken := self._take_buffered(frames)):
                # libpq reads 16 KiB at a time: asking the event loop for each costs more than
                # asking the socket once too often.
                self._pgconn.consume_input()
                if not (taken := self._take_buffered(frames)):
                    break
            room -= taken
        return frames

    def _take_buffered(self, frames: list[bytes]) -> int:
        """What libpq has buffered; its size in bytes."""
        get_copy_data = self._pgconn.get_copy_data
        taken = 0
        while True:
            size, data = get_copy_data(1)
            if size <= 0:
                self._is_streaming = size == 0
                return taken
            frame = bytes(data)
            if frame[0] != XLOG_DATA or size < PAYLOAD_AT:
                control = decode_frame(frame)
                if isinstance(control, Keepalive) and control.reply_requested:
                    self._answer()
            frames.append(frame)
            taken += size

    async def _wait_for_input(self) -> None:
        if self._failure is not None:
            raise self._failure
        self._waiting_since_s = self._loop.time()
        self._waiter = self._loop.create_future()
        self._loop.add_reader(self._socket, _wake, self._waiter)
        try:
            await self._waiter
        finally:
            self._loop.remove_reader(self._socket)
            self._waiter = None
        self._pgconn.consume_input()

    async def _result(self) -> pq.abc.PGresult | None:
        while self._pgconn.is_busy():
            await self._wait_for_input()
        return self._pgconn.get_result()

    async def _end(self) -> ButterbaseError:
        """Why the server ended the stream."""
        result = await self._result()
        if result is None or result.status == pq.ExecStatus.COMMAND_OK:
            return DatabaseUnavailableError("the server ended the stream")
        return failure(result)

    # Reporting

    async def _report(self) -> None:
        """Send statuses until cancelled, also while nobody reads: the server drops a silent peer,
        and keeps log that is not acknowledged.
        """
        try:
            while True:
                try:
                    async with asyncio.timeout_at(self._due_s()):
                        await self._nudged.wait()
                except TimeoutError:
                    self._check_silence()
                    self._check_shutdown()
                    # The answer shows that the server lives, and how far its log has come.
                    self._send_status(reply_requested=True)
                    continue
                self._nudged.clear()
                if self._position() != self._reported:
                    self._send_status()
                    await asyncio.sleep(self._settings.status_gap_s)
        except Exception as error:
            # Whoever reads must hear of it: a stream without statuses would never end, nor advance.
            self._fail(error)

    def _answer(self) -> None:
        """Answer a server that asks for a status.

        It asks after half of its timeout without one. When it asks earlier it is shutting down, and
        waits until everything is acknowledged: the next question follows on each answer, so only
        the first is answered here, the others when the position moves.
        """
        now_s = self._loop.time()
        # Less than a half: the server rounds to milliseconds.
        if now_s - self._sent_at_s >= 0.45 * self._settings.sender_timeout_s:
            self._send_status()
        elif self._stopping_since_s is None:
            self._stopping_since_s = now_s
            self._send_status()
            self.nudge()

    def _due_s(self) -> float:
        interval_due_s = self._sent_at_s + self._settings.status_interval_s
        if self._stopping_since_s is None:
            return interval_due_s
        return min(interval_due_s, self._stopping_since_s + self._settings.shutdown_patience_s)

    def _check_shutdown(self) -> None:
        """Raises DatabaseUnavailableError when the server has waited for us long enough: what is
        not durable by then comes again after its restart.
        """
        if (
            self._stopping_since_s is not None
            and self._loop.time() >= self._stopping_since_s + self._settings.shutdown_patience_s
        ):
            raise DatabaseUnavailableError("the server is shutting down")

    def _check_silence(self) -> None:
        """Raises DatabaseUnavailableError when we wait for a server that has gone silent."""
        silence_s = self._loop.time() - self._waiting_since_s
        if self._waiter is not None and silence_s > self._settings.sender_timeout_s:
            raise DatabaseUnavailableError(f"the server has been silent for {silence_s:.0f} s")

    def _send_status(self, *, reply_requested: bool = False) -> None:
        position = self._position()
        now_us = (datetime.now(UTC) - POSTGRES_EPOCH) // MICROSECOND
        # What we hold in memory we do not call written. As long as it differs from what was sent,
        # the server follows up with keepalives, from which the position advances past the traffic
        # that is not published.
        status = StandbyStatus(position, position, now_us, reply_requested)
        self._pgconn.put_copy_data(encode_status(status))
        # What a full socket does not take now goes with the next status.
        self._pgconn.flush()
        self._reported = position
        self._sent_at_s = self._loop.time()

    def _fail(self, error: BaseException) -> None:
        self._failure = self._failure or error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_exception(error)


def _wake(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)
