"""Shapes become SQL without a database: once each, and without a value in it."""

import re
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.rest.errors import (
    AggregatesDisabledError,
    AmbiguousRelationshipError,
    InvalidPutFiltersError,
    MediaTypeError,
    NoColumnError,
    NoRelationshipError,
    NoTableError,
    NotEmbeddedError,
    NotImplementedYetError,
    QueryStringError,
    RelatedOrderError,
)
from butterbase.api.rest.plan.model import Plan
from butterbase.api.rest.plan.planner import Planner
from butterbase.api.rest.plan.reading import CARRIED_COUNT_MAX, OUTPUT_COUNT_MAX
from butterbase.api.rest.plan.values import values_of
from butterbase.api.rest.request.headers import Headers
from butterbase.api.rest.request.incoming import HttpRequest, Incoming, read_request, target_of
from butterbase.api.rest.request.parser import shape_of
from butterbase.api.rest.settings import RestSettings
from butterbase.api.rest.sql.parameters import fill
from butterbase.sql.relations.model import (
    Cardinality,
    Column,
    Junction,
    Relationship,
    SchemaCache,
    Table,
)

BOOKS, PEOPLE, TAGS, WRITES = (
    ("public", name) for name in ("books", "people", "tags", "books_tags")
)


def table(name: str, *columns: str, key: tuple[str, ...] = ("id",)) -> Table:
    return Table("public", name, {c: Column(c, "bigint", "bigint") for c in columns}, key)


def to_one(column: str, constraint: str) -> Relationship:
    return Relationship(
        BOOKS, PEOPLE, Cardinality.MANY_TO_ONE, constraint, columns=((column, "id"),)
    )


CACHE = SchemaCache(
    tables={
        BOOKS: table("books", "id", "title", "author_id", "editor_id"),
        PEOPLE: table("people", "id", "name"),
        TAGS: table("tags", "id", "word"),
    },
    relationships={
        (BOOKS, "public"): (
            to_one("author_id", "books_author"),
            to_one("editor_id", "books_editor"),
            Relationship(
                BOOKS,
                TAGS,
                Cardinality.MANY_TO_MANY,
                junction=Junction(WRITES, "a", "b", (("id", "book_id"),), (("id", "tag_id"),)),
            ),
        ),
        (PEOPLE, "public"): (
            Relationship(
                PEOPLE,
                BOOKS,
                Cardinality.ONE_TO_MANY,
                "books_author",
                columns=(("id", "author_id"),),
            ),
        ),
    },
)


def planned(
    path: str,
    query: str = "",
    *,
    method: str = "GET",
    body: bytes = b"",
    settings: RestSettings | None = None,
    **headers: str,
) -> tuple[Plan, Incoming]:
    given_headers = [(k.replace("_", "-").encode(), v.encode()) for k, v in headers.items()]
    http = HttpRequest(method, path, query, given_headers)
    incoming = read_request(
        http, Headers(given_headers), target_of(path), "public", body, tells_schema=False
    )
    planner = Planner(CACHE, settings or RestSettings())
    return planner.plan(incoming.request, shape_of(incoming.query)), incoming


def text(path: str, query: str = "", settings: RestSettings | None = None) -> str:
    return planned(path, query, settings=settings)[0].main.text.decode()


def test_requests_that_differ_in_values_only_have_one_plan() -> None:
    plans = [
        planned("/books", f"id=eq.{i}&title=in.(a,{i})&or=(id.gt.{i},id.is.null)&limit=5")
        for i in (1, 2)
    ]
    (one, first), (other, second) = plans
    assert first.request == second.request
    assert one.main == other.main
    assert fill(one.recipe, values_of(first, one)) != fill(other.recipe, values_of(second, other))


SECRET = "5ecret"


@given(st.text(max_size=20).filter(lambda t: "\0" not in t))
def test_a_value_is_a_parameter_and_never_sql(value: str) -> None:
    quoted = quote(SECRET + value, safe="")
    plan, incoming = planned("/books", f"title=eq.{quoted}&author_id=not.gt.{quoted}")
    assert SECRET not in plan.main.text.decode()
    assert (SECRET + value).encode() in fill(plan.recipe, values_of(incoming, plan))


