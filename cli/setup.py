"""What must be in a server before the processes run: databases, roles, schemas, and the slots.

A slot keeps the log from its making on. Made before the first request, it misses nothing.
"""

from butterbase.ingest.slot import ensure_publication, ensure_slot
from butterbase.sql.apps import FIRST_APP, App, create_app, set_up_cluster
from butterbase.sql.cluster import Cluster
from butterbase.sql.server import connect

PUBLICATION = "butterbase"

# What the stream process reads: of the control database the apps and events, of an app's database
# every table of the developer's, the documents, and the sessions, whose end ends sockets.
CONTROL_TABLES = (("butterbase", "apps"), ("butterbase", "events"))
APP_SCHEMAS = ("public",)
APP_TABLES = (("ai", "documents"), ("auth", "audit_log_entries"), ("auth", "sessions"))


async def set_up(cluster: Cluster, *, app_id: str = FIRST_APP, database: str | None = None) -> App:
    """Make what is missing and update the rest. Raises SettingError, MigrationError, SlotError."""
    await set_up_cluster(cluster)
    app = await create_app(cluster, app_id, database=database)
    await publish(cluster, app)
    for name in (cluster.control_database, app.database):
        async with await connect(cluster.admin_dsn(name)) as conn:
            await ensure_slot(conn, slot_name(name))
    return app


async def publish(cluster: Cluster, app: App) -> None:
    """What the log tells of the control database and of the app's. Raises PublicationError."""
    async with await connect(cluster.admin_dsn(cluster.control_database)) as conn:
        await ensure_publication(conn, PUBLICATION, tables=CONTROL_TABLES)
    async with await connect(cluster.admin_dsn(app.database)) as conn:
        await ensure_publication(conn, PUBLICATION, schemas=APP_SCHEMAS, tables=APP_TABLES)


def slot_name(database: str) -> str:
    """Slots are the whole server's: each has its database in its name."""
    return f"butterbase_{database}"
