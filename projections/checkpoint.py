"""How far a projection has come: one row, locked and advanced in the projection's transaction.

The lock is an advisory one: whoever takes it before the first statement of a transaction with one
snapshot knows that the snapshot has seen what the checkpoint says.

Rows that were made anew out of the source's tables (projections/renewal.py) hold more than the
position says: what their snapshot saw, wherever in the log it stands.
"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN, ZERO, format_lsn, parse_lsn
from butterbase.ingest.snapshots import Snapshot, parse_snapshot

_KEY = "hashtextextended('butterbase.projection ' || %s, 0)"
_LOCK = f"select pg_advisory_xact_lock({_KEY})"
_LOCK_SESSION = f"select pg_advisory_lock({_KEY})"
_UNLOCK_SESSION = f"select pg_advisory_unlock({_KEY})"

# A row whether there is a checkpoint or not.
_READ_LOCKED = """
select coalesce(checkpoint.lsn, '0/0')::text, renewed_snapshot::text, renewed_lsn::text,
  pg_current_snapshot()::text,
  (select coalesce(max(lsn), '0/0')::text from butterbase.captures
   where id = (select max(id) from butterbase.captures where slot = %s and lsn is not null))
from (values (%s)) wanted (projection)
left join butterbase.checkpoints checkpoint using (projection)
"""
_READ = "select lsn::text from butterbase.checkpoints where projection = %s"
_ADVANCE = """
insert into butterbase.checkpoints (projection, lsn) values (%s, %s)
on conflict (projection) do update set lsn = excluded.lsn, updated_at = now()
"""
_RENEW = """
insert into butterbase.checkpoints (projection, lsn, renewed_snapshot, renewed_lsn)
values (%(projection)s, %(lsn)s, pg_current_snapshot(), pg_current_wal_insert_lsn())
on conflict (projection) do update set
  lsn = greatest(checkpoints.lsn, excluded.lsn), updated_at = now(),
  renewed_snapshot = excluded.renewed_snapshot, renewed_lsn = excluded.renewed_lsn
"""


class Renewal(Struct, frozen=True):
    """When the rows were made anew."""

    snapshot: Snapshot
    lsn: LSN
    """Behind every commit that the snapshot sees."""


class Checkpoint(Struct, frozen=True):
    lsn: LSN
    """Of the last commit that was applied."""
    renewal: Renewal | None
    now: Snapshot
    """Of the moment at which the checkpoint was locked."""
    log_began: LSN
    """Where the slot was made, for the last time."""

    @property
    def is_in_step(self) -> bool:
        """Whether nothing lies between it and the log's beginning: see renewal.resync."""
        return self.lsn >= self.log_began

    def covers(self, commit: Commit) -> bool:
        """Whether the rows hold the commit."""
        if commit.lsn <= self.lsn:
            return True
        renewal = self.renewal
        return (
            renewal is not None and commit.lsn <= renewal.lsn and renewal.snapshot.sees(commit.xid)
        )


async def lock_checkpoint(conn: AsyncConnection, projection: str, slot: str) -> Checkpoint:
    """Held until the transaction ends."""
    await conn.execute(_LOCK, [projection])
    # A statement of its own, which sees what was committed while the first one waited.
    row = await (await conn.execute(_READ_LOCKED, [slot, projection])).fetchone()
    assert row is not None
    lsn, snapshot, renewed_lsn, now, log_began = row
    renewal = None
    if snapshot is not None:
        renewal = Renewal(parse_snapshot(snapshot), parse_lsn(renewed_lsn))
    return Checkpoint(parse_lsn(lsn), renewal, parse_snapshot(now), parse_lsn(log_began))


@asynccontextmanager
async def locked_checkpoint(conn: AsyncConnection, projection: str) -> AsyncIterator[None]:
    """Held by the session: nobody advances the checkpoint meanwhile."""
    await conn.execute(_LOCK_SESSION, [projection])
    try:
        yield
    finally:
        if not conn.closed:
            await conn.execute(_UNLOCK_SESSION, [projection])


async def read_checkpoint(conn: AsyncConnection, projection: str) -> LSN:
    """The last applied commit's LSN, zero before the first."""
    row = await (await conn.execute(_READ, [projection])).fetchone()
    return ZERO if row is None else parse_lsn(row[0])


async def advance_checkpoint(conn: AsyncConnection, projection: str, lsn: LSN) -> None:
    """The checkpoint is locked."""
    await conn.execute(_ADVANCE, [projection, format_lsn(lsn)])


async def renew_checkpoint(conn: AsyncConnection, projection: str, lsn: LSN) -> None:
    """The rows hold what this transaction's snapshot sees, and so every commit up to `lsn`."""
    await conn.execute(_RENEW, {"projection": projection, "lsn": format_lsn(lsn)})
