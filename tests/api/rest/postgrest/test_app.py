"""The app over a database that comes and goes."""

import asyncio
import os
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from butterbase.api.rest.errors import RestError
from butterbase.api.rest.postgrest import app as module
from butterbase.api.rest.postgrest.app import PostgrestApp
from butterbase.api.rest.postgrest.loading import Sources, dsn_of
from butterbase.api.rest.postgrest.sources import read_config
from butterbase.api.rest.postgrest.unreachable import Unreachable
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.rest.response import Answer
from butterbase.sql.claims import Claims, claims_for_role
from butterbase.sql.errors import DatabaseUnavailableError, SettingError
from butterbase.sql.relations.introspect import load_schema_cache
from butterbase.sql.relations.model import SchemaCache
from tests.postgres import Database
from tests.serving import client_of
from tests.waiting import until


def app(database: Database, file: Path | None = None, **variables: str) -> PostgrestApp:
    superuser = str(conninfo_to_dict(database.dsn)["user"])
    found = {"PGRST_DB_URI": database.dsn, "PGRST_DB_ANON_ROLE": superuser, **variables}
    return PostgrestApp(Sources(found, file), body_bytes_max=1024)


async def get(client: httpx.AsyncClient, path: str) -> tuple[int, Any]:
    answer = await client.get(path)
    return answer.status_code, answer.json()


def run(database: Database, statement: str) -> None:
    with psycopg.connect(database.dsn, autocommit=True) as connection:
        connection.execute(statement.encode())


async def test_what_was_read_before_serves_while_the_database_is_lost(database: Database) -> None:
    run(database, "create table public.things as select 1 as id")
    served = app(database)
    async with client_of(served) as client:
        assert await get(client, "/things") == (200, [{"id": 1}])
        # Once at the start, and once it listened.
        await until(lambda: served.is_ready and served.loaded_count == 2)
        loaded = served.loaded_count
        run(
            database,
            "select pg_terminate_backend(pid) from pg_stat_activity"
            " where datname = current_database() and pid <> pg_backend_pid()",
        )
        await until(lambda: served.loaded_count > loaded)  # since it may have missed one
        assert await get(client, "/things") == (200, [{"id": 1}])


async def test_a_database_that_cannot_be_reached_has_postgrests_code() -> None:
    found = {"PGRST_DB_URI": "host=127.0.0.1 port=1", "PGRST_DB_ANON_ROLE": "x"}
    served = PostgrestApp(Sources(found), body_bytes_max=1024)
    async with client_of(served) as client:
        status, body = await get(client, "/things")
        assert (status, body["code"]) == (503, "PGRST002")
        assert not served.is_ready
        assert served.failed_count >= 1


