"""What an answer is written as: what we write ourselves, and what handlers of the schema do."""

import pytest

from tests.api.rest.conftest import OBJECT, RETURN, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

ARRAY = "application/vnd.pgrst.array+json"
SCHEMA = """
create domain "text/html" as text;
create domain "application/octet-stream" as bytea;
create domain "image/png" as bytea;
create domain "text/csv" as text;
create domain "application/vnd.names" as text;

create table pages (id int primary key, title text, body text, raw bytea, facts jsonb);
insert into pages values
  (1, 'one', 'a, "b"', '\\x0001ff', '{"a": null, "b": 1}'), (2, null, e'x\\ny', '\\x', null);
create table plain (id int primary key, a text, b int);
insert into plain values (1, 'x', null), (2, null, 5);

create function home() returns "text/html" language sql stable
  as $$ select '<h1>' || title || '</h1>' from pages where id = 1 $$;
create function picture() returns "image/png" language sql stable
  as $$ select '\\x89504e470d0a1a0a00ff'::bytea $$;
create function bytes(n int) returns "application/octet-stream" language sql stable
  as $$ select decode(repeat('00ff0a', n), 'hex') $$;
create function no_picture() returns "image/png" language sql stable as 'select null::bytea';

create function add_name(state "application/vnd.names", page pages)
  returns "application/vnd.names" language sql immutable
  as $$ select (coalesce(state || ',', '') || coalesce(page.title, '?')) $$;
create aggregate names_of(pages) (
  sfunc = add_name, stype = "application/vnd.names"
);
create function plain_value() returns text language sql stable as $$ select 'x' $$;
"""


@pytest.mark.parametrize(
    ("accept", "told"),
    [
        (None, "application/json; charset=utf-8"),
        ("*/*", "application/json; charset=utf-8"),
        ("application/json", "application/json; charset=utf-8"),
        ("text/html;q=0.9, application/json", "application/json; charset=utf-8"),
        (f"{ARRAY}", "application/json; charset=utf-8"),
        (f"{ARRAY};nulls=stripped", f"{ARRAY};nulls=stripped; charset=utf-8"),
        ("image/*, */*;q=0.1", "application/json; charset=utf-8"),
        ("text/csv", "text/csv; charset=utf-8"),
        ("text/csv;q=0.1, application/json;q=0.9", "application/json; charset=utf-8"),
    ],
)
async def test_the_best_of_what_is_accepted_is_answered(
    rest: Rest, accept: str | None, told: str
) -> None:
    answer = await rest.get("plain", accept=accept)
    assert (answer.status_code, answer.headers["content-type"]) == (200, told)
    assert "accept" in answer.headers["vary"].lower()


@pytest.mark.parametrize("accept", ["image/jpeg", "text/xml", "application/pdf, image/*", "x"])
async def test_what_nobody_can_write_is_406(rest: Rest, accept: str) -> None:
    for path in ("plain", "rpc/plain_value"):
        assert await rest.refusal(path, accept=accept) == (406, "PGRST107")
    assert await rest.refusal("plain", "POST", json={"id": 9}, accept=accept, prefer=RETURN) == (
        406,
        "PGRST107",
    )
    assert rest.sql("select 1 from plain where id = 9") == []


async def test_rows_are_written_as_csv(rest: Rest) -> None:
    answer = await rest.get("pages?select=id,title,body&order=id", accept="text/csv")
    assert answer.text == 'id,title,body\n1,one,"a, ""b"""\n2,,"x\ny"'
    assert (await rest.get("plain?id=eq.99", accept="text/csv")).text == "\n"
    embedded = await rest.get("plain?select=b,a&id=eq.2", accept="text/csv")
    assert embedded.text == "b,a\n5,"


async def test_members_that_are_null_may_be_left_out(rest: Rest) -> None:
    rows = await rest.rows("pages?select=id,title,facts&order=id", accept=f"{ARRAY};nulls=stripped")
    assert rows == [{"id": 1, "title": "one", "facts": {"b": 1}}, {"id": 2}]
    one = await rest.get("plain?id=eq.1", accept=f"{OBJECT};nulls=stripped")
    assert one.json() == {"id": 1, "a": "x"}
    assert one.headers["content-type"] == f"{OBJECT};nulls=stripped; charset=utf-8"


async def test_a_function_answers_with_the_type_that_its_domain_names(rest: Rest) -> None:
    for accept in ("text/html", "text/html, */*;q=0.1", "image/gif, text/html;q=0.5"):
        page = await rest.get("rpc/home", accept=accept)
        assert (page.status_code, page.text) == (200, "<h1>one</h1>"), accept
        assert page.headers["content-type"].startswith("text/html")
    assert (await rest.post("rpc/home", {}, accept="text/html")).text == "<h1>one</h1>"
    assert await rest.refusal("rpc/home", accept="image/png") == (406, "PGRST107")


async def test_bytes_are_answered_as_they_are(rest: Rest) -> None:
    picture = await rest.get("rpc/picture", accept="image/png")
    assert picture.content == b"\x89PNG\r\n\x1a\n\x00\xff"
    assert picture.headers["content-type"] == "image/png"
    for count in (0, 1, 1_000_000):
        answer = await rest.get(f"rpc/bytes?n={count}", accept="application/octet-stream")
        assert answer.content == b"\x00\xff\x0a" * count
    assert (await rest.get("rpc/no_picture", accept="image/png")).content == b""


async def test_an_aggregate_writes_the_rows_of_its_table(rest: Rest) -> None:
    accept = "application/vnd.names"
    answer = await rest.get("pages?order=id", accept=accept)
    assert (answer.status_code, answer.text) == (200, "one,?")
    assert answer.headers["content-type"] == accept
    assert (await rest.get("pages?id=eq.1", accept=accept)).text == "one"
    for path in ("pages?select=id", "plain"):  # not whole rows, or not of this table
        assert await rest.refusal(path, accept=accept) == (406, "PGRST107")


async def test_head_tells_the_type_and_answers_no_body(rest: Rest) -> None:
    answer = await rest.call("HEAD", "plain", accept="text/csv")
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["content-type"] == "text/csv; charset=utf-8"


async def test_no_plan_of_a_query_is_shown(rest: Rest) -> None:
    assert await rest.refusal("plain", accept="application/vnd.pgrst.plan+json") == (
        406,
        "PGRST107",
    )
