from itertools import product

import pytest

from butterbase.api.rest.errors import QueryStringError
from butterbase.api.rest.request.parser import is_keepable, read_query, shape_of
from butterbase.api.rest.request.syntax import (
    Field,
    Filter,
    JsonStep,
    Logic,
    OrderTerm,
    Path,
    Range,
    SelectField,
    SelectItem,
    SelectRelation,
)
from butterbase.sql.filters import Operation
from tests.api.rest.shapes import encoded, field, parsed

EQ = Operation("eq")


def relation(name: str, *names: str) -> SelectRelation:
    return SelectRelation(name, tuple(map(field, names)))


SELECTS: list[tuple[str, tuple[SelectItem, ...]]] = [
    ("", ()),
    ("*", (field("*"),)),
    ("id, name", (field("id"), field("name"))),
    ("café_$1-x y", (field("café_$1-x y"),)),
    ('"a,b"', (field("a,b"),)),
    (r'"say \"hi\""', (field('say "hi"'),)),
    ("total:amount::text", (SelectField(Field("amount"), alias="total", cast="text"),)),
    ("amount.sum()", (SelectField(Field("amount"), aggregate="sum"),)),
    (
        "n:a::int.max()::text",
        (SelectField(Field("a"), "n", "int", aggregate="max", aggregate_cast="text"),),
    ),
    ("count()", (SelectField(Field("*"), aggregate="count"),)),
    ("n:count()::text", (SelectField(Field("*"), "n", None, "count", "text"),)),
    ("data->a->>b", (field("data", JsonStep("a"), JsonStep("b", as_text=True)),)),
    ("data->-1->0", (field("data", JsonStep("-1", True), JsonStep("0", is_index=True)),)),
    ('data->"a.b"', (field("data", JsonStep("a.b")),)),
    ("data->a-b", (field("data", JsonStep("a-b")),)),
    ("data->1a", (field("data", JsonStep("1a")),)),
    ("clients(id,name)", (relation("clients", "id", "name"),)),
    ("clients()", (relation("clients"),)),
    ("c:clients(id)", (SelectRelation("clients", (field("id"),), alias="c"),)),
    ("clients!fk(id)", (SelectRelation("clients", (field("id"),), hint="fk"),)),
    ("clients!inner(id)", (SelectRelation("clients", (field("id"),), join="inner"),)),
    ("a!b!left()", (SelectRelation("a", hint="b", join="left"),)),
    ("a!left!b()", (SelectRelation("a", hint="b", join="left"),)),
    ("...clients(id)", (SelectRelation("clients", (field("id"),), is_spread=True),)),
    ("a(b(c))", (SelectRelation("a", (relation("b", "c"),)),)),
]


@pytest.mark.parametrize(("text", "select"), SELECTS)
def test_select_is_a_tree_of_fields_and_relations(
    text: str, select: tuple[SelectItem, ...]
) -> None:
    assert parsed(encoded(select=text)).select == select


def test_without_a_select_all_columns_are_asked_for() -> None:
    assert parsed("").select == parsed("select=*").select == (field("*"),)


def test_the_first_of_several_selects_counts() -> None:
    shape = parsed("select=a&select=b&columns=c&columns=d&on_conflict=e&on_conflict=f")
    assert (shape.select, shape.columns, shape.on_conflict) == ((field("a"),), ("c",), ("e",))


def test_columns_are_a_set_and_a_conflict_target_is_a_list() -> None:
    shape = parsed('columns=b,"a",b&on_conflict=b,a')
    assert (shape.columns, shape.on_conflict) == (("a", "b"), ("b", "a"))


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("id", (OrderTerm(Field("id")),)),
        (
            "a.desc,b.nullsfirst",
            (
                OrderTerm(Field("a"), direction="desc"),
                OrderTerm(Field("b"), nulls="first"),
            ),
        ),
        ("a.asc.nullslast", (OrderTerm(Field("a"), None, "asc", "last"),)),
        (
            "data->>n.desc",
            (OrderTerm(Field("data", (JsonStep("n", as_text=True),)), direction="desc"),),
        ),
        ("clients(name).asc", (OrderTerm(Field("name"), "clients", "asc"),)),
    ],
)
def test_order_names_columns_and_directions(text: str, terms: tuple[OrderTerm, ...]) -> None:
    assert parsed(encoded(order=text)).order == (((), terms),)


