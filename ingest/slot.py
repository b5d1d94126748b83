"""Sets up what the stream reads from: a publication and a logical replication slot.

https://www.postgresql.org/docs/current/sql-createpublication.html
https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

import logging
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from datetime import datetime
from typing import Final

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection, sql

from butterbase.ingest.errors import PublicationError, SlotError
from butterbase.ingest.lsn import LSN, format_lsn, parse_lsn
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError, is_unavailable

logger = logging.getLogger(__name__)

PLUGIN: Final = "pgoutput"

# Partitions are told under the name of the table that clients know.
_OPTIONS: Final = sql.SQL("(publish_via_partition_root = true)")
# Before 18 the log does not have generated columns. ("stored": virtual ones are nowhere.)
_OPTIONS_18: Final = sql.SQL(
    "(publish_via_partition_root = true, publish_generated_columns = stored)"
)

# Two processes may set up the same capture: the second waits, then finds it done. (The lock makes
# no transaction id, and so is no write before which a slot could not be created.)
_LOCK: Final = "select pg_advisory_xact_lock(hashtextextended('butterbase.capture ' || %s, 0))"

# Making a slot takes several transactions: a slot cannot be made in one that wrote.
_LOCK_SESSION: Final = "select pg_advisory_lock(hashtextextended('butterbase.slot ' || %s, 0))"
_UNLOCK_SESSION: Final = "select pg_advisory_unlock(hashtextextended('butterbase.slot ' || %s, 0))"

# The generated columns' setting is read so that it may be missing.
_PUBLICATION: Final = """
    select pubviaroot and coalesce(to_jsonb(publication) ->> 'pubgencols', 's') = 's'
    from pg_publication publication
    where pubname = %s
"""

# Zero rows: the publication is missing or empty.
_PUBLISHED: Final = """
    select namespace.nspname, null
    from pg_publication publication
    join pg_publication_namespace member on member.pnpubid = publication.oid
    join pg_namespace namespace on namespace.oid = member.pnnspid
    where publication.pubname = %(name)s
    union all
    select namespace.nspname, class.relname
    from pg_publication publication
    join pg_publication_rel member on member.prpubid = publication.oid
    join pg_class class on class.oid = member.prrelid
    join pg_namespace namespace on namespace.oid = class.relnamespace
    where publication.pubname = %(name)s
"""

_SLOT: Final = """
    select plugin, database = current_database(), wal_status, confirmed_flush_lsn::text,
      -- since 17; "rows_removed" and the like
      to_jsonb(slot) ->> 'invalidation_reason'
    from pg_replication_slots slot
    where slot_name = %s
"""

_CREATE: Final = "select lsn::text from pg_create_logical_replication_slot(%s, %s)"
_CREATE_FAILOVER: Final = (
    "select lsn::text from pg_create_logical_replication_slot(%s, %s, failover => true)"
)

FAILOVER_VERSION_MIN: Final = 17_00_00
"""Standbys keep a copy of the slot, where they are set up to (sync_replication_slots)."""

# The first slot has nothing before it to miss. A row without lsn: somebody crashed at this point.
_INTEND: Final = """
    insert into butterbase.captures (slot, resync)
    select %(slot)s::text, case
      when %(lost)s::text is not null then %(lost)s
      when exists (select from butterbase.captures where slot = %(slot)s) then 'missing'
    end
    where not exists (select from butterbase.captures where slot = %(slot)s and lsn is null)
"""
_MADE: Final = """
    update butterbase.captures set lsn = %(lsn)s, made_at = now()
    where slot = %(slot)s and lsn is null
"""
_CAPTURES: Final = """
    select lsn::text, resync, made_at from butterbase.captures
    where slot = %s and lsn is not null order by id
"""
_LAST_CAPTURE: Final = _CAPTURES + " desc limit 1"

# Nobody reads it any more, or is about to stop.
_DROP: Final = """
    select pg_drop_replication_slot(slot_name) from pg_replication_slots where slot_name = %s
