from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from butterbase.api.rest.postgrest.config import PostgrestConfig
from butterbase.api.rest.postgrest.in_database import read_settings
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor
from tests.postgres import Database


@pytest.fixture
def role(database: Database) -> Iterator[str]:
    """A login role of this test, with a name that needs quotes."""
    name = f"Authenticator {database.name}"
    run(database, "create role {role} login superuser password 'x'", name)
    yield name
    run(database, "drop role {role}", name)


@pytest.fixture
async def executor(database: Database, role: str) -> AsyncIterator[Executor]:
    executor = Executor(make_conninfo(database.dsn, user=role, password="x"))
    yield executor
    await executor.close()


def run(database: Database, statement: str, role: str) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(
            sql.SQL(statement).format(role=sql.Identifier(role), db=sql.Identifier(database.name))
        )


PRE_CONFIG = """
create schema "My schema";
create function "My schema".pre_config() returns void language sql as $$
  select set_config('pgrst.db_schemas', 'of the function', true)
       , set_config('pgrst.jwt_aud', 'of the function', true)
       , set_config('pgrst.unheard_of', 'x', true)
$$
"""


async def test_nothing_is_set_in_a_new_database(executor: Executor) -> None:
    assert await read_settings(executor, PostgrestConfig()) == {}


async def test_the_roles_settings_in_this_database_win(
    database: Database, role: str, executor: Executor
) -> None:
    run(database, "alter role {role} set pgrst.jwt_aud = 'anywhere=yes'", role)
    run(database, "alter role {role} set pgrst.db_schemas = 'a, b'", role)
    run(database, "alter role {role} set statement_timeout = '5s'", role)
    run(database, "alter role {role} set pgrst.server_port = '1'", role)
    run(database, "alter role {role} in database {db} set pgrst.db_schemas = 'c'", role)
    run(database, "alter database {db} set pgrst.db_max_rows = '7'", role)
    found = await read_settings(executor, PostgrestConfig())
    assert found == {"jwt-aud": "anywhere=yes", "db-schemas": "c"}


async def test_a_function_sets_what_the_role_does_not(
    database: Database, role: str, executor: Executor
) -> None:
    run(database, PRE_CONFIG, role)
    run(database, "alter role {role} set pgrst.jwt_aud = 'of the role'", role)
    config = PostgrestConfig(db_pre_config="My schema.pre_config")
    found = await read_settings(executor, config)
    assert found == {"db-schemas": "of the function", "jwt-aud": "of the role"}
    assert await read_settings(executor, PostgrestConfig()) == {"jwt-aud": "of the role"}


async def test_a_function_that_is_not_there_is_an_error_of_the_database(
    executor: Executor,
) -> None:
    with pytest.raises(DatabaseError, match="does not exist"):
        await read_settings(executor, PostgrestConfig(db_pre_config='no"where.at_all'))
