"""One database's log: its slot, its consumer, the projections, and what else reads it."""

import asyncio
import logging
from collections.abc import Callable, Coroutine, Sequence
from typing import Any, Protocol, runtime_checkable

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.cli.errors import first_of
from butterbase.cli.setup import PUBLICATION, slot_name
from butterbase.ingest.consumer import Consumer, Reader, Retention
from butterbase.ingest.lsn import LSN
from butterbase.ingest.rereading import Log
from butterbase.ingest.slot import ensure_slot, read_resyncs
from butterbase.projections.projection import Projection
from butterbase.projections.runner import ProjectionRunner
from butterbase.projections.status import LogStatus, ProjectionStatus, RealtimeStatus
from butterbase.sql.cancelling import check_cancelled
from butterbase.sql.errors import DatabaseUnavailableError, SettingError

logger = logging.getLogger(__name__)

RETRY_S = 0.5


@runtime_checkable
class Worker(Reader, Protocol):
    """A reader with work of its own."""

    def run(self) -> Coroutine[Any, Any, None]:
        """Until cancelled."""
        ...


class Beginning(Struct, frozen=True):
    """Where a slot stands when it begins to be read."""

    lsn: LSN
    """What is acknowledged."""
    resync_count: int


class FollowedLog:
    """`run` it once."""

    def __init__(
        self,
        log: Log,
        beginning: Beginning,
        *,
        app_id: str | None = None,
        projections: Sequence[Projection] = (),
        readers: Sequence[Reader] = (),
        retention: Retention | None = None,
        on_applied: Callable[[], None] = lambda: None,
        realtime: Callable[[], RealtimeStatus] | None = None,
        pause_s: float = 0.0,
    ) -> None:
        """`app_id` is None for the control database's; `on_applied` is called when a projection
        has written something; `pause_s` is the projections', between two transactions.
        """

        def applied() -> None:
            on_applied()
            self.consumer.position_moved()

        self._beginning = beginning
        self._app_id = app_id
        self._runners = [
            ProjectionRunner(p, log, on_applied=applied, pause_s=pause_s) for p in projections
        ]
        everyone: list[Reader] = [*self._runners, *readers]
        self._workers = [reader for reader in everyone if isinstance(reader, Worker)]
        self._realtime = realtime
        self._log = log
        self.consumer = Consumer(
            log.dsn,
            slot=log.slot,
            publications=log.publications,
            readers=everyone,
            retention=retention,
        )

    async def run(self) -> None:
        """Until cancelled. Raises what ends the consumer: SlotError, and others."""
        try:
            async with asyncio.TaskGroup() as group:
                workers = [group.create_task(worker.run()) for worker in self._workers]
                try:
                    await self.consumer.run()
                finally:
                    for worker in workers:
                        worker.cancel()
        except ExceptionGroup as failures:
            raise first_of(failures) from None

    def status(self) -> LogStatus:
        delivered = max(self.consumer.delivered, self._beginning.lsn)
        return LogStatus(
            database=self._log.slot.removeprefix(slot_name("")),
            app_id=self._app_id,
            is_connected=self.consumer.is_connected,
            delivered=delivered,
            acknowledged=max(self.consumer.acknowledged, self._beginning.lsn),
            lag_s=self.consumer.lag.behind_s,
            resync_count=self._beginning.resync_count,
            projections=[self._projection_status(runner, delivered) for runner in self._runners],
            realtime=None if self._realtime is None else self._realtime(),
        )

    def _projection_status(self, runner: ProjectionRunner, delivered: LSN) -> ProjectionStatus:
        position, backlog = runner.position(), runner.backlog
        return ProjectionStatus(
            name=runner.name,
            position=delivered if position is None else max(position, self._beginning.lsn),
            lag_s=runner.lag_s(),
            waiting_changes=backlog.waiting_change_count,
            waiting_bytes=backlog.waiting_bytes,
            is_behind=backlog.is_behind,
        )


async def begin(
    log: Log, make_slot: Callable[[AsyncConnection], Coroutine[Any, Any, LSN]] | None = None
) -> Beginning:
    """Make the slot where it is missing or lost. Waits for a database that is away.

    Raises SlotError.
    """
    while True:
        try:
            async with await AsyncConnection.connect(log.dsn, autocommit=True) as conn:
                lsn = await (ensure_slot(conn, log.slot) if make_slot is None else make_slot(conn))
                return Beginning(lsn, len(await read_resyncs(conn, log.slot)))
        except (psycopg.OperationalError, DatabaseUnavailableError, SettingError) as error:
            check_cancelled()
            logger.warning("%s: %s; trying again", log.slot, error)
            await asyncio.sleep(RETRY_S)


def log_at(dsn: str, database: str) -> Log:
    return Log(dsn, slot_name(database), (PUBLICATION,))
