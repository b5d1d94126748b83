"""Calls of functions: how arguments are given, which overload is meant, what is answered."""

from typing import Any

import pytest

from tests.api.rest.conftest import OBJECT, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create type point2 as (x int, y int);
create domain positive as int check (value > 0);
create type mood as enum ('sad', 'glad');
create table teams (id int primary key, name text);
create table players (id int primary key, name text, team_id int references teams, score int);
insert into teams values (1, 'red'), (2, 'blue');
insert into players values (1, 'Ana', 1, 5), (2, 'Bo', 1, 7), (3, 'Cy', 2, null);
create table log (id int generated always as identity, note text);

create function add(a int, b int default 10) returns int language sql immutable
  as 'select a + b';
create function note(what text) returns void language sql
  as 'insert into log (note) values (what)';
create function note_and_tell(what text) returns text language sql
  as 'insert into log (note) values (what) returning note';
create function nothing() returns int language sql stable as 'select null::int';
create function no_row() returns players language sql stable
  as 'select * from players where false';
create function best() returns players language sql stable
  as 'select * from players where id = 2';
create function everybody() returns setof players language sql stable
  as 'select * from players order by id';
create function nobody() returns setof players language sql stable
  as 'select * from players where false';
create function names() returns setof text language sql stable
  as 'select name from players order by id';
create function scores() returns table (who text, points int) language sql stable
  as 'select name, score from players order by id';
create function point(x int, y int) returns point2 language sql immutable
  as 'select row(x, y)::point2';
create function split(whole int, out half int, out rest int) language sql immutable
  as 'select whole / 2, whole % 2';
create function twice(inout n int) language sql immutable as 'select n * 2';
create function list_of(n int) returns int[] language sql immutable
  as 'select array_agg(i) from generate_series(1, n) i';
create function document(d json) returns json language sql immutable as 'select d';
create function kept(p positive) returns positive language sql immutable as 'select p';
create function felt(m mood) returns mood language sql immutable as 'select m';
create function total(variadic numbers int[]) returns int language sql immutable
  as 'select coalesce(sum(n), 0)::int from unnest(numbers) n';
create function joined(sep text, variadic parts text[]) returns text language sql immutable
  as 'select array_to_string(parts, sep)';
create function sum_of(numbers int[]) returns int language sql immutable
  as 'select sum(n)::int from unnest(numbers) n';
create function whole_json(json) returns json language sql immutable as 'select $1';
create function whole_text(text) returns text language sql immutable as 'select upper($1)';
create function whole_bytes(bytea) returns int language sql immutable as 'select length($1)';
create function shape() returns text language sql immutable as $$ select 'none' $$;
create function shape(side int) returns text language sql immutable as $$ select 'square' $$;
create function shape(a int, b int) returns text language sql immutable as $$ select 'oblong' $$;
create function shape(radius float, r float default 1) returns text language sql immutable
  as $$ select 'round' $$;
create function unclear(a int) returns int language sql immutable as 'select 1';
create function unclear(a text) returns int language sql immutable as 'select 2';
create function picky(id int, name text default 'x') returns setof players language sql stable
  as 'select * from players where players.id >= picky.id';
create function "Odd name"("an Arg" int) returns int language sql immutable as 'select "an Arg"';
create function fails() returns int language plpgsql
  as $$ begin raise exception 'no' using detail = 'why', hint = 'how', errcode = '22000'; end $$;
