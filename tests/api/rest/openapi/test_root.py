import uuid
from collections.abc import AsyncIterator
from typing import Any, TypeAlias

import msgspec
import psycopg
import pytest

from butterbase.api.rest.errors import MediaTypeError, OpenApiDisabledError, UnsupportedMethodError
from butterbase.api.rest.request.incoming import HttpRequest
from butterbase.api.rest.response import Answer
from butterbase.api.rest.service import RestService
from butterbase.api.rest.settings import RestSettings
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor
from butterbase.sql.relations.introspect import load_schema_cache
from butterbase.sql.relations.model import SchemaCache
from tests.postgres import Database

DDL = """
create schema api;
create schema other;
comment on schema api is 'Films';
grant usage on schema api, other to {role};
create type api.mood as enum ('sad', 'ok');
create table api.open (id int primary key, secret text);
create table api.closed (id int primary key);
create table api.partly (id int primary key, secret text);
create table other.elsewhere (id int);
grant select on api.open, other.elsewhere to {role};
grant update (secret) on api.partly to {role};
create function api.may(out o int, feeling api.mood) stable begin atomic select 1; end;
create function api.may_not() returns int stable begin atomic select 1; end;
revoke execute on function api.may_not from public;
create function api.refuse() returns void language plpgsql as $$
begin
  if current_setting('request.method') = 'GET' and current_user = '{role}' then
    raise 'refused';
  end if;
end $$;
"""


class Held:
    def __init__(self, cache: SchemaCache) -> None:
        self.current = cache

    async def catch_up(self) -> bool:
        return False


class Root:
    """The root of an API over the schemas above, for a caller who may not see all of them."""

    def __init__(self, executor: Executor, role: str) -> None:
        self._executor = executor
        self.role = role

    async def ask(
        self, method: str = "GET", headers: dict[str, str] | None = None, **settings: Any
    ) -> Answer:
        settings = {"schemas": ("api",), **settings}
        cache = await load_schema_cache(self._executor, schemas=settings["schemas"])
        service = RestService(self._executor, Held(cache), RestSettings(**settings))
        given = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        return await service.answer(HttpRequest(method, "/", "", given), Claims(self.role, "{}"))


Document: TypeAlias = dict[str, Any]


def shown(answer: Answer) -> Document:
    assert isinstance(answer.body, bytes)
    found: Document = msgspec.json.decode(answer.body)
    return found


@pytest.fixture
async def root(database: Database) -> AsyncIterator[Root]:
    role = f"caller_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(database.dsn, autocommit=True) as conn:
        conn.execute(f"create role {role}".encode())
        executor = Executor(database.dsn, connection_count_max=1)
        try:
            conn.execute(DDL.replace("{role}", role).encode())
            yield Root(executor, role)
        finally:
            await executor.close()
            conn.execute(f"drop owned by {role}; drop role {role};".encode())


async def test_the_caller_sees_what_they_may_use(root: Root) -> None:
    answer = await root.ask()
    assert answer.status == 200
    assert (b"content-type", b"application/openapi+json; charset=utf-8") in answer.headers
    found = shown(answer)
    assert list(found["paths"]) == ["/", "/open", "/partly", "/rpc/may", "/rpc/refuse"]
    assert found["info"]["title"] == "Films"


async def test_types_are_written_as_the_caller_may_write_them(root: Root) -> None:
    (feeling,) = shown(await root.ask())["paths"]["/rpc/may"]["get"]["parameters"]
    assert (feeling["name"], feeling["format"]) == ("feeling", "mood")


async def test_privileges_may_be_ignored(root: Root) -> None:
    found = shown(await root.ask(openapi_mode="ignore-privileges"))
    assert {"/closed", "/rpc/may_not"} <= set(found["paths"])
    assert "/elsewhere" not in found["paths"]
    assert found["info"]["title"] == "Films"


async def test_another_schema_is_asked_for_by_its_profile(root: Root) -> None:
    schemas = ("api", "other")
    answer = await root.ask(headers={"accept-profile": "other"}, schemas=schemas)
    assert list(shown(answer)["paths"]) == ["/", "/elsewhere"]
    assert (b"content-profile", b"other") in answer.headers
    assert (b"content-profile", b"api") in (await root.ask(schemas=schemas)).headers


async def test_a_head_is_answered_without_a_body(root: Root) -> None:
    answer = await root.ask("HEAD")
    assert (answer.status, answer.body) == (200, b"")


async def test_a_disabled_description_is_not_found(root: Root) -> None:
    for method in ("GET", "OPTIONS"):
        with pytest.raises(OpenApiDisabledError):
            await root.ask(method, openapi_mode="disabled", root_spec="may")


async def test_the_root_is_only_read(root: Root) -> None:
    with pytest.raises(UnsupportedMethodError, match="Unsupported HTTP method: POST"):
        await root.ask("POST")


@pytest.mark.parametrize("accept", ["application/openapi+json", "text/csv, */*;q=0.1"])
async def test_json_is_acceptable(root: Root, accept: str) -> None:
    assert (await root.ask(headers={"accept": accept})).status == 200


async def test_another_media_type_is_not_acceptable(root: Root) -> None:
    with pytest.raises(MediaTypeError, match="None of these media types are available: text/csv"):
        await root.ask(headers={"accept": "text/csv"})


async def test_the_function_before_each_request_may_refuse(root: Root) -> None:
    with pytest.raises(DatabaseError, match="refused"):
        await root.ask(pre_request=("api", "refuse"))
