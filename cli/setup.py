"""What must be in a server before the processes run: databases, roles, schemas, publications."""

from butterbase.api.apps import FIRST_APP
from butterbase.ingest.slot import ensure_publication
from butterbase.sql.apps import App, create_app, set_up_cluster
from butterbase.sql.cluster import Cluster
from butterbase.sql.server import connect

PUBLICATION = "butterbase"

# What the stream process reads: of the control database the apps and events, of an app's database
# every table of the developer's, and the documents.
CONTROL_TABLES = (("butterbase", "apps"), ("butterbase", "events"))
APP_SCHEMAS = ("public",)
APP_TABLES = (("ai", "documents"),)


async def set_up(cluster: Cluster, *, app_id: str = FIRST_APP, database: str | None = None) -> App:
    """Make what is missing and update the rest. Raises SettingError, MigrationError."""
    await set_up_cluster(cluster)
    app = await create_app(cluster, app_id, database=database)
    async with await connect(cluster.admin_dsn(cluster.control_database)) as conn:
        await ensure_publication(conn, PUBLICATION, tables=CONTROL_TABLES)
    async with await connect(cluster.admin_dsn(app.database)) as conn:
        await ensure_publication(conn, PUBLICATION, schemas=APP_SCHEMAS, tables=APP_TABLES)
    return app
