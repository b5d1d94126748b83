from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any, TypeAlias

import psycopg
import pytest

from butterbase.sql.pipeline import Executor
from butterbase.sql.relations.introspect import load_schema_cache
from butterbase.sql.relations.model import SchemaCache
from tests.postgres import Database

Load: TypeAlias = Callable[..., Coroutine[Any, Any, SchemaCache]]


@pytest.fixture
async def load(database: Database) -> AsyncIterator[Load]:
    """Run DDL, then load the schemas, by default `api`."""
    executor = Executor(database.dsn, connection_count_max=1)

    async def run_and_load(
        ddl: str, schemas: tuple[str, ...] = ("api",), **options: tuple[str, ...]
    ) -> SchemaCache:
        with psycopg.connect(database.dsn, autocommit=True) as conn:
            conn.execute("create schema if not exists api; set search_path = api;")
            conn.execute(ddl.encode())
        return await load_schema_cache(executor, schemas=schemas, **options)

    yield run_and_load
    await executor.close()
