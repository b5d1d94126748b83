"""Trees of conditions: `and`, `or`, negated, nested, on levels, for reads, changes and calls."""

import pytest

from tests.api.rest.conftest import RETURN, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create table teams (id int primary key, name text);
create table players (
  id int primary key, team_id int references teams, name text, age int, tags text[], facts jsonb,
  born int4range
);
create function all_players() returns setof players language sql stable
  as 'select * from players';
create function older(players) returns int language sql stable as 'select $1.age + 1';
"""
ROWS = """
truncate teams, players;
insert into teams values (1, 'red'), (2, 'blue');
insert into players values
  (1, 1, 'Ana', 20, '{a,b}', '{"n": 1, "m": {"k": "x"}}', '[1,5)'),
  (2, 1, 'Bo, Jr.', 30, '{c}', '{"n": 2}', '[5,9)'),
  (3, 2, 'Cy (cap)', null, null, null, null),
  (4, null, 'say "hi"', 40, '{}', '{}', 'empty');
"""

TREES = [
    ("or=(id.eq.1,id.eq.3)", "id = 1 or id = 3"),
    ("and=(id.gt.1,id.lt.4)", "id > 1 and id < 4"),
    ("not.or=(id.eq.1,id.eq.3)", "not (id = 1 or id = 3)"),
    ("not.and=(id.gt.1,id.lt.4)", "not (id > 1 and id < 4)"),
    ("or=(id.eq.1)", "id = 1"),
    ("or=(id.eq.1,and(id.gt.2,age.is.null))", "id = 1 or (id > 2 and age is null)"),
    ("and=(id.gt.0,not.or(id.eq.1,not.and(id.lt.4,id.gt.1)))",
     "id > 0 and not (id = 1 or not (id < 4 and id > 1))"),
    ("or=(id.not.in.(1,2),age.not.eq.20)", "id not in (1, 2) or not age = 20"),
    ("or=( id.eq.1 , id.eq.2 )", "id = 1 or id = 2"),
    ("or=(id.eq.1,id.eq.2)&or=(age.eq.20,age.eq.40)", "id in (1, 2) and age in (20, 40)"),
    ("or=(id.eq.1,id.eq.2)&age=eq.30", "id in (1, 2) and age = 30"),
    ('or=(name.eq."Bo, Jr.",name.eq."Cy (cap)")', "name in ('Bo, Jr.', 'Cy (cap)')"),
    (r'or=(name.eq."say \"hi\"",id.eq.1)', "id in (1, 4)"),
    ('or=(name.in.("Bo, Jr.",Ana),id.eq.3)', "id in (1, 2, 3)"),
    ("or=(tags.cs.{a,b},tags.eq.{})", "tags @> '{a,b}' or tags = '{}'"),
    ('or=(born.cd."[1,6)",id.eq.3)', "born <@ '[1,6)' or id = 3"),
    ('or=(born.eq."[5,9)",born.eq.empty)', "born in ('[5,9)', 'empty')"),
    ("or=(facts->>n.eq.2,facts->m->>k.eq.x)", "facts->>'n' = '2' or facts->'m'->>'k' = 'x'"),
    ("or=(age.is.null,tags.not.is.null)", "age is null or tags is not null"),
    ("or=(id.eq(any).{1,3},name.like(all).{*a*,A*})",
     "id = any ('{1,3}') or name like all ('{%a%,A%}')"),
    ("or=(name.like.A*,name.ilike.*CAP*)", "name like 'A%' or name ilike '%cap%'"),
    ("or=(older.eq.21,older.eq.31)", "age in (20, 30)"),
    ("or=(name.fts(english).ana,id.eq.4)", "id in (1, 4)"),
    ("and=(id.isdistinct.1,or(age.gt.30,age.is.null))", "id in (3, 4)"),
]  # fmt: skip


@pytest.mark.parametrize(("query", "condition"), TREES)
async def test_a_tree_is_that_of_postgres(rest: Rest, query: str, condition: str) -> None:
    wanted = rest.sql(f"select id from players where {condition} order by id")  # noqa: S608
    assert await rest.rows(f"players?select=id&order=id&{query}") == wanted
    assert await rest.rows(f"rpc/all_players?select=id&order=id&{query}") == wanted
    called = await rest.post(f"rpc/all_players?select=id&order=id&{query}", {})
    assert called.json() == wanted
    for method, body in (("PATCH", {"team_id": 2}), ("DELETE", None)):
        answer = await rest.call(
            method, f"players?select=id&order=id&{query}", json=body, prefer=RETURN
        )
        assert answer.json() == wanted, method
    assert rest.sql(f"select id from players where {condition}") == []  # noqa: S608


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("players.or=(id.eq.1,id.eq.3)", "id = 1 or id = 3"),
        ("players.and=(id.gt.1,age.not.is.null)", "id > 1 and age is not null"),
        ("players.not.or=(id.eq.1,id.eq.3)", "not (id = 1 or id = 3)"),
        ("players.not.and=(id.gt.1,id.lt.3)", "not (id > 1 and id < 3)"),
    ],
)
async def test_a_level_has_trees_of_its_own(rest: Rest, query: str, condition: str) -> None:
    teams = await rest.rows(f"teams?select=id,players(id)&players.order=id&order=id&{query}")
    for team in teams:
        wanted = rest.sql(
            f"select id from players where team_id = {team['id']} and ({condition}) order by id"  # noqa: S608
        )
        assert team["players"] == wanted
    assert len(teams) == 2


async def test_a_tree_may_ask_for_embedded_rows(rest: Rest) -> None:
    found = await rest.rows(
        "players?select=id,teams()&teams.name=eq.red&or=(teams.not.is.null,age.is.null)&order=id"
    )
    assert found == [{"id": 1}, {"id": 2}, {"id": 3}]
    found = await rest.rows("players?select=id,teams()&not.or=(teams.not.is.null,id.eq.1)")
    assert found == [{"id": 4}]


@pytest.mark.parametrize(
    "query",
    [
        "or=",
        "or=()",
        "or=)",
        "or=(id.eq.1",
        "or=(id.eq.1,)",
        "or=(id.eqq.1,id.eq.2)",
        "or=(xor(id.eq.1))",
        "and=(or())",
        "or=(id)",
        "or=(id.in.1,2)",
        "or=(id.is.x)",
        "or=" + "(and" * 300 + "(id.eq.1)" + ")" * 300,
    ],
)
async def test_a_broken_tree_is_refused(rest: Rest, query: str) -> None:
    assert await rest.refusal(f"players?{query}") == (400, "PGRST100")
