"""More schemas than one: which of them a request means."""

import pytest

from butterbase.api.settings import ApiSettings
from tests.api.rest.conftest import RETURN, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SETTINGS = ApiSettings(rest_schemas="public, shop,Ünder Score")
SCHEMA = """
create schema shop;
create schema "Ünder Score";
create schema secret;
grant usage on schema shop, "Ünder Score", secret to anon, authenticated, service_role;
create table makers (id int primary key, name text);
create table things (id int primary key, place text default 'public');
create table shop.things (
  id int primary key, place text default 'shop', maker_id int references makers
);
create table shop.parts (id int primary key, thing_id int references shop.things);
create table "Ünder Score"."Tëst" (id int primary key);
create table secret.things (id int primary key);
create function shop.only() returns text language sql stable as $$ select 'shop' $$;
create function which() returns text language sql stable as $$ select 'public' $$;
create function shop.which() returns text language sql stable as $$ select 'shop' $$;
create function shop.path() returns text language sql stable
  as $$ select current_setting('search_path') $$;
grant all on all tables in schema shop, "Ünder Score", secret to service_role;
"""
ROWS = """
truncate makers, things, shop.things, shop.parts, "Ünder Score"."Tëst", secret.things;
insert into makers values (1, 'Acme');
insert into things (id) values (1);
insert into shop.things (id, maker_id) values (1, 1);
insert into shop.parts values (1, 1);
"""


def profiled(rest: Rest, name: str, header: str = "Accept-Profile") -> dict[str, str]:
    return rest.api.service | {header: name}


async def test_the_first_schema_is_meant_unless_another_is_named(rest: Rest) -> None:
    plain = await rest.get("things")
    assert plain.json() == [{"id": 1, "place": "public"}]
    assert plain.headers["content-profile"] == "public"
    shop = await rest.get("things?select=id,place", headers=profiled(rest, "shop"))
    assert shop.json() == [{"id": 1, "place": "shop"}]
    assert shop.headers["content-profile"] == "shop"


async def test_writes_name_their_schema_as_the_contents(rest: Rest) -> None:
    headers = profiled(rest, "shop", "Content-Profile")
    for method, path, body in (
        ("POST", "things?select=id,place", {"id": 2}),
        ("PATCH", "things?id=eq.2&select=id,place", {"maker_id": 1}),
        ("PUT", "things?id=eq.2&select=id,place", {"id": 2, "place": "shop"}),
        ("DELETE", "things?id=eq.2&select=id,place", None),
    ):
        answer = await rest.call(method, path, json=body, headers=headers, prefer=RETURN)
        assert answer.json() == [{"id": 2, "place": "shop"}], method
        assert answer.headers["content-profile"] == "shop"
    # Accept-Profile says nothing of where to write.
    await rest.post("things", {"id": 3}, headers=profiled(rest, "shop"))
    assert rest.sql("select id from things order by id") == [{"id": 1}, {"id": 3}]


async def test_functions_are_found_in_their_schema(rest: Rest) -> None:
    assert await rest.rows("rpc/which") == "public"
    assert await rest.rows("rpc/which", headers=profiled(rest, "shop")) == "shop"
    posted = await rest.post("rpc/which", {}, headers=profiled(rest, "shop", "Content-Profile"))
    assert posted.json() == "shop"
    assert await rest.refusal("rpc/only") == (404, "PGRST202")
    path = await rest.rows("rpc/path", headers=profiled(rest, "shop"))
    assert path.startswith('"shop", "public"')


async def test_a_name_may_be_of_any_letters(rest: Rest) -> None:
    headers = {name.encode(): value.encode() for name, value in rest.api.service.items()}
    answer = await rest.api.client.get(
        "/rest/v1/Tëst", headers=headers | {b"Accept-Profile": "Ünder Score".encode()}
    )
    assert (answer.status_code, answer.json()) == (200, [])


async def test_relations_are_those_of_the_schema(rest: Rest) -> None:
    headers = profiled(rest, "shop")
    found = await rest.rows("things?select=id,parts(id)", headers=headers)
    assert found == [{"id": 1, "parts": [{"id": 1}]}]
    assert await rest.refusal("things?select=id,makers(name)", headers=headers) == (400, "PGRST200")


@pytest.mark.parametrize("name", ["secret", "auth", "pg_catalog", "PUBLIC", "", "shop,public"])
async def test_what_is_not_served_is_refused(rest: Rest, name: str) -> None:
    answer = await rest.get("things", headers=profiled(rest, name))
    assert (answer.status_code, answer.json()["code"]) == (406, "PGRST106")
    headers = profiled(rest, name, "Content-Profile")
    assert await rest.refusal("things", "POST", json={}, headers=headers) == (406, "PGRST106")


async def test_the_description_is_of_the_schema(rest: Rest) -> None:
    described = await rest.get("", headers=profiled(rest, "shop"))
    assert described.headers["content-profile"] == "shop"
    assert {"/things", "/parts", "/rpc/only"} <= set(described.json()["paths"])
    assert "/makers" not in described.json()["paths"]