@pytest.mark.parametrize(
    "query",
    [
        'select="a""; drop table books"',
        "select=title::text; drop",
        "order=title%22;drop",
        "select=data->>'; drop table books; --",
        "title=fts('; drop).x",
    ],
)
def test_what_is_part_of_the_shape_is_quoted(query: str) -> None:
    try:
        sql = text("/books", query)
    except QueryStringError:
        return
    outside = re.sub(r"\"(?:[^\"]|\"\")*\"|E?'(?:[^']|'')*'", "", sql)
    assert ";" not in outside
    assert "drop" not in outside


def test_every_parameter_is_used_and_numbered_in_order() -> None:
    plan, incoming = planned(
        "/books",
        "select=title,tags(word)&tags.word=eq.x&tags.limit=2&id=gt.1&limit=3",
        prefer="count=exact",
    )
    numbers = {int(n) for n in re.findall(rb"\$(\d+)", plan.main.text)}
    assert numbers == set(range(1, len(plan.recipe) + 1))
    assert len(fill(plan.recipe, values_of(incoming, plan))) == len(plan.recipe)


def test_a_body_comes_in_pieces_and_none_does_not() -> None:
    assert planned("/books", "id=eq.1")[0].main.is_chunked
    assert not planned("/books", method="HEAD")[0].main.is_chunked


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("limit=10", "limit 10"),
        ("limit=10&offset=0", "limit 10"),
        ("limit=10&offset=20", "limit 10 offset $1"),
        ("limit=1001", "limit $1"),
        ("offset=5", "offset $1"),
        ("limit=0", "limit 0"),
        ("", ""),
    ],
)
def test_usual_limits_are_in_the_statement_and_others_are_parameters(query: str, page: str) -> None:
    sql = text("/books", query)
    assert " ".join(re.findall(r"limit [$\d]+|offset \$\d+", sql)) == page


RELATED = {"books": "people!books_author", "people": "books!books_author"}


@st.composite
def nested(draw: st.DrawFn) -> tuple[int, str]:
    """A query that asks again and again about what it embeds, and how many parts it has."""
    parameters: list[str] = []

    def level(table: str, path: str, depth: int) -> tuple[int, str]:
        part_count, items = 1, ["id"]
        for n in range(draw(st.integers(0, 2)) if depth < 7 else 0):
            name, target = f"r{n}", RELATED[table]
            inner_count, inner = level(target.split("!")[0], f"{path}{name}.", depth + 1)
            part_count += inner_count
            items.append(f"{name}:{target}{draw(st.sampled_from(['', '!inner']))}({inner})")
            for _ in range(draw(st.integers(0, 3))):
                test = draw(st.sampled_from(["is.null", "not.is.null"]))
                if draw(st.booleans()):
                    parameters.append(f"{path}{name}={test}")
                else:
                    parameters.append(f"{path}or=({name}.{test},id.eq.1)")
                part_count += 1
        return part_count, ",".join(items)

    part_count, select = level("books", "", 0)
    return part_count, "&".join([f"select={select}", *parameters])


@given(nested(), st.sampled_from(["exact", "planned", "estimated"]))
def test_a_statement_is_as_long_as_its_request(asked: tuple[int, str], count: str) -> None:
    part_count, query = asked
    plan, _ = planned("/books", f"{query}&limit=1", prefer=f"count={count}")
    size = len(plan.main.text) + len(plan.planned_count[0] if plan.planned_count else b"")
    assert size <= 900 * (part_count + 1)


def test_a_relation_that_is_counted_is_looked_for_once() -> None:
    query = "select=people!books_author!inner(id)&people=not.is.null&or=(people.is.null,id.eq.1)"
    sql = planned("/books", f"{query}&limit=1", prefer="count=exact")[0].main.text.decode()
    assert sql.count('from "public"."people"') == 2  # and joined once


def test_a_json_path_is_as_long_as_in_the_request() -> None:
    path = "->x" * 100
    assert text("/books", f"select=id{path}").count("->") == 100


def spread(depth: int, columns: str) -> str:
    targets = ["...people!books_author", "...books!books_author"]
    opening = "".join(f"{targets[n % 2]}(" for n in range(depth))
    return f"select={opening}{columns}{')' * depth}"


