"""Setting up a cluster, and creating apps: databases with an owner, our schemas and our grants."""

import logging
import re
from collections.abc import Sequence
from datetime import datetime
from importlib.resources import files
from typing import LiteralString

from msgspec import Struct
from psycopg import AsyncConnection, sql

from butterbase.sql.cluster import (
    Cluster,
    LoginRole,
    app_authenticator,
    app_database,
    app_owner,
    app_service,
)
from butterbase.sql.errors import SettingError
from butterbase.sql.migrate import Migration, migrate, read_migrations
from butterbase.sql.server import check_server, connect

_MIGRATIONS = files("butterbase.sql").joinpath("migrations")
logger = logging.getLogger(__name__)

FIRST_APP = "main"
"""The app that is made at set-up, and served at the origin's root besides its own prefix."""

_APP_ID = re.compile(r"[a-z][a-z0-9_]{0,39}")


class App(Struct, frozen=True):
    id: str
    database: str
    created_at: datetime


async def set_up_cluster(cluster: Cluster) -> None:
    """Make or update the control database and the login roles. Raises SettingError."""
    async with await connect(cluster.admin_dsn()) as conn:
        await check_server(conn)
        await _create_database(conn, cluster.control_database)
    async with await connect(cluster.admin_dsn(cluster.control_database)) as conn:
        await migrate(conn, read_migrations(_MIGRATIONS / "control"))
        await migrate(conn, _auth_migrations(), table="auth_migrations")
        await _forget_foreign_checkpoints(conn)
        for role in LoginRole:
            await _set_password(conn, role, cluster.password(role))
        await _restrict(conn, cluster.control_database, list(LoginRole))


def _auth_migrations() -> list[Migration]:
    """Those of an app's database that operators sign in by as well."""
    return [m for m in read_migrations(_MIGRATIONS / "app") if "_auth" in m.name]


async def create_app(cluster: Cluster, app_id: str, *, database: str | None = None) -> App:
    """Make an app, or bring the one that is there up to date. Raises SettingError."""
    if not _APP_ID.fullmatch(app_id):
        raise SettingError(
            f"app id {app_id!r}: it must be a lowercase letter, then up to 39 letters, digits or _"
        )
    database, owner = database or app_database(app_id), app_owner(app_id)
    async with await connect(cluster.admin_dsn()) as conn:
        for role, options in _roles(app_id).items():
            await _create_role(conn, role, options)
            await _set_password(conn, role, cluster.password(role))
        await _create_database(conn, database)
        await _restrict(conn, database, [*_roles(app_id), LoginRole.STREAM])
        name = sql.Identifier(database)
        await conn.execute(
            sql.SQL("alter database {} owner to {}").format(name, sql.Identifier(owner))
        )
        await conn.execute(
            sql.SQL('alter database {} set search_path = "$user", public, extensions').format(name)
        )
    async with await connect(cluster.admin_dsn(database)) as conn:
        await migrate(conn, read_migrations(_MIGRATIONS / "app"))
        await _forget_foreign_checkpoints(conn)
    async with await connect(cluster.admin_dsn(cluster.control_database)) as conn:
        await conn.execute(
            "insert into butterbase.apps (id, database) values (%s, %s)"
            " on conflict (id) do update set database = excluded.database",
            [app_id, database],
        )
        app = await _find(conn, app_id)
        assert app is not None
        return app


async def find_app(cluster: Cluster, app_id: str) -> App:
    """Raises SettingError when there is none of that id."""
    async with await connect(cluster.admin_dsn(cluster.control_database)) as conn:
        app = await _find(conn, app_id)
    if app is None:
        raise SettingError(f"there is no app {app_id}")
    return app


async def _find(conn: AsyncConnection, app_id: str) -> App | None:
    cursor = await conn.execute(
        "select id, database, created_at from butterbase.apps where id = %s", [app_id]
    )
    row = await cursor.fetchone()
    return None if row is None else App(*row)


async def _create_database(conn: AsyncConnection, name: str) -> None:
    cursor = await conn.execute("select from pg_database where datname = %s", [name])
    if await cursor.fetchone() is None:
        await conn.execute(
            sql.SQL("create database {} template template0").format(sql.Identifier(name))
        )


async def _forget_foreign_checkpoints(conn: AsyncConnection) -> None:
    """A database restored on another server brings checkpoints that its log has not reached."""
    cursor = await conn.execute(
        "delete from butterbase.checkpoints where lsn > pg_current_wal_insert_lsn()"
        " returning projection"
    )
    for (projection,) in await cursor.fetchall():
        logger.warning("projection %s: its checkpoint is of another server; forgotten", projection)


def _roles(app_id: str) -> dict[str, LiteralString]:
    """The app's login roles, and what they are made with."""
    return {
        # A member of the three, so that a developer can try a policy with `set role`.
        app_owner(app_id): "login noinherit in role anon, authenticated, service_role",
        app_authenticator(app_id): "login noinherit in role anon, authenticated, service_role",
        app_service(app_id): "login inherit in role butterbase_auth",
    }


async def _create_role(conn: AsyncConnection, role: str, options: LiteralString) -> None:
    cursor = await conn.execute("select from pg_roles where rolname = %s", [role])
    if await cursor.fetchone() is None:
        await conn.execute(
            sql.SQL("create role {} {}").format(sql.Identifier(role), sql.SQL(options))
        )


async def _set_password(conn: AsyncConnection, role: str, password: str) -> None:
    # Hashed here, so that the password itself reaches neither the wire nor the server's log.
    verifier = conn.pgconn.encrypt_password(
        password.encode(), str(role).encode(), b"scram-sha-256"
    ).decode()
    await conn.execute(
        sql.SQL("alter role {} password {}").format(
            sql.Identifier(str(role)), sql.Literal(verifier)
        )
    )


async def _restrict(conn: AsyncConnection, database: str, roles: Sequence[str]) -> None:
    """Only these roles (and superusers) may connect."""
    name = sql.Identifier(database)
    await conn.execute(sql.SQL("revoke connect, temporary on database {} from public").format(name))
    await conn.execute(
        sql.SQL("grant connect on database {} to {}").format(
            name, sql.SQL(", ").join(sql.Identifier(str(role)) for role in roles)
        )
    )
