"""`butterbase projections`: tables that follow from the log, made anew while the log is read."""

from typing import Final

from psycopg import AsyncConnection

from butterbase.projections import renewal
from butterbase.projections.embeddings import Embeddings
from butterbase.projections.projection import Projection
from butterbase.projections.usage import UsageProjection
from butterbase.sql.apps import find_app
from butterbase.sql.cluster import Cluster, LoginRole

OF_APPS: Final[dict[str, type[Projection]]] = {Embeddings.name: Embeddings}
OF_CONTROL: Final[dict[str, type[Projection]]] = {UsageProjection.name: UsageProjection}
NAMES: Final = (*OF_CONTROL, *OF_APPS)


async def rebuild(cluster: Cluster, name: str, app_id: str) -> str:
    """Make the projection's rows anew; the name of its database. One of an app's is that app's.

    Raises SettingError when there is no such app.
    """
    if name in OF_CONTROL:
        database, projection = cluster.control_database, OF_CONTROL[name]()
    else:
        database, projection = (await find_app(cluster, app_id)).database, OF_APPS[name]()
    dsn = cluster.dsn(LoginRole.STREAM, database)
    async with await AsyncConnection.connect(dsn, autocommit=True) as conn:
        await renewal.rebuild(conn, projection)
    return database
