"""The control database, as the role that writes projections."""

from collections.abc import AsyncIterator
from importlib.resources import files

import pytest
from psycopg import AsyncConnection

from butterbase.sql.migrate import migrate, read_migrations
from tests.postgres import Database


@pytest.fixture
async def conn(database: Database) -> AsyncIterator[AsyncConnection]:
    folder = files("butterbase.sql").joinpath("migrations") / "control"
    async with await AsyncConnection.connect(database.dsn, autocommit=True) as conn:
        await migrate(conn, read_migrations(folder))
        await conn.execute("set role butterbase_stream")
        yield conn
