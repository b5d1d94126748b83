"""Rows that may be there: POST with a resolution, and PUT of the one that the URL names."""

import asyncio

import pytest

from tests.api.rest.conftest import RETURN, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create table goods (
  id int primary key, code text unique, name text, stock int not null default 10,
  at timestamptz default now()
);
create table pairs (a int, b int, note text, primary key (a, b));
create table keyless (a int unique, b text);
create table keys_only (id int primary key);
create table "Shop" ("theKey" int primary key, "theName" text);
create table counted (id int generated always as identity primary key, name text unique);
create view goods_view as select id, name from goods;
"""
ROWS = """
truncate goods, pairs, keyless, keys_only, "Shop", counted restart identity;
insert into goods (id, code, name, stock) values (1, 'a', 'ant', 5), (2, 'b', 'bee', 6);
insert into pairs values (1, 1, 'old');
insert into keyless values (1, 'old');
insert into keys_only values (1);
"""
MERGE = "resolution=merge-duplicates"
IGNORE = "resolution=ignore-duplicates"


async def test_duplicates_are_merged_or_ignored(rest: Rest) -> None:
    path = "goods?select=id,name,stock"
    rows = [{"id": 2, "name": "new bee"}, {"id": 3, "name": "cat"}]
    merged = await rest.post(path, rows, prefer=f"{MERGE}, {RETURN}")
    assert (merged.status_code, merged.json()) == (
        201,
        [{"id": 2, "name": "new bee", "stock": 6}, {"id": 3, "name": "cat", "stock": 10}],
    )
    assert merged.headers["preference-applied"] == f"{MERGE}, {RETURN}"
    ignored = await rest.post(
        path, [{"id": 1, "name": "x"}, {"id": 4, "name": "dog"}], prefer=f"{IGNORE}, {RETURN}"
    )
    assert (ignored.status_code, ignored.json()) == (201, [{"id": 4, "name": "dog", "stock": 10}])
    assert rest.sql("select id, name from goods order by id") == [
        {"id": 1, "name": "ant"},
        {"id": 2, "name": "new bee"},
        {"id": 3, "name": "cat"},
        {"id": 4, "name": "dog"},
    ]


async def test_a_merge_that_inserts_nothing_is_200(rest: Rest) -> None:
    for prefer, status in ((MERGE, 200), (f"{MERGE}, {RETURN}", 200), (IGNORE, 201)):
        answer = await rest.post("goods", [{"id": 1, "name": "x"}], prefer=prefer)
        assert answer.status_code == status, prefer
    assert (await rest.post("goods", {"id": 9}, prefer=MERGE)).status_code == 201


async def test_the_conflict_may_be_another_than_the_keys(rest: Rest) -> None:
    path = "goods?on_conflict=code&select=id,code,name"
    merged = await rest.post(
        path, [{"id": 77, "code": "a", "name": "by code"}], prefer=f"{MERGE}, {RETURN}"
    )
    assert merged.json() == [{"id": 77, "code": "a", "name": "by code"}]
    ignored = await rest.post(path, [{"id": 78, "code": "b"}], prefer=f"{IGNORE}, {RETURN}")
    assert ignored.json() == []
    pair = await rest.post(
        "pairs?on_conflict=a,b", {"a": 1, "b": 1, "note": "new"}, prefer=f"{MERGE}, {RETURN}"
    )
    assert pair.json() == [{"a": 1, "b": 1, "note": "new"}]
    keyless = await rest.post("keyless?on_conflict=a", [{"a": 1, "b": "n"}], prefer=MERGE)
    assert keyless.status_code == 200
    assert rest.sql("select * from keyless") == [{"a": 1, "b": "n"}]


@pytest.mark.parametrize(
    ("path", "row", "status", "code"),
    [
        ("goods", {"id": 1, "code": "b"}, 409, "23505"),  # of the other key
        ("goods?on_conflict=name", {"id": 1}, 400, "42P10"),
        ("goods?on_conflict=nothing", {"id": 1}, 400, "42703"),
        ("goods?on_conflict=", {"id": 1}, 400, "PGRST100"),
        ("keyless", {"a": 1}, 409, "23505"),  # there is no key, so it is an insert
        ("goods", [{"id": 5, "name": "x"}, {"id": 5, "name": "y"}], 500, "21000"),
        ("goods?columns=id,stock", {"id": 1}, 400, "23502"),
    ],
)
async def test_what_cannot_be_merged_is_refused(
    rest: Rest, path: str, row: object, status: int, code: str
) -> None:
    assert await rest.refusal(path, "POST", json=row, prefer=MERGE) == (status, code)


async def test_a_table_of_keys_alone_can_be_merged(rest: Rest) -> None:
    answer = await rest.post("keys_only", [{"id": 1}, {"id": 2}], prefer=f"{MERGE}, {RETURN}")
    assert answer.status_code == 201
    assert {"id": 2} in answer.json()
    assert rest.sql("select id from keys_only order by id") == [{"id": 1}, {"id": 2}]


async def test_missing_columns_are_left_or_made_defaults(rest: Rest) -> None:
    path, row = "goods?columns=id,name,stock&select=name,stock", [{"id": 1, "name": "x"}]
    defaulted = await rest.post(path, row, prefer=f"{MERGE}, missing=default, {RETURN}")
    assert defaulted.json() == [{"name": "x", "stock": 10}]


async def test_put_makes_or_replaces_the_row_that_the_url_names(rest: Rest) -> None:
    new = {"id": 7, "code": "g", "name": "gnu", "stock": 1, "at": None}
    path = "goods?id=eq.7"
    made = await rest.call("PUT", path, json=new, prefer=RETURN)
    assert (made.status_code, made.json()) == (201, [new])
    changed = await rest.call("PUT", path, json={**new, "name": "new gnu"}, prefer=RETURN)
    assert (changed.status_code, changed.json()) == (200, [{**new, "name": "new gnu"}])
    silent = await rest.call("PUT", path, json={**new, "name": "silent"})
    assert (silent.status_code, silent.content) == (204, b"")
    in_array = await rest.call("PUT", path, json=[{**new, "name": "last"}])
    assert in_array.status_code == 204
    assert rest.sql("select name from goods where id = 7") == [{"name": "last"}]
    others = await rest.call("PUT", path, json=[{"id": 8}, {"id": 7}])
    assert others.status_code == 204
    assert rest.sql("select id from goods where id > 2") == [{"id": 7}]
    pair = await rest.call("PUT", "pairs?b=eq.1&a=eq.1", json={"a": 1, "b": 1, "note": "put"})
    assert pair.status_code == 204
    odd = {"theKey": 1, "theName": "n"}
    assert (await rest.call("PUT", "Shop?theKey=eq.1", json=odd)).status_code == 204
    assert rest.sql('select * from "Shop"') == [odd]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("goods", {"id": 1}, 405, "PGRST105"),
        ("goods?id=eq.1&name=eq.x", {"id": 1}, 405, "PGRST105"),
        ("goods?name=eq.x", {"id": 1}, 405, "PGRST105"),
        ("goods?id=gt.1", {"id": 1}, 405, "PGRST105"),
        ("goods?id=not.eq.1", {"id": 1}, 405, "PGRST105"),
        ("goods?id=eq(any).{1}", {"id": 1}, 405, "PGRST105"),
        ("goods?or=(id.eq.1,id.eq.2)", {"id": 1}, 405, "PGRST105"),
        ("pairs?a=eq.1", {"a": 1, "b": 1}, 405, "PGRST105"),
        ("keyless?a=eq.1", {"a": 1}, 405, "PGRST105"),
        ("goods?id=eq.1&limit=1", {"id": 1}, 400, "PGRST114"),
        ("goods?id=eq.1&offset=1", {"id": 1}, 400, "PGRST114"),
        ("goods?id=eq.1", {"id": 2, "name": "x"}, 400, "PGRST115"),
        ("goods?id=eq.1", [{"id": 1}, {"id": 1}], 500, "21000"),
        ("goods?id=eq.1", {"nothing": 1}, 400, "PGRST204"),
        ("nothing?id=eq.1", {"id": 1}, 404, "PGRST205"),
    ],
)
async def test_a_put_of_anything_but_one_known_row_is_refused(
    rest: Rest, path: str, body: object, status: int, code: str
) -> None:
    before = rest.sql("select * from goods order by id")
    assert await rest.refusal(path, "PUT", json=body, prefer=RETURN) == (status, code)
    assert rest.sql("select * from goods order by id") == before


async def test_views_are_merged_by_the_key_of_their_table(rest: Rest) -> None:
    merged = await rest.post("goods_view", [{"id": 1, "name": "v"}], prefer=f"{MERGE}, {RETURN}")
    assert merged.json() == [{"id": 1, "name": "v"}]
    put = await rest.call("PUT", "goods_view?id=eq.50", json={"id": 50, "name": "w"})
    assert put.status_code in (201, 204)


async def test_many_who_merge_one_row_at_once_are_all_served(rest: Rest) -> None:
    async def upsert(number: int) -> int:
        answer = await rest.post(
            "counted?on_conflict=name", {"name": f"n{number % 3}"}, prefer=MERGE
        )
        return answer.status_code

    statuses = await asyncio.gather(*(upsert(number) for number in range(30)))
    assert set(statuses) == {200, 201}
    assert rest.sql("select name from counted order by name") == [
        {"name": "n0"},
        {"name": "n1"},
        {"name": "n2"},
    ]
    puts = await asyncio.gather(
        *(
            rest.call("PUT", "goods?id=eq.9", json={"id": 9, "stock": n}, prefer=RETURN)
            for n in range(20)
        )
    )
    assert sorted(answer.status_code for answer in puts) == [200] * 19 + [201]
