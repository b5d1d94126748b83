import psycopg
import pytest

from butterbase.api.settings import ApiSettings
from butterbase.projections.schema_announcer import CHANNEL
from tests.api.conftest import Api, running
from tests.installation import Installation
from tests.waiting import until

TODOS = """
create table todos (
  id bigint generated always as identity primary key,
  user_id uuid not null default auth.uid(),
  title text not null,
  done boolean not null default false
);
create policy own on todos to authenticated
  using (user_id = auth.uid()) with check (user_id = auth.uid());
"""
RETURN = {"Prefer": "return=representation"}


@pytest.fixture
def todos(api: Api) -> Api:
    api.installation.as_owner(TODOS)
    return api


async def test_a_row_is_created_read_changed_and_deleted(todos: Api) -> None:
    ana = await todos.sign_up("ana@example.com")
    rest = todos.client

    made = await rest.post("/rest/v1/todos", json={"title": "milk"}, headers=ana | RETURN)
    assert made.status_code == 201
    (row,) = made.json()
    assert row["title"] == "milk"
    where = {"id": f"eq.{row['id']}"}

    read = await rest.get("/rest/v1/todos", params=where | {"select": "title,done"}, headers=ana)
    assert read.json() == [{"title": "milk", "done": False}]

    changed = await rest.patch(
        "/rest/v1/todos", params=where, json={"done": True}, headers=ana | RETURN
    )
    assert (changed.status_code, changed.json()[0]["done"]) == (200, True)

    deleted = await rest.delete("/rest/v1/todos", params=where, headers=ana)
    assert (deleted.status_code, deleted.content) == (204, b"")
    assert (await rest.get("/rest/v1/todos", headers=ana)).json() == []


async def test_policies_part_the_users(todos: Api) -> None:
    ana, bo = await todos.sign_up("ana@example.com"), await todos.sign_up("bo@example.com")
    await todos.client.post("/rest/v1/todos", json=[{"title": "a"}, {"title": "b"}], headers=ana)

    async def count(headers: dict[str, str]) -> int:
        return len((await todos.client.get("/rest/v1/todos", headers=headers)).json())

    assert [await count(h) for h in (ana, bo, todos.anon, todos.service)] == [2, 0, 0, 2]
    stolen = await todos.client.patch("/rest/v1/todos", json={"done": True}, headers=bo | RETURN)
    assert stolen.json() == []


async def test_a_row_for_somebody_else_is_refused(todos: Api) -> None:
    ana = await todos.sign_up("ana@example.com")
    row = {"title": "x", "user_id": "00000000-0000-0000-0000-000000000000"}
    refused = await todos.client.post("/rest/v1/todos", json=row, headers=ana)
    assert (refused.status_code, refused.json()["code"]) == (403, "42501")


async def test_a_new_table_is_closed_until_a_policy_opens_it(api: Api) -> None:
    api.installation.as_owner("create table notes (id int); insert into notes values (1)")
    assert (await api.client.get("/rest/v1/notes", headers=api.anon)).json() == []
    assert (await api.client.get("/rest/v1/notes", headers=api.service)).json() == [{"id": 1}]


async def test_rls_is_left_off_where_the_developer_says_so(api: Api) -> None:
    api.installation.as_owner(
        "set butterbase.rls = off; create table open (id int); insert into open values (1)"
    )
    assert (await api.client.get("/rest/v1/open", headers=api.anon)).json() == [{"id": 1}]


@pytest.mark.parametrize("schema", ["auth.users", "butterbase.migrations", "pg_catalog.pg_authid"])
async def test_no_schema_but_public_is_reached(api: Api, schema: str) -> None:
    answer = await api.client.get(f"/rest/v1/{schema}", headers=api.service)
    assert answer.status_code == 404


async def test_rows_are_ordered_and_paged(api: Api) -> None:
    api.installation.as_owner("create table n (i int); insert into n select generate_series(1, 9)")
    params = {"select": "i", "order": "i.desc", "limit": "2", "offset": "3"}
    answer = await api.client.get("/rest/v1/n", params=params, headers=api.service)
    assert answer.json() == [{"i": 6}, {"i": 5}]


