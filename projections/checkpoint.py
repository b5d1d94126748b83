"""How far a projection has come: one row, locked and advanced in the projection's transaction."""

from psycopg import AsyncConnection

from butterbase.ingest.lsn import LSN, ZERO, format_lsn, parse_lsn

_LOCK = "select lsn::text from butterbase.checkpoints where projection = %s for update"
_ADVANCE = """
insert into butterbase.checkpoints (projection, lsn) values (%s, %s)
on conflict (projection) do update set lsn = excluded.lsn, updated_at = now()
"""


async def lock_checkpoint(conn: AsyncConnection, projection: str) -> LSN:
    """The last applied commit's LSN, zero before the first; held until the transaction ends."""
    cursor = await conn.execute(_LOCK, [projection])
    row = await cursor.fetchone()
    return ZERO if row is None else parse_lsn(row[0])


async def advance_checkpoint(conn: AsyncConnection, projection: str, lsn: LSN) -> None:
    await conn.execute(_ADVANCE, [projection, format_lsn(lsn)])