"""


async def ensure_publication(
    conn: AsyncConnection,
    name: str,
    *,
    schemas: Collection[str] = (),
    tables: Collection[tuple[str, str]] = (),
) -> None:
    """Make the publication tell of exactly these schemas' tables and these (schema, table) pairs.

    Needs Postgres 15 and a superuser. Raises PublicationError, DatabaseUnavailableError.
    """
    wanted = {(schema, None) for schema in schemas} | set(tables)
    if not wanted:
        raise PublicationError(f"publication {name}: no schema and no table was named")
    identifier = sql.Identifier(name)
    objects = _render_objects(schemas, tables)
    options = _OPTIONS if conn.info.server_version < 18_00_00 else _OPTIONS_18
    with _refused_as(PublicationError, f"publication {name}"):
        async with conn.transaction():
            await conn.execute(_LOCK, [name])
            existing = await (await conn.execute(_PUBLICATION, [name])).fetchone()
            if existing is None:
                await conn.execute(
                    sql.SQL("create publication {} for {} with {}").format(
                        identifier, objects, options
                    )
                )
                return
            published = await (await conn.execute(_PUBLISHED, {"name": name})).fetchall()
            # Altering locks each table and makes every session reload it: only when it must be.
            if set(published) != wanted:
                await conn.execute(
                    sql.SQL("alter publication {} set {}").format(identifier, objects)
                )
            if existing != (True,):
                await conn.execute(
                    sql.SQL("alter publication {} set {}").format(identifier, options)
                )


def _render_objects(
    schemas: Collection[str], tables: Collection[tuple[str, str]]
) -> sql.Composable:
    return sql.SQL(", ").join(
        [sql.SQL("tables in schema {}").format(sql.Identifier(schema)) for schema in schemas]
        + [sql.SQL("table {}").format(sql.Identifier(*table)) for table in tables]
    )


async def ensure_slot(conn: AsyncConnection, name: str) -> LSN:
    """Create the slot where it is missing, and anew where it was invalidated; return the position
    up to which it is acknowledged. What each new slot means is recorded in butterbase.captures.

    Creating waits for the transactions that are writing right now, in any database of the server.
    `conn` must be outside of a transaction. Raises SlotError, DatabaseUnavailableError.
    """
    with _refused_as(SlotError, f"replication slot {name}"):
        await conn.execute(_LOCK_SESSION, [name])
        try:
            found = await _find_slot(conn, name)
            lost = None if found is None else found.lost
            if found is not None and lost is None:
                await _record_made(conn, name, found.lsn)
                return found.lsn
            # Recorded first: a crash in between must not hide the gap.
            await _record_intent(conn, name, lost)
            if found is not None:
                await conn.execute("select pg_drop_replication_slot(%s)", [name])
            lsn = await _create_slot(conn, name)
            await _record_made(conn, name, lsn)
            return lsn
        finally:
            if not conn.closed:
                await conn.execute(_UNLOCK_SESSION, [name])


class Capture(Struct, frozen=True):
    """When the slot was made: from `lsn` on it tells of every commit."""

    lsn: LSN
    resync: str | None
    """Why there is a gap before it; None for the first."""
    at: datetime


async def read_captures(conn: AsyncConnection, slot: str) -> list[Capture]:
    """The oldest first. Needs butterbase.captures."""
    rows = await (await conn.execute(_CAPTURES, [slot])).fetchall()
    return [Capture(parse_lsn(lsn), resync, at) for lsn, resync, at in rows]


async def read_resyncs(conn: AsyncConnection, slot: str) -> list[Capture]:
    """Those that mean a gap: what was committed before `lsn` and not read by then is not in the
    log any more. The oldest first. Needs butterbase.captures.
    """
    return [capture for capture in await read_captures(conn, slot) if capture.resync is not None]


async def read_capture(conn: AsyncConnection, slot: str) -> Capture | None:
    """The last; None where that was not recorded."""
    if not await _has_captures(conn):
        return None
    row = await (await conn.execute(_LAST_CAPTURE, [slot])).fetchone()
    return None if row is None else Capture(parse_lsn(row[0]), *row[1:])


async def drop_slot(conn: AsyncConnection, name: str) -> None:
    """Drop the slot where it is there. Raises SlotError while it is read."""
    with _refused_as(SlotError, f"replication slot {name}"):
        await conn.execute(_DROP, [name])


class _Slot(Struct, frozen=True):
    lsn: LSN
    lost: str | None
    """Why it cannot be read any more."""


async def _find_slot(conn: AsyncConnection, name: str) -> _Slot | None:
    row = await (await conn.execute(_SLOT, [name])).fetchone()
    if row is None:
        return None
    plugin, is_ours, wal_status, confirmed, reason = row
    if plugin != PLUGIN or not is_ours:
        raise SlotError(
            f"replication slot {name} belongs to another database or plugin",
            hint="Slot names are shared by all databases of a server; choose another name.",
        )
    is_lost = wal_status == "lost" or reason is not None
    return _Slot(parse_lsn(confirmed or "0/0"), (reason or "wal_removed") if is_lost else None)


async def _create_slot(conn: AsyncConnection, name: str) -> LSN:
    is_failover = conn.info.server_version >= FAILOVER_VERSION_MIN
    cursor = await conn.execute(_CREATE_FAILOVER if is_failover else _CREATE, [name, PLUGIN])
    row = await cursor.fetchone()
    assert row is not None
    return parse_lsn(row[0])


async def _record_intent(conn: AsyncConnection, name: str, lost: str | None) -> None:
    if await _has_captures(conn):
        await conn.execute(_INTEND, {"slot": name, "lost": lost})
        logger.info("replication slot %s is made%s", name, f" anew: {lost}" if lost else "")


async def _record_made(conn: AsyncConnection, name: str, lsn: LSN) -> None:
    """Where that was not done yet."""
    if await _has_captures(conn):
        await conn.execute(_MADE, {"slot": name, "lsn": format_lsn(lsn)})


async def _has_captures(conn: AsyncConnection) -> bool:
    """A database that is being set up has no tables of ours yet, nor a past."""
    row = await (
        await conn.execute("select to_regclass('butterbase.captures') is not null")
    ).fetchone()
    return row == (True,)


@contextmanager
def _refused_as(refusal: type[ButterbaseError], subject: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None or is_unavailable(error.sqlstate):
            raise DatabaseUnavailableError(str(error)) from error
        raise refusal(f"{subject}: {error}", hint=error.diag.message_hint) from error