@pytest.mark.parametrize(
    ("query", "named"),
    [
        ("id=7", "failed to parse filter (7)"),
        ("id=eqq.7", "eqq"),
        ("id=eq", "failed to parse filter (eq)"),
        ("select=id,(x)", "(x)"),
        ("order=id.up", "id.up"),
        ("id=eq.%00", "query string"),
        ("nothere=eq.1", "nothere"),
        ("id=eq.seven", "seven"),
    ],
)
async def test_a_broken_filter_is_refused_by_name(todos: Api, query: str, named: str) -> None:
    answer = await todos.client.get(f"/rest/v1/todos?{query}", headers=todos.service)
    assert answer.status_code == 400
    assert named in answer.text


@pytest.mark.parametrize("body", [b"", b"{", b"[1]", b'[{"a":1},{"b":1}]', b"\xff", b"{}x"])
async def test_a_body_that_is_no_rows_is_refused(todos: Api, body: bytes) -> None:
    answer = await todos.client.post("/rest/v1/todos", content=body, headers=todos.service)
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST102")


@pytest.mark.parametrize("body", [b"[]", b"7"])
async def test_a_body_without_rows_inserts_none(todos: Api, body: bytes) -> None:
    answer = await todos.client.post("/rest/v1/todos", content=body, headers=todos.service | RETURN)
    assert (answer.status_code, answer.json()) == (201, [])


async def test_a_body_beyond_the_limit_is_refused(todos: Api) -> None:
    body = b'{"title":"' + b"x" * (16 * 1024**2) + b'"}'
    answer = await todos.client.post("/rest/v1/todos", content=body, headers=todos.service)
    assert (answer.status_code, answer.json()["code"]) == (413, "body_too_large")


async def test_an_unknown_table_is_404(api: Api) -> None:
    answer = await api.client.get("/rest/v1/nothing", headers=api.anon)
    assert (answer.status_code, answer.json()["code"]) == (404, "PGRST205")


async def test_an_unknown_route_is_404_in_json(api: Api) -> None:
    answer = await api.client.get("/nowhere", headers=api.anon)
    assert (answer.status_code, answer.json()["code"]) == (404, "not_found")


@pytest.mark.parametrize("name", ['to"dos', "todos;drop table todos", "t\0x", "€", "..", "%"])
async def test_a_table_name_is_only_ever_a_name(todos: Api, name: str) -> None:
    answer = await todos.client.get(f"/rest/v1/{_quote(name)}", headers=todos.service)
    assert answer.status_code in (400, 404)
    assert (await todos.client.get("/rest/v1/todos", headers=todos.service)).status_code == 200


def _quote(name: str) -> str:
    return "".join(f"%{byte:02x}" for byte in name.encode())


async def test_a_read_cannot_write(api: Api) -> None:
    api.installation.as_owner(
        "create table log (i int);"
        "create function spy() returns int language sql as"
        " $$ insert into log values (1) returning 1 $$;"
        "create view v as select spy() as i"
    )
    answer = await api.client.get("/rest/v1/v", headers=api.service)
    assert (answer.status_code, answer.json()["code"]) == (405, "25006")


async def test_a_client_of_another_app_is_refused(api: Api) -> None:
    answer = await api.client.get("/v1/other/rest/v1/todos", headers=api.anon)
    assert (answer.status_code, answer.json()["code"]) == (404, "app_not_found")


async def test_the_app_is_served_below_its_prefix_too(todos: Api) -> None:
    answer = await todos.client.get("/v1/main/rest/v1/todos", headers=todos.anon)
    assert (answer.status_code, answer.json()) == (200, [])


async def test_a_view_shows_what_its_reader_may_see(todos: Api) -> None:
    todos.installation.as_owner("create view v as select * from todos")
    ana, bo = await todos.sign_up("ana@example.com"), await todos.sign_up("bo@example.com")
    await todos.client.post("/rest/v1/todos", json={"title": "a"}, headers=ana)
    for caller, count in ((ana, 1), (bo, 0), (todos.anon, 0)):
        assert len((await todos.client.get("/rest/v1/v", headers=caller)).json()) == count
    await todos.client.patch("/rest/v1/v", json={"title": "stolen"}, headers=bo)
    assert (await todos.client.get("/rest/v1/v", headers=ana)).json()[0]["title"] == "a"


async def test_a_materialized_view_is_for_the_service_role(todos: Api) -> None:
    todos.installation.as_owner("create materialized view m as select * from todos")
    assert (await todos.client.get("/rest/v1/m", headers=todos.anon)).status_code == 401
    assert (await todos.client.get("/rest/v1/m", headers=todos.service)).status_code == 200


