"""What a stream process tells of itself: a row of `butterbase.streams`, written every few seconds.

The api's workers read it, in whatever process or container, for `/readyz` and `/metrics`. The table
is not logged: telling how far the log is read must not write to it.
"""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from datetime import datetime
from typing import Final

import msgspec
import psycopg
from msgspec import Struct
from psycopg import AsyncConnection

logger = logging.getLogger(__name__)

INTERVAL_S: Final = 2.0
FORGOTTEN_AFTER_S: Final = 300
"""A process that was killed has left its row."""

_WRITE = """
insert into butterbase.streams (id, seen_at, wal_lsn, status)
values (%(id)s, clock_timestamp(), pg_current_wal_lsn(), %(status)s)
on conflict (id) do update set
  seen_at = excluded.seen_at, wal_lsn = excluded.wal_lsn, status = excluded.status
"""
_FORGET = """
delete from butterbase.streams where seen_at < clock_timestamp() - make_interval(secs => %s)
"""
_LEAVE = "delete from butterbase.streams where id = %s"


class ProjectionStatus(Struct, frozen=True):
    name: str
    position: int
    """LSN up to which all is durable."""
    lag_s: float
    """Age of the oldest commit that is not applied, 0 where none waits."""
    waiting_changes: int
    """In memory."""
    waiting_bytes: int
    is_behind: bool
    """Whether more waits in the log than in memory."""


class RealtimeStatus(Struct, frozen=True):
    subscribers: int
    queued_changes: int


class LogStatus(Struct, frozen=True):
    database: str
    app_id: str | None
    """None: the control database."""
    is_connected: bool
    delivered: int
    """LSN up to which every commit was handed to all readers."""
    acknowledged: int
    """LSN up to which the server need not keep the log for us."""
    lag_s: float
    """Age of the last commit received, 0 where all that the server told of is delivered."""
    resync_count: int
    """How often the log had to begin anew."""
    projections: list[ProjectionStatus]
    realtime: RealtimeStatus | None


class SocketStatus(Struct, frozen=True):
    """Since the process began, but for `open`."""

    open: int = 0
    frames_sent: int = 0
    frames_dropped: int = 0
    """Meant for a socket that was closing, which its client knows."""


class StreamStatus(Struct, frozen=True):
    host: str
    pid: int
    started_at: datetime
    is_leading: bool
    """Of several one leads, and the others stand by."""
    rss_bytes: int
    sockets: SocketStatus
    logs: list[LogStatus]


class StatusPublisher:
    """Writes this process's row."""

    def __init__(self, id_: str, control_dsn: str, read: Callable[[], StreamStatus]) -> None:
        """`id_` is this process's alone."""
        self._id = id_
        self._dsn = control_dsn
        self._read = read

    async def run(self) -> None:
        """Until cancelled; then the row is taken back."""
        while True:
            try:
                async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                    await self._publish(conn)
            except psycopg.Error as error:
                logger.warning("what the stream does cannot be told: %s", error)
            await asyncio.sleep(INTERVAL_S)

    async def _publish(self, conn: AsyncConnection) -> None:
        await conn.execute(_FORGET, [FORGOTTEN_AFTER_S])
        try:
            while True:
                status = msgspec.json.encode(self._read()).decode()
                await conn.execute(_WRITE, {"id": self._id, "status": status})
                await asyncio.sleep(INTERVAL_S)
        except asyncio.CancelledError:
            with contextlib.suppress(TimeoutError, psycopg.Error):
                async with asyncio.timeout(INTERVAL_S):
                    await conn.execute(_LEAVE, [self._id])
            raise
