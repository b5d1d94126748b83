"""Horizontal filters: Postgres, asked with the condition that is meant, is the oracle."""

import pytest

from tests.api.rest.conftest import Rest

pytestmark = pytest.mark.asyncio(loop_scope="module")

SCHEMA = """
create type mood as enum ('sad', 'calm', 'glad');
create table books (
  id int primary key, title text, price numeric, is_sold boolean, mood mood, tags text[],
  pages int4range, facts jsonb, words tsvector, at timestamptz, "the name" text,
  code char(4), flags bit(3)
);
insert into books values
  (1, 'Emma', 7.50, true, 'sad', '{a,b}', '[1,10)', '{"n": 1, "list": [1, 2]}',
   to_tsvector('english', 'the cats are sleeping'), '2024-01-01T10:00:00+02', 'x', 'ab', '101'),
  (2, 'emma*', 8, false, 'calm', '{b,c}', '[5,20)', '{"n": 2}',
   to_tsvector('english', 'a dog sleeps'), '2024-06-01T00:00:00Z', 'y, z', 'abcd', '010'),
  (3, 'A, B', null, null, 'glad', '{}', '[20,30)', '{}', null, null, 'say "hi"', 'a', '000'),
  (4, '%_\\', -1, true, null, null, null, null, null, 'infinity', '(a)', null, null),
  (5, null, 1e9, false, 'glad', '{"x y","null",NULL}', 'empty', '[1]',
   to_tsvector('english', 'raining cats and dogs'), '2024-01-01T08:00:00Z', '', 'é', '111');
create function title_length(books) returns int language sql stable
  as 'select length($1.title)';
create function always(books) returns boolean language sql immutable as 'select true';
create table prose (id int primary key, body text, doc json);
insert into prose values
  (1, 'The quick brown foxes', '{"a": "jumping"}'), (2, 'lazy dogs', '{"a": "sleep"}');
"""


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("id=eq.2", "id = 2"),
        ("id=neq.2", "id <> 2"),
        ("id=gt.2", "id > 2"),
        ("id=gte.2", "id >= 2"),
        ("id=lt.2", "id < 2"),
        ("id=lte.2", "id <= 2"),
        ("price=eq.7.5", "price = 7.5"),
        ("price=lt.0", "price < 0"),
        ("mood=gt.sad", "mood > 'sad'"),
        ("at=eq.2024-01-01T08:00:00Z", "at = '2024-01-01T08:00:00Z'"),
        ("at=eq.infinity", "at = 'infinity'"),
        ("title=eq.Emma", "title = 'Emma'"),
        ("title=eq.", "title = ''"),
        ("the name=eq.", "\"the name\" = ''"),
        ("the name=eq.y, z", "\"the name\" = 'y, z'"),
        ('the name=eq.say "hi"', '"the name" = \'say "hi"\''),
        ("code=eq.ab", "code = 'ab'"),
        ("flags=eq.101", "flags = '101'"),
        ("title=isdistinct.Emma", "title is distinct from 'Emma'"),
        ("title=not.isdistinct.Emma", "title is not distinct from 'Emma'"),
        ("title=match.^E", "title ~ '^E'"),
        ("title=imatch.^e", "title ~* '^e'"),
        ("title=not.imatch.^e", "not title ~* '^e'"),
        ("id=not.eq.2", "not id = 2"),
        ("id=gt.1&id=lt.4", "id > 1 and id < 4"),
        ("title_length=eq.4", "title_length(books) = 4"),
        ("always=is.true", "true"),
    ],
)
async def test_a_comparison_is_that_of_postgres(rest: Rest, query: str, condition: str) -> None:
    await agree(rest, query, condition)


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("title=like.Em*", "title like 'Em%'"),
        ("title=like.em%25", "title like 'em%'"),
        ("title=ilike.*MA*", "title ilike '%ma%'"),
        ("title=like.emma\\*", "title like 'emma\\%'"),
        ("title=like._mma", "title like '_mma'"),
        ("title=not.like.*m*", "not title like '%m%'"),
        ("title=like(any).{E*,A*}", "title like any ('{E%,A%}')"),
        ("title=like(all).{*m*,*a}", "title like all ('{%m%,%a}')"),
        ("title=ilike(any).{EMMA,x}", "title ilike any ('{EMMA,x}')"),
        ("id=eq(any).{1,3}", "id = any ('{1,3}')"),
        ("id=gt(all).{1,3}", "id > all ('{1,3}')"),
        ("id=lte(any).{1,3}", "id <= any ('{1,3}')"),
        ("id=not.eq(any).{1,3}", "not id = any ('{1,3}')"),
        ("id=eq(any).{}", "false"),
        ("id=eq(all).{}", "true"),
        ("title=match(any).{^E,^A}", "title ~ any ('{^E,^A}')"),
        ("title=imatch(all).{^e,a$}", "title ~* all ('{^e,a$}')"),
    ],
)
async def test_patterns_and_quantifiers_are_those_of_postgres(
    rest: Rest, query: str, condition: str
) -> None:
    await agree(rest, query, condition)


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("id=in.(1,3)", "id in (1, 3)"),
        ("id=in.( 1 , 3 )", "id in (1, 3)"),
        ("id=not.in.(1,3)", "id not in (1, 3)"),
        ("id=in.()", "false"),
        ("id=not.in.()", "true"),
        ("title=in.()", "false"),
        ("title=in.(Emma,emma*)", "title in ('Emma', 'emma*')"),
        ('title=in.("A, B")', "title in ('A, B')"),
        ('title=in.("A, B",Emma)', "title in ('A, B', 'Emma')"),
        (r'title=in.("%25_\\")', r"title in ('%_\')"),
        (r'the name=in.("say \"hi\"","(a)")', "\"the name\" in ('say \"hi\"', '(a)')"),
        ('the name=in.("")', "false"),  # as PostgREST has it: no list can hold '' alone
        ('the name=in.("",x)', "\"the name\" in ('', 'x')"),
        ("mood=in.(sad,glad)", "mood in ('sad', 'glad')"),
        ("title=in.(null)", "title in ('null')"),
    ],
)
async def test_a_list_holds_what_is_quoted_and_may_be_empty(
    rest: Rest, query: str, condition: str
) -> None:
    await agree(rest, query, condition)


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("is_sold=is.null", "is_sold is null"),
        ("is_sold=is.not_null", "is_sold is not null"),
        ("is_sold=not.is.null", "is_sold is not null"),
        ("is_sold=is.true", "is_sold is true"),
        ("is_sold=is.FALSE", "is_sold is false"),
        ("is_sold=is.unknown", "is_sold is unknown"),
        ("is_sold=not.is.unknown", "is_sold is not unknown"),
        ("is_sold=not.is.true", "is_sold is not true"),
        ("title=is.NULL", "title is null"),
    ],
)
async def test_is_takes_the_words_of_sql(rest: Rest, query: str, condition: str) -> None:
    await agree(rest, query, condition)


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("tags=cs.{b}", "tags @> '{b}'"),
        ("tags=cd.{a,b,c}", "tags <@ '{a,b,c}'"),
        ("tags=ov.{c,zz}", "tags && '{c,zz}'"),
        ('tags=cs.{"x y"}', "tags @> '{\"x y\"}'"),
        ("tags=not.ov.{a}", "not tags && '{a}'"),
        ('facts=cs.{"n":1}', """facts @> '{"n": 1}'"""),
        ("facts=cs.[1]", "facts @> '[1]'"),
        ('facts=cd.{"n":1,"list":[1,2],"x":1}', """facts <@ '{"n": 1, "list": [1, 2], "x": 1}'"""),
        ("pages=cs.[7,8)", "pages @> 7"),
        ("pages=cd.[0,15)", "pages <@ '[0,15)'"),
        ("pages=ov.[9,20)", "pages && '[9,20)'"),
        ("pages=sl.[15,40)", "pages << '[15,40)'"),
        ("pages=sr.[1,5)", "pages >> '[1,5)'"),
        ("pages=nxl.[5,10)", "pages &> '[5,10)'"),
        ("pages=nxr.[5,10)", "pages &< '[5,10)'"),
        ("pages=adj.[10,20)", "pages -|- '[10,20)'"),
        ("pages=not.adj.[10,20)", "not pages -|- '[10,20)'"),
        ("pages=eq.empty", "pages = 'empty'"),
    ],
)
async def test_arrays_ranges_and_documents_have_their_operators(
    rest: Rest, query: str, condition: str
) -> None:
    await agree(rest, query, condition)


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("words=fts.cat", "words @@ to_tsquery('cat')"),
        ("words=fts(english).cat %26 sleep", "words @@ to_tsquery('english', 'cat & sleep')"),
        ("words=plfts(english).dogs sleep", "words @@ plainto_tsquery('english', 'dogs sleep')"),
        ("words=phfts(english).rain cats", "words @@ phraseto_tsquery('english', 'rain cats')"),
        ("words=wfts(english).cat -dog", "words @@ websearch_to_tsquery('english', 'cat -dog')"),
        ("words=not.fts(simple).cat", "not words @@ to_tsquery('simple', 'cat')"),
        ("facts=wfts.x", "to_tsvector(facts) @@ websearch_to_tsquery('x')"),
        ("title=plfts(simple).emma", "to_tsvector('simple', title) @@ 'emma'"),
    ],
)
async def test_text_is_searched(rest: Rest, query: str, condition: str) -> None:
    await agree(rest, query, condition)


