"""Sets up what the stream reads from: a publication and a logical replication slot.

https://www.postgresql.org/docs/current/sql-createpublication.html
https://www.postgresql.org/docs/current/view-pg-replication-slots.html
"""

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from typing import Final

import psycopg
from psycopg import AsyncConnection, sql

from butterbase.ingest.errors import PublicationError, SlotError
from butterbase.ingest.lsn import LSN, parse_lsn
from butterbase.sql.errors import ButterbaseError, DatabaseUnavailableError, is_unavailable

PLUGIN: Final = "pgoutput"

# Partitions are told under the name of the table that clients know.
_OPTIONS: Final = sql.SQL("(publish_via_partition_root = true)")

# Two processes may set up the same capture: the second waits, then finds it done. (The lock makes
# no transaction id, and so is no write before which a slot could not be created.)
_LOCK: Final = "select pg_advisory_xact_lock(hashtextextended('butterbase.capture ' || %s, 0))"

_PUBLICATION: Final = "select pubviaroot from pg_publication where pubname = %s"

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
    select plugin, database = current_database(), wal_status, confirmed_flush_lsn::text
    from pg_replication_slots
    where slot_name = %s
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
    with _refused_as(PublicationError, f"publication {name}"):
        async with conn.transaction():
            await conn.execute(_LOCK, [name])
            existing = await (await conn.execute(_PUBLICATION, [name])).fetchone()
            if existing is None:
                await conn.execute(
                    sql.SQL("create publication {} for {} with {}").format(
                        identifier, objects, _OPTIONS
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
                    sql.SQL("alter publication {} set {}").format(identifier, _OPTIONS)
                )


def _render_objects(
    schemas: Collection[str], tables: Collection[tuple[str, str]]
) -> sql.Composable:
    return sql.SQL(", ").join(
        [sql.SQL("tables in schema {}").format(sql.Identifier(schema)) for schema in schemas]
        + [sql.SQL("table {}").format(sql.Identifier(*table)) for table in tables]
    )


async def ensure_slot(conn: AsyncConnection, name: str) -> LSN:
    """Create the slot where it is missing; return the position up to which it is acknowledged.

    Creating waits for the transactions that are writing right now, in any database of the server.
    `conn` must be outside of a transaction that wrote. Raises SlotError, DatabaseUnavailableError.
    """
    with _refused_as(SlotError, f"replication slot {name}"):
        async with conn.transaction():
            await conn.execute(_LOCK, [name])
            lsn = await _find_slot(conn, name)
            if lsn is not None:
                return lsn
            cursor = await conn.execute(
                "select lsn::text from pg_create_logical_replication_slot(%s, %s)", [name, PLUGIN]
            )
            row = await cursor.fetchone()
            assert row is not None
            return parse_lsn(row[0])


async def _find_slot(conn: AsyncConnection, name: str) -> LSN | None:
    row = await (await conn.execute(_SLOT, [name])).fetchone()
    if row is None:
        return None
    plugin, is_ours, wal_status, confirmed = row
    if plugin != PLUGIN or not is_ours:
        raise SlotError(
            f"replication slot {name} belongs to another database or plugin",
            hint="Slot names are shared by all databases of a server; choose another name.",
        )
    if wal_status == "lost":
        raise lost_slot(name)
    return parse_lsn(confirmed)


def lost_slot(name: str) -> SlotError:
    return SlotError(
        f"replication slot {name} was invalidated: the server removed log that was not read yet",
        hint=f"Drop it (select pg_drop_replication_slot('{name}')); it is created anew. Changes in"
        " between are not in the log any more, and so in no projection. A larger"
        " max_slot_wal_keep_size allows for longer pauses.",
    )


@contextmanager
def _refused_as(refusal: type[ButterbaseError], subject: str) -> Iterator[None]:
    try:
        yield
    except psycopg.Error as error:
        if error.sqlstate is None or is_unavailable(error.sqlstate):
            raise DatabaseUnavailableError(str(error)) from error
        raise refusal(f"{subject}: {error}", hint=error.diag.message_hint) from error
