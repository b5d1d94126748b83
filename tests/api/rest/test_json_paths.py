"""Paths into documents, composites and arrays: what is answered, compared and ordered by."""

import pytest

from tests.api.rest.conftest import RETURN, Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create type size as (width int, label text);
create table items (
  id int primary key, doc jsonb, raw json, size size, tags text[], sizes size[], matrix int[][]
);
create table parts (id int primary key, item_id int references items, doc jsonb);
create function doc_of(items) returns jsonb language sql stable as 'select $1.doc';
"""
ROWS = """
truncate items, parts;
insert into items values
  (1, '{"a": {"b": 1, "c": "x"}, "list": [10, {"k": "v"}, "last"], "odd key": 1, "3": "three"}',
   '{"n": 1.50}', '(3,big)', '{p,q}', '{"(1,one)","(2,two)"}', '{{1,2},{3,4}}'),
  (2, '{"a": {"b": 2}, "list": []}', '{"n": null}', '(1,small)', '{}', null, null),
  (3, '[1, "two", {"three": 3}]', '"text"', null, null, null, null),
  (4, null, null, null, null, null, null);
insert into parts values (1, 1, '{"w": 5}'), (2, 1, '{"w": 3}'), (3, 2, '{"w": 9}');
"""


@pytest.mark.parametrize(
    ("select", "name", "expression"),
    [
        ("doc->a", "a", "doc->'a'"),
        ("doc->a->b", "b", "doc->'a'->'b'"),
        ("doc->a->>b", "b", "doc->'a'->>'b'"),
        ("doc->a->>b::int", "b", "(doc->'a'->>'b')::int"),
        ("total:doc->a->b", "total", "doc->'a'->'b'"),
        ("doc->list->0", "list", "doc->'list'->0"),
        ("doc->list->-1", "list", "doc->'list'->-1"),
        ("doc->list->>-1", "list", "doc->'list'->>-1"),
        ("doc->list->1->>k", "k", "doc->'list'->1->>'k'"),
        ("doc->0", "doc", "doc->0"),
        ("doc->2->three", "three", "doc->2->'three'"),
        ("doc->odd key", "odd key", "doc->'odd key'"),
        ('doc->"3"', "3", "doc->'3'"),
        ("doc->nothing->there", "there", "null::jsonb"),
        ("raw->n", "n", "raw->'n'"),
        ("raw->>n", "n", "raw->>'n'"),
        ("size->width", "width", "to_jsonb(size)->'width'"),
        ("size->>label", "label", "(size).label"),
        ("tags->0", "tags", "to_jsonb(tags)->0"),
        ("tags->>-1", "tags", "to_jsonb(tags)->>-1"),
        ("sizes->1->>label", "label", "sizes[2].label"),
        ("matrix->1->0", "matrix", "matrix[2][1]"),
        ("doc_of->a->b", "b", "doc->'a'->'b'"),
    ],
)
async def test_a_path_is_answered_by_its_last_key(
    rest: Rest, select: str, name: str, expression: str
) -> None:
    answered = await rest.rows(f"items?select={select}&order=id")
    assert answered == rest.sql(f'select {expression} as "{name}" from items order by id')  # noqa: S608


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("doc->a->b=eq.1", "doc->'a'->'b' = '1'"),
        ("doc->a->>b=eq.2", "doc->'a'->>'b' = '2'"),
        ("doc->a->>b=in.(1,7)", "doc->'a'->>'b' in ('1', '7')"),
        ("doc->list->>0=eq.10", "doc->'list'->>0 = '10'"),
        ("doc->list->>-1=eq.last", "doc->'list'->>-1 = 'last'"),
        ("doc->a=is.null", "doc->'a' is null"),
        ("doc->a=not.is.null", "doc->'a' is not null"),
        ("doc->a->>c=like.x*", "doc->'a'->>'c' like 'x%'"),
        ('doc->a=cs.{"b":1}', """doc->'a' @> '{"b": 1}'"""),
        ("raw->>n=eq.1.50", "raw->>'n' = '1.50'"),
        ("size->>label=eq.big", "(size).label = 'big'"),
        ("size->width=gt.2", "(size).width > 2"),
        ("tags->>0=eq.p", "tags[1] = 'p'"),
        ("doc_of->>list=not.is.null", "doc->'list' is not null"),
        ("or=(doc->a->b.eq.1,doc->a->b.eq.2)", "doc->'a'->'b' in ('1', '2')"),
    ],
)
async def test_a_path_is_compared(rest: Rest, query: str, condition: str) -> None:
    wanted = rest.sql(f"select id from items where {condition} order by id")  # noqa: S608
    assert await rest.rows(f"items?select=id&order=id&{query}") == wanted
    changed = await rest.call(
        "PATCH", f"items?select=id&order=id&{query}", json={"tags": ["new"]}, prefer=RETURN
    )
    assert changed.json() == wanted


@pytest.mark.parametrize(
    ("order", "expression"),
    [
        ("doc->a->b.desc.nullslast,id", "doc->'a'->'b' desc nulls last, id"),
        ("doc->a->>c.asc.nullsfirst,id", "doc->'a'->>'c' nulls first, id"),
        ("size->width,id", "(size).width, id"),
        ("tags->>0.desc,id.desc", "tags[1] desc, id desc"),
    ],
)
async def test_rows_are_ordered_by_a_path(rest: Rest, order: str, expression: str) -> None:
    wanted = rest.sql(f"select id from items order by {expression}")  # noqa: S608
    assert await rest.rows(f"items?select=id&order={order}") == wanted


async def test_paths_go_into_embedded_rows(rest: Rest) -> None:
    found = await rest.rows(
        "items?select=id,parts(id,w:doc->w)&parts.order=doc->w&parts.doc->>w=lt.9&id=in.(1,2)"
    )
    assert found == [
        {"id": 1, "parts": [{"id": 2, "w": 3}, {"id": 1, "w": 5}]},
        {"id": 2, "parts": []},
    ]
    found = await rest.rows("parts?select=id,items(doc)&order=items(doc->a->b).desc,id")
    assert [row["id"] for row in found] == [3, 1, 2]


@pytest.mark.parametrize("query", ["select=doc->", "select=doc->>", "select=doc-->a", "doc->=eq.1"])
async def test_a_broken_path_is_refused(rest: Rest, query: str) -> None:
    assert await rest.refusal(f"items?{query}") == (400, "PGRST100")


@pytest.mark.parametrize("key", ["it's", 'a"b', "a\\b", "$1", "%25s", "é", "a%3Bdrop table x"])
async def test_a_key_is_only_ever_a_key(rest: Rest, key: str) -> None:
    assert await rest.rows(f"items?select=x:doc->{key}&id=eq.1&doc->>{key}=is.null") == [
        {"x": None}
    ]