async def test_text_and_json_are_made_vectors_to_be_searched(rest: Rest) -> None:
    for query in ("body=fts(english).fox", "doc=plfts(english).jump", "doc->>a=fts(english).jump"):
        assert await rest.rows(f"prose?select=id&{query}") == [{"id": 1}], query


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("id=is.maybe", "PGRST100"),
        ("id=in.1,2", "PGRST100"),
        ("id=in.(1", "PGRST100"),
        ("id=like(some).{a}", "PGRST100"),
        ("id=cs(any).{a}", "PGRST100"),
        ("id=not.not.eq.1", "PGRST100"),
        ("id=eq(any).1", "22P02"),
        ("price=eq.cheap", "22P02"),
        ("mood=eq.furious", "22P02"),
        ("at=gt.tomorrowish", "22007"),
        ("id=like.1*", "42883"),
        ("title=match.(", "2201B"),
        ("words=fts(klingon).a", "42704"),
        ("words=fts.a %26 %26", "42601"),
        ("nope=eq.1", "42703"),
        ("id=eq.99999999999999999999", "22003"),
    ],
)
async def test_what_is_wrong_is_told_by_its_code(rest: Rest, query: str, code: str) -> None:
    status, told = await rest.refusal(f"books?{query}")
    assert told == code
    assert status == (404 if code == "42883" else 400)


async def agree(rest: Rest, query: str, condition: str) -> None:
    """The ids that a filter finds are those that Postgres finds by the condition."""
    found = await rest.rows(f"books?select=id&order=id&{query}")
    assert found == rest.sql(f"select id from books where {condition} order by id")  # noqa: S608
