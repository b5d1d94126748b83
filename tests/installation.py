"""A migrated installation on the test server: a control database and the app `main`."""

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import psycopg
from msgspec.structs import replace

from butterbase.cli.setup import publish
from butterbase.sql.apps import App, create_app, set_up_cluster
from butterbase.sql.cluster import Cluster
from butterbase.sql.secrets import MasterKey
from tests.postgres import Database, Databases

# Roles, and so their passwords, are the whole server's: one key for all of a run.
MASTER_KEY = MasterKey(b"0123456789abcdef0123456789abcdef")


@dataclass(frozen=True)
class Installation:
    cluster: Cluster
    control: Database
    main: Database
    app: App

    @property
    def owner_dsn(self) -> str:
        """The developer's DSN of the app's database."""
        return self.cluster.owner_dsn("main", self.main.name)

    def as_owner(self, statements: str) -> None:
        """Run the developer's SQL."""
        with psycopg.connect(self.owner_dsn, autocommit=True) as conn:
            conn.execute(statements.encode())


def install(postgres: Databases, control: Database, main: Database) -> Installation:
    cluster = Cluster(postgres.dsn, MASTER_KEY, control_database=control.name)

    async def set_up() -> App:
        await set_up_cluster(cluster)
        app = await create_app(cluster, "main", database=main.name)
        await publish(cluster, app)
        return app

    # Without slots, which cost time: whoever reads the log makes its own.
    return Installation(cluster, control, main, asyncio.run(set_up()))


def copied(postgres: Databases, template: Installation) -> Installation:
    """The template's copy, as setting it up would leave it."""
    control, main = (postgres.create(of.name) for of in (template.control, template.main))
    with psycopg.connect(control.dsn, autocommit=True) as conn:
        conn.execute("update butterbase.apps set database = %s", [main.name])
    cluster = Cluster(postgres.dsn, MASTER_KEY, control_database=control.name)
    return Installation(cluster, control, main, replace(template.app, database=main.name))


@contextmanager
def installed(postgres: Databases, template: Installation | None = None) -> Iterator[Installation]:
    """A new installation, copied from a template where one is given, dropped at the end."""
    if template is None:
        installation = install(postgres, postgres.create(), postgres.create())
    else:
        installation = copied(postgres, template)
    try:
        yield installation
    finally:
        postgres.drop(installation.main.name, installation.control.name)
