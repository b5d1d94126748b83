"""Runs a projection: rows and checkpoint in one transaction, so that each commit counts once.

Commits wait in a bounded queue and are applied in batches. A commit that comes again, after a
restart or a lost acknowledgement, is at or below the checkpoint and is skipped. What cannot be
applied is tried again, for as long as it takes: a projection never steps over a commit.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN, ZERO
from butterbase.projections.checkpoint import advance_checkpoint, lock_checkpoint
from butterbase.projections.projection import Projection

logger = logging.getLogger(__name__)

QUEUED_CHANGE_COUNT_MAX = 50_000
"""Changes that may wait; beyond it, delivery waits."""

BATCH_CHANGE_COUNT_MAX = 5_000
RETRY_FIRST_S = 0.1
RETRY_LONGEST_S = 10.0


class _Waiting(Struct, frozen=True):
    commit: Commit
    before: LSN
    """The commit before it. Not `commit.lsn - 1`: a commit's LSN is the end of its record, and what
    is acknowledged past the record's beginning is never sent again."""


class ProjectionRunner:
    """A reader of the log (ingest/consumer.py) that keeps one projection up to date."""

    def __init__(
        self, projection: Projection, dsn: str, *, on_applied: Callable[[], None] = lambda: None
    ) -> None:
        """`on_applied` is called after each transaction: rows are new, and `position` has moved."""
        self._projection = projection
        self._dsn = dsn
        self._on_applied = on_applied
        self._waiting: deque[_Waiting] = deque()
        self._waiting_change_count = 0
        self._last_seen = ZERO
        self._changed = asyncio.Condition()

    async def deliver(self, commit: Commit) -> None:
        """Take a commit; waits while too much is queued."""
        before, self._last_seen = self._last_seen, commit.lsn
        if not self._projection.wants(commit):
            return
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._waiting_change_count < QUEUED_CHANGE_COUNT_MAX
            )
            self._waiting.append(_Waiting(commit, before))
            self._waiting_change_count += len(commit.changes)
            self._changed.notify_all()

    def position(self) -> LSN | None:
        """Up to where all is durable; None while nothing waits, since then all of it is."""
        return self._waiting[0].before if self._waiting else None

    async def run(self) -> None:
        """Apply what comes, until cancelled."""
        delay_s = RETRY_FIRST_S
        while True:
            try:
                async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                    while True:
                        await self._apply(conn, await self._next_batch())
                        delay_s = RETRY_FIRST_S
            except psycopg.Error as error:
                logger.warning("projection %s: %s; trying again", self._projection.name, error)
            except Exception:
                logger.exception("projection %s failed; trying again", self._projection.name)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, RETRY_LONGEST_S)

    async def _next_batch(self) -> Sequence[Commit]:
        """The commits at the head of the queue, which stay there until they are applied."""
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._waiting))
            batch: list[Commit] = []
            change_count = 0
            for waiting in self._waiting:
                change_count += len(waiting.commit.changes)
                if batch and change_count > BATCH_CHANGE_COUNT_MAX:
                    break
                batch.append(waiting.commit)
            return batch

    async def _apply(self, conn: AsyncConnection, batch: Sequence[Commit]) -> None:
        name = self._projection.name
        async with conn.transaction():
            checkpoint = await lock_checkpoint(conn, name)
            fresh = [commit for commit in batch if commit.lsn > checkpoint]
            if fresh:
                await self._projection.apply(conn, fresh)
                await advance_checkpoint(conn, name, fresh[-1].lsn)
        await self._forget(batch)
        self._on_applied()

    async def _forget(self, batch: Sequence[Commit]) -> None:
        async with self._changed:
            for commit in batch:
                self._waiting.popleft()
                self._waiting_change_count -= len(commit.changes)
            self._changed.notify_all()
