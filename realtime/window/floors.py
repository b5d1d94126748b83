"""What of the log is gone for those who come back, kept from one process to the next.

The slot's confirmed position says what was acknowledged, but not which snapshots saw all of that:
the position of a read could not be resumed by a process that was started since.
"""

from typing import Protocol

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.ingest.lsn import LSN, format_lsn, parse_lsn
from butterbase.ingest.snapshots import parse_snapshot
from butterbase.realtime.window.replay import Floor
from butterbase.sql.errors import DatabaseUnavailableError

# Zero rows: nothing was ever released.
_READ = (
    "select until::text, lsn::text, change_count, snapshot from butterbase.floors where slot = %s"
)
_KEEP = """
insert into butterbase.floors (slot, until, lsn, change_count, snapshot)
values (%s, %s, %s, %s, %s)
on conflict (slot) do update set
  until = excluded.until, lsn = excluded.lsn, change_count = excluded.change_count,
  snapshot = excluded.snapshot, kept_at = now()
"""


class Kept(Struct, frozen=True):
    floor: Floor
    until: LSN
    """Behind the floor's commit there is none of ours up to here; so far may be acknowledged."""


class Floors(Protocol):
    """Raises DatabaseUnavailableError."""

    async def read(self) -> Kept | None: ...

    async def keep(self, kept: Kept) -> None: ...


class SlotFloors:
    """In the app's database, by slot. Connects each time, which is seldom."""

    def __init__(self, dsn: str, slot: str) -> None:
        self._dsn = dsn
        self._slot = slot

    async def read(self) -> Kept | None:
        try:
            async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                row = await (await conn.execute(_READ, [self._slot])).fetchone()
        except psycopg.Error as error:
            raise DatabaseUnavailableError(f"the replay floor cannot be read: {error}") from error
        if row is None:
            return None
        until, lsn, change_count, snapshot = row
        floor = Floor(parse_lsn(lsn), change_count, parse_snapshot(snapshot))
        return Kept(floor, parse_lsn(until))

    async def keep(self, kept: Kept) -> None:
        floor = kept.floor
        row = (
            self._slot,
            format_lsn(kept.until),
            format_lsn(floor.lsn),
            floor.change_count,
            str(floor.snapshot),
        )
        try:
            async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                await conn.execute(_KEEP, row)
        except psycopg.Error as error:
            raise DatabaseUnavailableError(f"the replay floor cannot be kept: {error}") from error
