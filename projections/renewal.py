"""Makes a projection's rows anew out of the tables it derives from, beside the running log.

The rows then hold what one snapshot saw. It is kept with the checkpoint: a commit that it saw is
skipped when the log tells it, and any other is applied, so that each counts once.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from psycopg import AsyncConnection, IsolationLevel, sql

from butterbase.ingest.lsn import LSN, ZERO
from butterbase.ingest.slot import read_capture
from butterbase.ingest.snapshots import Snapshot, parse_snapshot
from butterbase.projections.checkpoint import (
    advance_checkpoint,
    lock_checkpoint,
    locked_checkpoint,
    read_checkpoint,
    renew_checkpoint,
)
from butterbase.projections.projection import LogProjection, Projection

logger = logging.getLogger(__name__)

POLL_S = 0.02
PATIENCE_S = 10.0
"""After which a wait for other transactions is told."""


async def rebuild(conn: AsyncConnection, projection: Projection) -> None:
    """Make all rows anew. Commits wait meanwhile to be applied."""
    await _renew(conn, projection, projection.rebuild, ZERO)


async def resync(conn: AsyncConnection, projection: Projection, slot: str) -> bool:
    """Close the gap where the slot was made after the projection's checkpoint; whether it was."""
    capture = await read_capture(conn, slot)
    if capture is None or await read_checkpoint(conn, projection.name) >= capture.lsn:
        return False
    if isinstance(projection, LogProjection):
        await _begin(conn, projection, slot, capture.lsn)
        return True
    # The new slot tells nothing of what was committed before it. All of that must be visible.
    await _wait_for_others(conn)
    logger.info(
        "projection %s: reads its sources, the log began anew: %s",
        projection.name,
        capture.resync or "first start",
    )
    await _renew(conn, projection, projection.resync, capture.lsn)
    return True


async def _begin(conn: AsyncConnection, projection: LogProjection, slot: str, lsn: LSN) -> None:
    """At the slot's beginning: no commit that the log tells is passed over."""
    async with conn.transaction():
        checkpoint = await lock_checkpoint(conn, projection.name, slot)
        if checkpoint.lsn != ZERO:
            logger.warning("projection %s: a part of the log was lost", projection.name)
            await projection.note_gap(conn)
        await advance_checkpoint(conn, projection.name, lsn)


async def _renew(
    conn: AsyncConnection,
    projection: Projection,
    write: Callable[[AsyncConnection], Awaitable[None]],
    lsn: LSN,
) -> None:
    tables = sql.SQL(", ").join(sql.Identifier(*name) for name in projection.tables)
    assert conn.autocommit
    async with locked_checkpoint(conn, projection.name):
        await conn.set_isolation_level(IsolationLevel.REPEATABLE_READ)
        try:
            async with conn.transaction():
                if projection.tables:
                    # Before the first statement that takes the snapshot: no row may be newer.
                    await conn.execute(sql.SQL("lock table {} in exclusive mode").format(tables))
                await renew_checkpoint(conn, projection.name, lsn)
                await write(conn)
        finally:
            if not conn.closed:
                await conn.set_isolation_level(None)


async def _wait_for_others(conn: AsyncConnection) -> None:
    """Wait until every transaction has ended that writes now, as making a slot does."""
    loop = asyncio.get_running_loop()
    began_s, is_told = loop.time(), False
    last = (await _snapshot(conn)).xmax
    while (await _snapshot(conn)).xmin < last:
        if not is_told and loop.time() - began_s > PATIENCE_S:
            is_told = True
            logger.warning("waiting for transactions that were begun before %d", last)
        await asyncio.sleep(POLL_S)


async def _snapshot(conn: AsyncConnection) -> Snapshot:
    row = await (await conn.execute("select pg_current_snapshot()::text")).fetchone()
    assert row is not None
    return parse_snapshot(row[0])