@pytest.mark.parametrize(
    ("name", "path", "column"),
    [
        ("id", (), Field("id")),
        ("clients.id", ("clients",), Field("id")),
        ("a.b.data->>x", ("a", "b"), Field("data", (JsonStep("x", as_text=True),))),
        ('"a.b".c', ("a.b",), Field("c")),
        ("%22a%26b%22", (), Field("a&b")),
        ("my+column", (), Field("my column")),
    ],
)
def test_the_name_of_a_filter_is_a_path_to_a_column(name: str, path: Path, column: Field) -> None:
    assert parsed(f"{name}=eq.1").filters == ((path, Filter(column, EQ, 0)),)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("eq.a.b", "a.b"),
        ("eq.", ""),
        ("eq.a*b", "a*b"),
        ("like.a*b", "a%b"),
        ("not.ilike(any).{a*,*b}", "{a%,%b}"),
        ('in.(1,"2,3")', '{"1","2,3"}'),
        (r'in.("a\"b")', r'{"a\"b"}'),
        ("in.()", "{}"),
        ("in.(1) and more", '{"1"}'),
        ("eq(any).{1,2}", "{1,2}"),
    ],
)
def test_a_value_is_as_postgres_reads_it(text: str, value: str) -> None:
    assert read_query(encoded(a=text)).values == (value,)


def test_names_and_values_are_decoded() -> None:
    query = read_query("a=eq.1%2B1+%C3%A9&b=eq.caf\xc3\xa9&c=eq.%zz;d=eq.2")
    assert query.values == ("1+1 é", "café", "%zz", "2")


def test_what_is_not_utf8_is_replaced() -> None:
    assert read_query("a=eq.%FF").values == ("\ufffd",)


def test_a_parameter_without_an_equals_sign_says_nothing() -> None:
    assert parsed("id&order&or&limit&select&&") == parsed("")


def test_equal_queries_but_for_their_values_have_one_outline_and_one_shape() -> None:
    one = read_query("id=eq.1&name=in.(a,b)&or=(x.eq.1,y.is.null)&limit=1")
    other = read_query("id=eq.2&name=in.(c)&or=(x.eq.%22(%22,y.is.NULL)&limit=2")
    assert one.outline == other.outline
    assert hash(one.outline) == hash(other.outline)
    assert shape_of(one) is shape_of(other)


def test_different_shapes_have_different_outlines() -> None:
    queries = ["", "a=eq.1", "a=neq.1", "b=eq.1", "a=eq.1&a=eq.1", "a=is.null", "a=is.true"]
    queries += ["select=a", "columns=a", "on_conflict=a", "order=a", "order=b", "a.order=a"]
    queries += ["limit=1", "a.limit=1", "or=(a.eq.1)", "and=(a.eq.1)", "not.or=(a.eq.1)"]
    queries += ["a.or=(a.eq.1)", "or=(b.eq.1)", "or=(a.gt.1)"]
    for one, other in product(queries, queries):
        same = read_query(one).outline == read_query(other).outline
        assert same == (one == other)


def test_a_long_list_of_values_does_not_make_an_outline_long() -> None:
    numbers = ",".join(map(str, range(10_000)))
    assert is_keepable(read_query(f"id=in.({numbers})"))
    assert not is_keepable(read_query(f"select={numbers}"))