def test_spreads_carry_so_many_columns_and_no_more() -> None:
    names = ",".join(f"n{n}:id" for n in range(41))
    text("/books", spread(40, names))
    with pytest.raises(QueryStringError, match=f"carry more than {CARRIED_COUNT_MAX} columns"):
        text("/books", spread(49, names))


def test_a_level_has_so_many_columns_with_stars_spelled_out() -> None:
    stars = ",".join("*" for _ in range(OUTPUT_COUNT_MAX // 2))
    text("/people", f"select={stars},...books()")
    with pytest.raises(QueryStringError, match=f"more than {OUTPUT_COUNT_MAX} columns"):
        text("/books", f"select=...tags({stars},id)")


@pytest.mark.parametrize(
    ("path", "query", "error"),
    [
        ("/book", "", NoTableError),
        ("/books", "select=people(name)", AmbiguousRelationshipError),
        ("/books", "select=cities(name)", NoRelationshipError),
        ("/books", "people.name=eq.x", NotEmbeddedError),
        ("/books", "select=tags(word)&order=tags(word)", RelatedOrderError),
        ("/books", "select=id.sum()", AggregatesDisabledError),
    ],
)
def test_what_cannot_be_planned_says_why(path: str, query: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        planned(path, query)


def test_a_hint_or_a_key_decides_between_relationships() -> None:
    for select in ("people!books_author(name)", "people!editor_id(name)", "books_editor(name)"):
        assert "join lateral" in text("/books", f"select=title,{select}")


def test_aggregates_in_a_spread_of_many_are_not_there() -> None:
    with pytest.raises(NotImplementedYetError):
        planned(
            "/people",
            "select=name,...books(id.sum())",
            settings=RestSettings(aggregates_enabled=True),
        )


def test_an_aggregate_groups_by_all_that_is_not_one() -> None:
    plan, _ = planned(
        "/books",
        "select=title,author_id,id.max(),count()",
        settings=RestSettings(aggregates_enabled=True),
    )
    assert b"group by 1, 2" in plan.main.text


def test_the_servers_limit_holds_on_each_level_and_lowers_the_callers() -> None:
    settings = RestSettings(max_rows=5)
    assert text("/books", "select=*,tags(word)&limit=100", settings=settings).count("limit 5") == 2
    assert "limit 3" in text("/books", "limit=3", settings=settings)
    plan, incoming = planned("/books", "limit=5000", settings=settings)
    assert fill(plan.recipe, values_of(incoming, plan)) == [b"5"]


def test_an_unknown_column_of_a_body_is_refused() -> None:
    with pytest.raises(NoColumnError, match="'colour' column of 'books'"):
        planned("/books", method="POST", body=b'{"colour": 1}')


@pytest.mark.parametrize("query", ["", "title=eq.x", "id=gt.1", "id=eq.1&or=(id.eq.1)"])
def test_a_put_is_for_the_row_of_its_key(query: str) -> None:
    with pytest.raises(InvalidPutFiltersError):
        planned("/books", query, method="PUT", body=b'{"id": 1}')


def test_only_what_the_row_count_decides_is_checked_before_the_commit() -> None:
    body = b'{"title": "x"}'
    plain, _ = planned("/books", "id=eq.1", method="PATCH", body=body)
    one, _ = planned(
        "/books", "id=eq.1", method="PATCH", body=body, accept="application/vnd.pgrst.object+json"
    )
    assert (plain.is_checked, one.is_checked) == (False, True)


def test_a_media_type_that_nothing_makes_is_refused() -> None:
    with pytest.raises(MediaTypeError, match="image/png"):
        planned("/books", accept="image/png")


def test_an_alias_in_a_warning_stays_in_its_line_and_its_quotes() -> None:
    query = "select=%22a%0A%5C%22b%22:people!books_author(name)&people.name=eq.x"
    warning = dict(planned("/books", query)[0].headers)[b"warning"]
    assert warning.startswith(b'299 butterbase "')
    assert b'`people` to `a \\"b`' in warning
    assert b"\n" not in warning
