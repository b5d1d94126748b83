"""`butterbase db`: the developer's own access to an app's database."""

from pathlib import Path
from urllib.parse import quote

import psycopg
from psycopg import AsyncConnection
from psycopg.conninfo import conninfo_to_dict

from butterbase.sql.apps import find_app
from butterbase.sql.cluster import Cluster
from butterbase.sql.errors import SettingError
from butterbase.sql.migrate import migrate, read_migrations


async def database_url(cluster: Cluster, app_id: str) -> str:
    """The DSN of the app's owner role, as a URL. Raises SettingError."""
    app = await find_app(cluster, app_id)
    parts = conninfo_to_dict(cluster.owner_dsn(app_id, app.database))
    host, port = str(parts.get("host", "")), parts.get("port", 5432)
    place = f"/{app.database}?host={quote(host, safe='')}&port={port}"
    if host and not host.startswith("/"):
        place = f"{host}:{port}/{app.database}"
    return f"postgresql://{parts['user']}:{quote(str(parts['password']), safe='')}@{place}"


async def push(cluster: Cluster, app_id: str, folder: Path) -> list[str]:
    """Apply the developer's migrations as the app's owner; the names applied now.

    Raises SettingError, MigrationError.
    """
    migrations = read_migrations(folder)
    app = await find_app(cluster, app_id)
    dsn = cluster.owner_dsn(app_id, app.database)
    try:
        conn = await AsyncConnection.connect(dsn, autocommit=True)
    except psycopg.OperationalError as error:
        raise SettingError(f"cannot connect to the app's database: {error}") from None
    async with conn:
        return await migrate(conn, migrations, table="pushed_migrations")