def test_logic_is_a_tree_whose_values_come_after_those_of_filters() -> None:
    query = read_query("or=(a.eq.1,not.and(b.is.null,c.in.(2,3)),d->>e.not.like.*x)&z=eq.0")
    assert query.values == ("0", "1", '{"2","3"}', "%x")
    group = Logic(
        (
            Filter(Field("b"), Operation("is", word="null")),
            Filter(Field("c"), Operation("in"), 2),
        ),
        is_negated=True,
    )
    nested = Field("d", (JsonStep("e", as_text=True),))
    terms = (Filter(Field("a"), EQ, 1), group, Filter(nested, Operation("like", True), 3))
    assert shape_of(query).logic == (((), Logic(terms, is_or=True)),)


@pytest.mark.parametrize(
    ("name", "path", "is_or", "is_negated"),
    [
        ("and", (), False, False),
        ("not.or", (), True, True),
        ("clients.or", ("clients",), True, False),
        ("a.b.not.and", ("a", "b"), False, True),
        ("not.a.or", ("a",), True, True),
    ],
)
def test_the_name_of_logic_is_a_path_and_an_operator(
    name: str, path: Path, is_or: bool, is_negated: bool
) -> None:
    logic = Logic((Filter(Field("x"), EQ, 0),), is_or, is_negated)
    assert parsed(f"{name}=(x.eq.1)").logic == ((path, logic),)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ('(a.eq."x,y)")', "x,y)"),
        (r'(a.eq."x\"y")', 'x"y'),
        ("(a.ov.{1,2})", "{1,2}"),
        ("(a.eq.{1)", "{1"),
        ('(a.eq."x"y)', '"x"y'),
        ("( a.eq. x )", " x "),
        ("(a.eq.)", ""),
        ('(a.in.("x",y ) )', '{"x","y "}'),
    ],
)
def test_a_value_in_logic_ends_at_a_comma_or_parenthesis(text: str, value: str) -> None:
    assert read_query(encoded(**{"and": text})).values == (value,)


@pytest.mark.parametrize(
    ("query_string", "ranges"),
    [
        ("limit=5", (((), Range(0, 4)),)),
        ("offset=5", (((), Range(5)),)),
        ("offset=5&limit=5", (((), Range(5, 9)),)),
        ("limit=1&limit=2", (((), Range(0, 1)),)),
        ("limit=many", (((), Range()),)),
        ("a.b.limit=3&limit=1", ((("a", "b"), Range(0, 2)), ((), Range(0, 0)))),
    ],
)
def test_levels_have_ranges(query_string: str, ranges: tuple[tuple[Path, Range], ...]) -> None:
    query = read_query(query_string)
    assert query.ranges == ranges
    assert shape_of(query).ranged == tuple(path for path, _ in ranges)


def test_of_a_call_what_is_no_filter_is_an_argument() -> None:
    query = read_query("id=eq.1&name=x&v=1&v=2&t.u=&select=a", is_call=True)
    assert query.arguments == (("name", "x"), ("v", "1"), ("v", "2"), ("u", ""))
    assert shape_of(query).filters == (((), Filter(Field("id"), EQ, 0)),)


@pytest.mark.parametrize("text", ["not.x", "in.x", "is.x"])
def test_an_argument_does_not_begin_like_a_filter(text: str) -> None:
    with pytest.raises(QueryStringError, match="failed to parse filter"):
        read_query(f"name={text}", is_call=True)


@pytest.mark.parametrize(
    ("query_string", "canonical"),
    [
        ("", ""),
        ("b=eq.1&a=eq.1", "a=eq.1&b=eq.1"),
        ("select=*&d", "d=&select=%2A"),
        ("a=eq.1&b=eq.2&a=eq.3", "a=eq.1,eq.3&b=eq.2"),
        ("a=eq.x+y%2Fz&b=eq.-_.~", "a=eq.x%20y%2Fz&b=eq.-_.~"),
        ("a=eq.%c3%a9", "a=eq.%C3%A9"),
    ],
)
def test_the_canonical_query_string_is_sorted_and_encoded(
    query_string: str, canonical: str
) -> None:
    assert read_query(query_string).canonical == canonical