async def test_rows_without_a_primary_key_are_changed_and_deleted(api: Api) -> None:
    api.installation.as_owner("create table n (i int); insert into n values (1), (2)")
    for method in ("PATCH", "DELETE"):
        answer = await api.client.request(
            method, "/rest/v1/n?i=eq.1", json={"i": 1}, headers=api.service
        )
        assert answer.status_code == 204, answer.text
    assert (await api.client.get("/rest/v1/n", headers=api.service)).json() == [{"i": 2}]


async def test_any_name_is_a_columns_and_a_tables(api: Api) -> None:
    api.installation.as_owner(
        'create table new (id int primary key, r int, new int, "a""b c" text);'
        "insert into new values (1, 7, 8, 'x')"
    )
    changed = await api.client.patch(
        "/rest/v1/new?r=eq.7", json={"new": 9, 'a"b c': "y"}, headers=api.service | RETURN
    )
    row = {"id": 1, "r": 7, "new": 9, 'a"b c': "y"}
    assert changed.json() == [row]
    assert (await api.client.get("/rest/v1/new", headers=api.service)).json() == [row]


@pytest.mark.parametrize("query", ["", "?columns=title"])
@pytest.mark.parametrize("opening", ["[", '{"title":'])
async def test_a_body_nested_too_deeply_is_refused(todos: Api, query: str, opening: str) -> None:
    answer = await todos.client.post(
        f"/rest/v1/todos{query}", content=opening * 100_000, headers=todos.service
    )
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST102")


@pytest.mark.parametrize(
    "body", ["{" + ",".join(f'"k{i}":1' for i in range(1601)) + "}", '{"' + "k" * 64 + '": 1}']
)
async def test_a_body_that_fits_no_table_is_refused(todos: Api, body: str) -> None:
    answer = await todos.client.post("/rest/v1/todos", content=body, headers=todos.service)
    assert (answer.status_code, answer.json()["code"]) == (400, "PGRST204")


async def test_a_statement_that_takes_too_long_is_ended(installation: Installation) -> None:
    installation.as_owner("create view slow as select pg_sleep(60)::text as slept")
    async with running(installation, ApiSettings(statement_timeout_s=1)) as api:
        answer = await api.client.get("/rest/v1/slow", headers=api.service)
    assert (answer.status_code, answer.json()["code"]) == (504, "57014")


async def test_an_insert_may_name_its_columns(todos: Api) -> None:
    ana = await todos.sign_up("ana@example.com")
    for columns in ('"title","done"', "title,done"):
        made = await todos.client.post(
            "/rest/v1/todos",
            params={"columns": columns},
            json=[{"title": "a", "done": True}, {"title": "b", "done": False, "id": 7}],
            headers=ana | RETURN,
        )
        assert [row["title"] for row in made.json()] == ["a", "b"], made.text
        assert 7 not in {row["id"] for row in made.json()}


@pytest.mark.parametrize("header", ["Accept-Profile", "Content-Profile"])
async def test_a_schema_that_is_not_served_is_refused(todos: Api, header: str) -> None:
    method = "GET" if header == "Accept-Profile" else "POST"
    answer = await todos.client.request(
        method, "/rest/v1/users", json={}, headers=todos.service | {header: "auth"}
    )
    assert (answer.status_code, answer.json()["code"]) == (406, "PGRST106")


async def test_a_new_table_is_there_at_once(api: Api) -> None:
    async def status() -> int:
        return (await api.client.get("/rest/v1/later", headers=api.service)).status_code

    assert await status() == 404
    api.installation.as_owner("create table later (i int)")
    assert await status() == 200


async def test_a_change_of_the_schema_reaches_the_workers(api: Api) -> None:
    api.installation.as_owner("create table wide (a int, b int); insert into wide values (1, 2)")

    async def columns() -> set[str]:
        read = await api.client.get("/rest/v1/", headers=api.service)
        return set(read.json()["definitions"]["wide"]["properties"])

    assert await columns() == {"a", "b"}
    api.installation.as_owner("alter table wide drop column b")

    async def is_told() -> bool:
        with psycopg.connect(api.installation.control.dsn, autocommit=True) as conn:
            # As the stream does when it reads of DDL in the app's log.
            conn.execute("select pg_notify(%s, %s)", (CHANNEL, "main"))
        return await columns() == {"a"}

    await until(is_told)