async def test_a_schema_that_we_cannot_make_sense_of_is_told_and_tried_again(
    database: Database, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failing = [True]

    async def load(*executor: Any, **options: Any) -> SchemaCache:
        if failing[0]:
            raise KeyError("a bug")
        return await load_schema_cache(*executor, **options)

    monkeypatch.setattr(module, "load_schema_cache", load)
    served = app(database)
    async with client_of(served) as client:
        status, body = await get(client, "/things")
        assert (status, body["code"], served.is_ready) == (503, "PGRST002", False)
        assert "a bug" in caplog.text
        failing[0] = False
        await until(lambda: served.is_ready)


async def test_what_changed_before_the_channel_was_listened_on_is_read(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    listen = PostgrestApp._listen

    def change_and_listen(served: PostgrestApp) -> None:
        run(database, "create table public.late as select 1 as id; notify pgrst")
        listen(served)

    monkeypatch.setattr(PostgrestApp, "_listen", change_and_listen)
    served = app(database)
    async with client_of(served) as client:
        await until(lambda: served.loaded_count >= 2)
        assert await get(client, "/late") == (200, [{"id": 1}])


async def test_a_request_that_waited_too_long_for_a_connection_has_postgrests_code(
    database: Database,
) -> None:
    run(database, "create view public.slow as select pg_sleep(600)::text as slept")
    served = app(
        database,
        PGRST_DB_POOL="1",
        PGRST_DB_POOL_ACQUISITION_TIMEOUT="1",
        PGRST_DB_CHANNEL_ENABLED="false",
    )
    async with client_of(served) as client:
        slow = asyncio.create_task(client.get("/slow"))
        with psycopg.connect(database.dsn, autocommit=True) as conn:

            async def is_under_way() -> bool:
                row = conn.execute(
                    "select count(*) from pg_stat_activity"
                    " where datname = current_database() and wait_event = 'PgSleep'"
                ).fetchone()
                return row == (1,)

            await until(is_under_way)
        answer = await client.get("/slow")
        assert (answer.status_code, answer.json()["code"]) == (504, "PGRST003")
        slow.cancel()


async def test_a_configuration_that_changes_keeps_what_was_verified(database: Database) -> None:
    secret = "s" * 32
    served = app(database, PGRST_JWT_SECRET=secret)
    async with client_of(served):
        verified = served.authenticator
        run(database, "notify pgrst, 'reload config'")
        await until(lambda: served.is_ready)
        assert served.authenticator is verified


async def test_a_schema_that_loads_for_long_does_not_bring_an_old_configuration_back(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    go_on.set()
    began = 0

    async def load(*executor: Any, **options: Any) -> SchemaCache:
        nonlocal began
        began += 1
        await go_on.wait()
        return await load_schema_cache(*executor, **options)

    monkeypatch.setattr(module, "load_schema_cache", load)
    run(database, "create table public.things as select generate_series(1, 3) as id")
    file = tmp_path / "postgrest.conf"
    file.write_text("db-max-rows = 1")
    served = app(database, file)
    async with client_of(served) as client:
        await until(lambda: served.is_ready and served.loaded_count == 2)
        go_on.clear()
        served.reload_schema()
        await until(lambda: began == 3)
        file.write_text("db-max-rows = 2")
        served.reload_config()
        await until(lambda: served.config.db_max_rows == 2)
        go_on.set()
        await until(lambda: served.loaded_count == 3)
        assert served.config.db_max_rows == 2
        assert await get(client, "/things") == (200, [{"id": 1}, {"id": 2}])


async def test_a_schema_is_that_of_the_configuration_in_force(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    go_on = asyncio.Event()
    go_on.set()
    loaded: list[str] = []

    async def load(*executor: Any, schemas: tuple[str, ...], **options: Any) -> SchemaCache:
        loaded.extend(schemas)
        await go_on.wait()
        return await load_schema_cache(*executor, schemas=schemas, **options)

    monkeypatch.setattr(module, "load_schema_cache", load)
    run(database, "create schema api; create table api.things as select 1 as id")
    file = tmp_path / "postgrest.conf"
    file.write_text('db-schemas = "api"')
    served = app(database, file)
    async with client_of(served) as client:
        await until(lambda: served.is_ready and served.loaded_count == 2)
        go_on.clear()
        file.write_text("")  # as it is for a moment while somebody writes it
        served.reload_schema()
        await until(lambda: loaded == ["api", "api", "public"])
        file.write_text('db-schemas = "api"\ndb-max-rows = 2')
        served.reload_config()
        await until(lambda: served.config.db_max_rows == 2)
        go_on.set()
        await until(lambda: served.loaded_count == 3)
        assert await get(client, "/things") == (200, [{"id": 1}])


async def test_without_in_database_configuration_roles_have_no_settings_of_their_own(
    database: Database,
) -> None:
    served = app(database, PGRST_DB_CONFIG="false")
    async with client_of(served):
        assert served.holder.current is not None
        assert served.holder.current.role_settings == {}


def test_the_connection_string_is_libpqs(tmp_path: Path) -> None:
    def dsn(uri: str) -> str:
        return dsn_of(read_config({"PGRST_DB_URI": uri}, {}, {}, lambda _path: ""))

    assert dsn("") == "fallback_application_name='butterbase rest'"
    assert "host=h" in dsn("postgres://u:p@h:5/d?sslmode=require")
    assert "dbname=d" in dsn("host=h dbname=d")
    with pytest.raises(SettingError, match="db-uri"):
        dsn("tmp_db")


def test_a_secret_may_be_a_file_of_any_bytes(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(bytes(range(200, 240)))
    sources = Sources({"PGRST_JWT_SECRET": f"@{tmp_path}/secret"})
    assert sources.read().jwt_secret is not None
    with pytest.raises(SettingError, match="cannot be read"):
        Sources(os.environ, tmp_path / "none").read()


async def test_a_connection_that_is_lost_has_postgrests_code() -> None:
    class Lost:
        async def answer(self, http: HttpRequest, claims: Claims, body: bytes = b"") -> Answer:
            raise DatabaseUnavailableError("no connection to db-7.internal")

    with pytest.raises(RestError) as caught:
        await Unreachable(Lost()).answer(HttpRequest("GET", "/", "", []), claims_for_role("x"))
    assert (caught.value.status, caught.value.code) == (503, "PGRST000")
    assert caught.value.message == "Database connection error."
    assert caught.value.details == "The database cannot be reached right now."
