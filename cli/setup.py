"""What must be in a server before the processes run: databases, roles, schemas, and the slots.

A slot keeps the log from its making on. Made before the first request, it misses nothing.
"""

from collections.abc import Collection
from typing import Final

from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.ingest.changes import QualifiedName
from butterbase.ingest.lsn import LSN
from butterbase.ingest.slot import drop_slot, ensure_publication, ensure_slot
from butterbase.sql.apps import FIRST_APP, App, create_app, set_up_cluster
from butterbase.sql.cluster import Cluster
from butterbase.sql.server import connect

PUBLICATION: Final = "butterbase"

CONTROL_TABLES: Final = (("butterbase", "apps"), ("butterbase", "events"))
APP_SCHEMAS: Final = ("public",)

# The end of a session ends its sockets.
REALTIME_TABLES: Final = (
    ("auth", "audit_log_entries"),
    ("auth", "sessions"),
    ("realtime", "messages"),
)
COLLECTION_TABLES: Final = (("ai", "collections"), ("ai", "documents"))
# Beside those of the schemas that are exposed.
TRIGGER_TABLES: Final = (("auth", "users"), ("functions", "triggers"))

_NEEDS: Final = "select realtime, collections, functions from butterbase.apps where id = %s"
_SCHEMAS: Final = "select nspname from pg_namespace where nspname = any(%s)"
# A database that is being set up has no indexes yet.
_HAS_INDEXES: Final = "select to_regclass('ai.indexes') is not null"
_INDEXED: Final = """
select distinct n.nspname, c.relname
from ai.indexes i
join pg_class c on c.oid = i.source
join pg_namespace n on n.oid = c.relnamespace
where i.dropped_at is null and n.nspname <> all(%s)
"""
_NOTE_SLOT: Final = """
insert into butterbase.app_slots (database, slot) values (%s, %s)
on conflict (database) do update set slot = excluded.slot
"""
_FORGET_SLOT: Final = "delete from butterbase.app_slots where database = %s"


class Needs(Struct, frozen=True):
    """What an app's log is read for. With nothing the app has no slot, which would cost every
    other: a server decodes all of its log for each.
    """

    realtime: bool = True
    collections: bool = True
    functions: bool = True
    """Of which changes invoke some."""

    def __bool__(self) -> bool:
        return self.realtime or self.collections or self.functions

    def schemas(self, exposed: Collection[str]) -> Collection[str]:
        """Those whose tables are captured as wholes. Nobody need have subscribed: who reads a
        table and then subscribes misses nothing of what was committed in between.
        """
        return exposed if self.realtime or self.functions else ()

    @property
    def tables(self) -> tuple[QualifiedName, ...]:
        realtime = REALTIME_TABLES if self.realtime else ()
        functions = TRIGGER_TABLES if self.functions else ()
        return (*realtime, *(COLLECTION_TABLES if self.collections else ()), *functions)


async def set_up(
    cluster: Cluster,
    *,
    app_id: str = FIRST_APP,
    database: str | None = None,
    schemas: Collection[str] = APP_SCHEMAS,
) -> App:
    """Make what is missing and update the rest. Raises SettingError, MigrationError, SlotError."""
    await set_up_cluster(cluster)
    app = await create_app(cluster, app_id, database=database)
    await publish(cluster, app, schemas=schemas)
    async with await connect(cluster.admin_dsn(cluster.control_database)) as control:
        await ensure_slot(control, slot_name(cluster.control_database))
        if await read_needs(control, app):
            async with await connect(cluster.admin_dsn(app.database)) as conn:
                await ensure_app_slot(control, conn, app.database)
    return app


async def publish(cluster: Cluster, app: App, *, schemas: Collection[str] = APP_SCHEMAS) -> None:
    """What the log tells of the control database and of the app's. Raises PublicationError."""
    async with await connect(cluster.admin_dsn(cluster.control_database)) as control:
        await ensure_publication(control, PUBLICATION, tables=CONTROL_TABLES)
        needs = await read_needs(control, app)
    await publish_app(cluster, app.database, needs, schemas)


async def publish_app(
    cluster: Cluster, database: str, needs: Needs, schemas: Collection[str]
) -> None:
    """Bring the app's publication in step with what is needed, as far as it is there by now.

    Raises PublicationError, DatabaseUnavailableError, psycopg.OperationalError.
    """
    if not needs:
        return
    async with await connect(cluster.admin_dsn(database)) as conn:
        cursor = await conn.execute(_SCHEMAS, [list(needs.schemas(schemas))])
        there = [name for (name,) in await cursor.fetchall()]
        tables = [*needs.tables, *(await _indexed_tables(conn, there) if needs.collections else ())]
        await ensure_publication(conn, PUBLICATION, schemas=there, tables=tables)


async def _indexed_tables(conn: AsyncConnection, published: Collection[str]) -> list[QualifiedName]:
    """Those that have an index over their columns and are in none of the published schemas."""
    if await (await conn.execute(_HAS_INDEXES)).fetchone() != (True,):
        return []
    return await (await conn.execute(_INDEXED, [list(published)])).fetchall()


async def read_needs(control: AsyncConnection, app: App) -> Needs:
    row = await (await control.execute(_NEEDS, [app.id])).fetchone()
    return Needs(False, False, False) if row is None else Needs(*row)


async def ensure_app_slot(control: AsyncConnection, conn: AsyncConnection, database: str) -> LSN:
    """See ensure_slot. Noted first, so that it is dropped when its app is gone.

    Raises SlotError, DatabaseUnavailableError.
    """
    await control.execute(_NOTE_SLOT, [database, slot_name(database)])
    return await ensure_slot(conn, slot_name(database))


async def drop_app_slot(control: AsyncConnection, database: str) -> None:
    """Raises SlotError while it is read, DatabaseUnavailableError."""
    await drop_slot(control, slot_name(database))
    await control.execute(_FORGET_SLOT, [database])


def slot_name(database: str) -> str:
    """Slots are the whole server's: each has its database in its name."""
    return f"butterbase_{database}"