create function hidden() returns trigger language plpgsql as $$ begin return new; end $$;
"""
ROWS = "truncate log restart identity"

SHAPES: list[tuple[str, dict[str, Any], Any]] = [
    ("add", {"a": 1, "b": 2}, 3),
    ("add", {"a": 1}, 11),
    ("nothing", {}, None),
    ("best", {}, {"id": 2, "name": "Bo", "team_id": 1, "score": 7}),
    ("no_row", {}, {"id": None, "name": None, "team_id": None, "score": None}),
    ("nobody", {}, []),
    ("names", {}, ["Ana", "Bo", "Cy"]),
    ("scores", {}, [{"who": "Ana", "points": 5}, {"who": "Bo", "points": 7},
                    {"who": "Cy", "points": None}]),
    ("point", {"x": 1, "y": 2}, {"x": 1, "y": 2}),
    ("split", {"whole": 7}, {"half": 3, "rest": 1}),
    ("twice", {"n": 4}, {"n": 8}),
    ("list_of", {"n": 3}, [1, 2, 3]),
    ("kept", {"p": 3}, 3),
    ("felt", {"m": "glad"}, "glad"),
    ("shape", {}, "none"),
    ("shape", {"side": 1}, "square"),
    ("shape", {"a": 1, "b": 2}, "oblong"),
    ("shape", {"radius": 1}, "round"),
    ("shape", {"radius": 1, "r": 2}, "round"),
    ("Odd%20name", {"an Arg": 5}, 5),
]  # fmt: skip


@pytest.mark.parametrize(("name", "arguments", "answer"), SHAPES)
async def test_get_and_post_call_a_function_with_named_arguments(
    rest: Rest, name: str, arguments: dict[str, Any], answer: Any
) -> None:
    posted = await rest.post(f"rpc/{name}", arguments)
    assert (posted.status_code, posted.json()) == (200, answer), posted.text
    query = "&".join(f"{key}={value}" for key, value in arguments.items())
    assert await rest.rows(f"rpc/{name}?{query}") == answer
    form = await rest.post(
        f"rpc/{name}", content=query, content_type="application/x-www-form-urlencoded"
    )
    assert form.json() == answer
    head = await rest.call("HEAD", f"rpc/{name}?{query}")
    assert (head.status_code, head.content) == (200, b"")


async def test_void_is_204(rest: Rest) -> None:
    answer = await rest.post("rpc/note", {"what": "x"})
    assert (answer.status_code, answer.content) == (204, b"")
    assert rest.sql("select note from log") == [{"note": "x"}]


async def test_what_writes_is_called_by_post_alone(rest: Rest) -> None:
    assert (await rest.post("rpc/note_and_tell", {"what": "a"})).json() == "a"
    assert await rest.refusal("rpc/note_and_tell?what=b") == (405, "25006")
    assert rest.sql("select note from log") == [{"note": "a"}]
    for method in ("PUT", "PATCH", "DELETE"):
        assert await rest.refusal("rpc/add", method, json={}) == (405, "PGRST101")


async def test_json_of_any_shape_is_an_argument(rest: Rest) -> None:
    for value in ({"a": [1, None]}, [1, 2], "text", 1.50, True, None):
        assert (await rest.post("rpc/document", {"d": value})).json() == value
    assert (await rest.post("rpc/sum_of", {"numbers": [1, 2, 3]})).json() == 6
    assert await rest.rows("rpc/sum_of?numbers={1,2,3}") == 6


async def test_an_argument_given_again_and_again_is_a_list(rest: Rest) -> None:
    assert await rest.rows("rpc/total?numbers=1&numbers=2&numbers=3") == 6
    assert await rest.rows("rpc/total?numbers=1") == 1
    assert await rest.rows("rpc/joined?sep=-&parts=a,b&parts=c d") == "a,b-c d"
    assert (await rest.post("rpc/total", {"numbers": [4, 5]})).json() == 9
    form = "application/x-www-form-urlencoded"
    answer = await rest.post("rpc/total", content="numbers=1&numbers=2", content_type=form)
    assert answer.json() == 3
    assert await rest.rows("rpc/add?a=1&a=2&b=3") == 5  # otherwise the last one counts


async def test_a_body_may_be_the_one_argument(rest: Rest) -> None:
    for document in ({"a": 1}, [{"b": 2}, {"b": 3}], []):
        assert (await rest.post("rpc/whole_json", document)).json() == document
    text = await rest.post("rpc/whole_text", content="some é", content_type="text/plain")
    assert text.json() == "SOME É"
    octets = bytes(range(256))
    answer = await rest.post(
        "rpc/whole_bytes", content=octets, content_type="application/octet-stream"
    )
    assert answer.json() == 256
    refused = await rest.refusal("rpc/add", "POST", content="x", content_type="text/plain")
    assert refused == (404, "PGRST202")


@pytest.mark.parametrize(
    ("query", "rows"),
    [
        ("select=name&order=name.desc&limit=2", [{"name": "Cy"}, {"name": "Bo"}]),
        ("select=id&score=gt.5", [{"id": 2}]),
        ("select=id&or=(score.gt.5,score.is.null)", [{"id": 2}, {"id": 3}]),
        ("select=who:name,teams(name)&id=eq.3", [{"who": "Cy", "teams": {"name": "blue"}}]),
        ("select=id,...teams(team:name)&team_id=in.(2)", [{"id": 3, "team": "blue"}]),
        ("select=id,teams!inner()&teams.name=eq.red&order=id", [{"id": 1}, {"id": 2}]),
        ("select=id&offset=1&limit=1", [{"id": 2}]),
        ("select=score::text&id=eq.1", [{"score": "5"}]),
    ],
)
async def test_rows_of_a_function_are_selected_from_like_a_tables(
    rest: Rest, query: str, rows: Any
) -> None:
    assert await rest.rows(f"rpc/everybody?{query}") == rows
    assert (await rest.post(f"rpc/everybody?{query}", {})).json() == rows


async def test_columns_of_tables_and_records_are_selected_too(rest: Rest) -> None:
    assert await rest.rows("rpc/scores?select=who&points=gt.5") == [{"who": "Bo"}]
    assert await rest.rows("rpc/best?select=id,teams(name)") == {"id": 2, "teams": {"name": "red"}}
    assert await rest.rows("rpc/split?whole=7&select=rest") == {"rest": 1}
    assert await rest.rows("rpc/point?x=1&y=2&select=x") == {"x": 1}


async def test_an_argument_is_not_a_filter_and_a_filter_no_argument(rest: Rest) -> None:
    assert [row["id"] for row in await rest.rows("rpc/picky?id=2&order=id")] == [2, 3]
    assert [row["id"] for row in await rest.rows("rpc/picky?id=2&id=eq.3")] == [3]
    assert [r["id"] for r in (await rest.post("rpc/picky?id=eq.3", {"id": 1})).json()] == [3]


async def test_one_row_is_answered_as_an_object(rest: Rest) -> None:
    one = await rest.get("rpc/everybody?id=eq.1&select=name", accept=OBJECT)
    assert one.json() == {"name": "Ana"}
    assert await rest.refusal("rpc/everybody", accept=OBJECT) == (406, "PGRST116")
    assert await rest.refusal("rpc/nobody", accept=OBJECT) == (406, "PGRST116")
    text = await rest.get("rpc/scores", accept="text/csv")
    assert text.text.splitlines() == ["who,points", "Ana,5", "Bo,7", "Cy,"]


@pytest.mark.parametrize(
    ("path", "body", "status", "code"),
    [
        ("add", {}, 404, "PGRST202"),
        ("add", {"a": 1, "c": 2}, 404, "PGRST202"),
        ("nothing_here", {}, 404, "PGRST202"),
        ("hidden", {}, 404, "PGRST202"),
        ("unclear", {"a": 1}, 300, "PGRST203"),
        ("add", {"a": "x"}, 400, "22P02"),
        ("kept", {"p": -1}, 400, "23514"),
        ("fails", {}, 400, "22000"),
        ("everybody?select=nothing", {}, 400, "42703"),
        ("everybody?nothing=eq.1", {}, 400, "42703"),
        ("everybody?select=id,log(id)", {}, 400, "PGRST200"),
        ("a/b", {}, 404, "PGRST125"),
    ],
)
async def test_what_cannot_be_called_is_refused(
    rest: Rest, path: str, body: object, status: int, code: str
) -> None:
    assert await rest.refusal(f"rpc/{path}", "POST", json=body) == (status, code)


async def test_a_raised_error_is_told_whole(rest: Rest) -> None:
    answer = await rest.post("rpc/fails", {})
    assert answer.json() == {"code": "22000", "message": "no", "details": "why", "hint": "how"}


async def test_an_overload_that_is_nearly_meant_is_hinted_at(rest: Rest) -> None:
    answer = await rest.post("rpc/everybod", {})
    assert answer.json()["hint"] == "Perhaps you meant to call the function public.everybody"
