"""Runs a projection: rows and checkpoint in one transaction, so that each commit counts once.

Commits wait in a bounded backlog and are applied in batches; what has no room there is read again
from the log. So a projection that is slow or stuck holds up nobody. A commit that comes again,
after a restart or a lost acknowledgement, is covered by the checkpoint and skipped. What cannot be
applied is tried again, for as long as it takes: a projection never steps over a commit.
"""

import asyncio
import itertools
import logging
from collections.abc import Callable, Sequence
from contextlib import aclosing
from datetime import UTC, datetime

import psycopg
from psycopg import AsyncConnection

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN, format_lsn
from butterbase.ingest.rereading import Log, reread
from butterbase.projections.backlog import Backlog, Limits
from butterbase.projections.checkpoint import advance_checkpoint, lock_checkpoint, read_checkpoint
from butterbase.projections.projection import Projection
from butterbase.projections.renewal import resync
from butterbase.sql.cancelling import check_cancelled
from butterbase.sql.errors import ButterbaseError

logger = logging.getLogger(__name__)

RETRY_FIRST_S = 0.1
RETRY_LONGEST_S = 10.0
VISIBLE_RETRY_S = 0.005


class _OutOfStepError(Exception):
    """The log began anew, behind the checkpoint: the sources are to be read first."""


class ProjectionRunner:
    """A reader of the log (ingest/consumer.py) that keeps one projection up to date."""

    def __init__(
        self,
        projection: Projection,
        log: Log,
        *,
        on_applied: Callable[[], None] = lambda: None,
        limits: Limits | None = None,
        pause_s: float = 0.0,
    ) -> None:
        """`on_applied` is called after each transaction: rows are new, and `position` has moved.

        `pause_s` lies between two transactions: what comes meanwhile goes together.
        """
        self._projection = projection
        self._log = log
        self._on_applied = on_applied
        self._backlog = Backlog(limits)
        self._pause_s = pause_s
        self._has_work = asyncio.Event()

    @property
    def name(self) -> str:
        return self._projection.name

    @property
    def backlog(self) -> Backlog:
        """To look at."""
        return self._backlog

    async def deliver(self, commit: Commit) -> None:
        """Take a commit; never waits."""
        self._backlog.take(commit, is_wanted=self._projection.wants(commit))
        self._has_work.set()

    def position(self) -> LSN | None:
        """Up to where all is durable; None while nothing waits, since then all of it is."""
        return self._backlog.position

    def lag_s(self, now: datetime | None = None) -> float:
        """The age of the oldest commit that is not applied; 0 where none waits."""
        since = self._backlog.since
        return 0.0 if since is None else ((now or datetime.now(UTC)) - since).total_seconds()

    async def run(self) -> None:
        """Apply what comes, until cancelled."""
        delay_s = RETRY_FIRST_S
        while True:
            try:
                async with await AsyncConnection.connect(self._log.dsn, autocommit=True) as conn:
                    if await resync(conn, self._projection, self._log.slot):
                        self._on_applied()
                    self._backlog.cover(await read_checkpoint(conn, self.name))
                    while True:
                        await self._has_work.wait()
                        await self._work(conn)
                        delay_s = RETRY_FIRST_S
            except _OutOfStepError:
                logger.warning("projection %s: the slot was made anew meanwhile", self.name)
                continue
            except (psycopg.Error, ButterbaseError) as error:
                logger.warning("projection %s: %s; trying again", self.name, error)
            except Exception:
                logger.exception("projection %s failed; trying again", self.name)
            check_cancelled()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_LONGEST_S)

    async def _work(self, conn: AsyncConnection) -> None:
        """Apply what is next. Raises what keeps it from being applied."""
        if batch := self._backlog.batch():
            await self._apply(conn, batch)
            self._backlog.forget(batch)
            self._on_applied()
            if self._pause_s:
                await asyncio.sleep(self._pause_s)
        elif self._backlog.missed() is not None:
            await self._read_missed(conn)
        else:
            self._has_work.clear()

    async def _read_missed(self, conn: AsyncConnection) -> None:
        missed = self._backlog.missed()
        assert missed is not None
        logger.info(
            "projection %s is behind: reads the log again from %s to %s",
            self.name,
            format_lsn(missed.after),
            format_lsn(missed.until),
        )
        parts = reread(self._log, after=missed.after, until=missed.until)
        async with aclosing(parts):
            async for part in parts:
                wanted = [commit for commit in part.commits if self._projection.wants(commit)]
                if wanted:
                    await self._apply(conn, wanted)
                at = part.commits[-1].at if part.commits else None
                self._backlog.read_again(part.position, at)
                self._on_applied()

    async def _apply(self, conn: AsyncConnection, batch: Sequence[Commit]) -> None:
        # Nothing tells that a commit has become visible.
        while batch := await self._apply_visible(conn, batch):  # noqa: ASYNC110
            await asyncio.sleep(VISIBLE_RETRY_S)

    async def _apply_visible(
        self, conn: AsyncConnection, batch: Sequence[Commit]
    ) -> Sequence[Commit]:
        """Apply what Postgres shows by now, and return the rest: nothing may follow from what it
        does not show. The log tells a commit a moment before that, and with synchronous replication
        long before.
        """
        async with conn.transaction():
            checkpoint = await lock_checkpoint(conn, self.name, self._log.slot)
            if not checkpoint.is_in_step:
                raise _OutOfStepError
            fresh = [commit for commit in batch if not checkpoint.covers(commit)]
            visible = list(itertools.takewhile(lambda c: checkpoint.now.sees(c.xid), fresh))
            if visible:
                await self._projection.apply(conn, visible)
                await advance_checkpoint(conn, self.name, visible[-1].lsn)
            return fresh[len(visible) :]
