"""What is no request to the REST API, and how much of one is too much."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.api.rest.errors import QueryStringError, RestError
from butterbase.api.rest.request.limits import (
    EMBEDDED_COUNT_MAX,
    JSON_STEP_COUNT_MAX,
    NESTING_MAX,
    ORDER_COUNT_MAX,
    SELECTED_COUNT_MAX,
)
from butterbase.api.rest.request.parser import read_query, shape_of
from butterbase.api.rest.request.syntax import (
    Condition,
    Field,
    Filter,
    Logic,
    OrderTerm,
    Shape,
)
from tests.api.rest.shapes import encoded, field, parsed


def places(shape: Shape) -> list[int]:
    """Of all values, in the order of the conditions."""

    def within(condition: Condition) -> list[int]:
        match condition:
            case Filter(place=place):
                return [place] if place >= 0 else []
            case Logic(terms=terms):
                return [place for term in terms for place in within(term)]

    return [place for _, condition in shape.conditions for place in within(condition)]


ANY_NAME = "field name (* or [a..z0..9_$])"


@pytest.mark.parametrize(
    ("name", "text", "message", "details"),
    [
        (
            "columns",
            "",
            "columns parameter () 1",
            f"unexpected end of input expecting {ANY_NAME}",
        ),
        (
            "on_conflict",
            "a,",
            "on_conflict parameter (a,) 3",
            f"unexpected end of input expecting {ANY_NAME}",
        ),
        (
            "select",
            "a->(b",
            "select parameter (a->(b) 4",
            'unexpected "(" expecting "-", digit or any non reserved character different from: '
            ".,>()",
        ),
        (
            "select",
            "a->>--3",
            "select parameter (a->>--3) 6",
            'unexpected "-" expecting digit',
        ),
        (
            "select",
            "id,clients(name[])",
            "select parameter (id,clients(name[])) 16",
            'unexpected \'[\' expecting letter, digit, "-", "->>", "->", "::", ".", ")",'
            ' "," or end of input',
        ),
        (
            "select",
            "name::",
            "select parameter (name::) 7",
            "unexpected end of input expecting letter or digit",
        ),
        (
            "select",
            "clients(a,b::int()",
            "select parameter (clients(a,b::int()) 17",
            'unexpected \'(\' expecting letter, digit, ".", "::", ")", "," or end of input',
        ),
        (
            "order",
            "id.asc.nullslasttt",
            "order (id.asc.nullslasttt) 17",
            "unexpected 't' expecting \",\" or end of input",
        ),
        (
            "order",
            "id.ac",
            "order (id.ac) 4",
            'unexpected "c" expecting "asc", "desc", "nullsfirst" or "nullslast"',
        ),
        (
            "a..b",
            "eq.1",
            "tree path (a..b) 3",
            f'unexpected "." expecting {ANY_NAME}',
        ),
        (
            "id",
            "0",
            "filter (0) 1",
            'unexpected "0" expecting "not" or operator (eq, gt, ...)',
        ),
        (
            "a..or",
            "(b.eq.1)",
            "logic path (a..or) 3",
            f'unexpected "." expecting {ANY_NAME}',
        ),
        (
            "or",
            "()",
            "logic tree (()) 4",
            f'unexpected ")" expecting {ANY_NAME}, negation operator (not) or logic operator'
            " (and, or)",
        ),
        (
            "or",
            "(id.in.1,2)",
            "logic tree ((id.in.1,2)) 10",
            'unexpected "1" expecting "("',
        ),
        (
            "and",
            "(ord(id.eq.1))",
            "logic tree ((ord(id.eq.1))) 7",
            'unexpected "d" expecting "("',
        ),
        (
            "or",
            "(a.eq.1,not.xor(b.eq.2))",
            "logic tree ((a.eq.1,not.xor(b.eq.2))) 15",
            'unexpected "x" expecting logic operator (and, or)',
        ),
        (
            "or",
            "(a.eq.1,b.eq.2",
            "logic tree ((a.eq.1,b.eq.2) 17",
            'unexpected end of input expecting "," or ")"',
        ),
        (
            "select",
            '"a',
            'select parameter ("a) 3',
            r'unexpected end of input expecting "\\" or "\""',
        ),
        (
            "select",
            "a\té[",
            "select parameter (a\té[) 9",
            r"""unexpected '\233' expecting "::", ".", ")", "," or end of input""",
        ),
    ],
)
def test_a_fault_is_told_as_postgrest_tells_it(
    name: str, text: str, message: str, details: str
) -> None:
    what, _, column = message.rpartition(" ")
    with pytest.raises(QueryStringError) as refused:
        parsed(encoded(**{name: text}))
    assert refused.value.message == f'"failed to parse {what}" (line 1, column {column})'
    assert refused.value.details == details


@pytest.mark.parametrize("query_string", ["a=eq.%00", "%00=eq.1", "a=eq.\0", "select=%00"])
def test_a_null_character_is_refused(query_string: str) -> None:
    with pytest.raises(QueryStringError, match="null character"):
        read_query(query_string)


@pytest.mark.parametrize(
    ("name", "opening"), [("select", "a("), ("and", "(or"), ("and", "(not.and")]
)
def test_nesting_has_a_limit(name: str, opening: str) -> None:
    with pytest.raises(QueryStringError, match=f"deeper than {NESTING_MAX}"):
        parsed(f"{name}={opening * 100_000}")


@pytest.mark.parametrize(
    ("parameter", "item", "count_max", "what"),
    [
        ("select", "{}:a", SELECTED_COUNT_MAX, "columns and relations"),
        ("select", "*", SELECTED_COUNT_MAX, "columns and relations"),
        ("select", "{}:a(id)", EMBEDDED_COUNT_MAX, "embedded relations"),
        ("select", "...a()", EMBEDDED_COUNT_MAX, "embedded relations"),
        ("order", "a{}.desc", ORDER_COUNT_MAX, "terms in an order"),
    ],
)
def test_a_list_has_a_limit(parameter: str, item: str, count_max: int, what: str) -> None:
    items = [item.format(n) for n in range(count_max + 1)]
    parsed(f"{parameter}={','.join(items[1:])}")
    with pytest.raises(QueryStringError, match=f"more than {count_max} {what}"):
        parsed(f"{parameter}={','.join(items)}")


def test_relations_are_counted_on_all_levels() -> None:
    level = "{}:a(b(c()))"
    parsed("select=" + ",".join(level.format(n) for n in range(EMBEDDED_COUNT_MAX // 3)))
    with pytest.raises(QueryStringError, match="embedded relations"):
        parsed("select=" + ",".join(level.format(n) for n in range(EMBEDDED_COUNT_MAX // 3 + 1)))


@pytest.mark.parametrize("query_string", ["select=a{}", "order=a{}", "a{}=eq.1", "or=(a{}.eq.1)"])
def test_a_json_path_has_a_limit(query_string: str) -> None:
    parsed(query_string.format("->b" * JSON_STEP_COUNT_MAX))
    with pytest.raises(QueryStringError, match=f"more than {JSON_STEP_COUNT_MAX} steps"):
        parsed(query_string.format("->b" * 20_000))


QUERY_TEXTS = st.text('abnotrdiseql.,:()!*-> "{}\\&=%;+1é\t\n\0\x1f\x7f~') | st.text(
    st.characters(max_codepoint=255)
)


NAMES = st.sampled_from(
    ["select", "order", "columns", "on_conflict", "and", "a.or", "a.b", "id", "limit", "x.offset"]
)


PIECES = st.lists(
    st.sampled_from([*'(),.!*:"-\\{} ', "->", "->>", "::", "...", "a", "b c", "1", "é", "null"])
    | st.sampled_from(["not", "and", "or", "eq", "in", "is", "like(any)", "fts(", "desc", "sum()"])
).map("".join)


@given(
    QUERY_TEXTS | st.lists(st.builds("{}={}".format, NAMES, PIECES)).map("&".join), st.booleans()
)
def test_any_query_string_has_a_shape_with_all_its_values_or_is_refused(
    query_string: str, is_call: bool
) -> None:
    try:
        query = read_query(query_string, is_call=is_call)
        shape = shape_of(query)
    except RestError as error:
        assert error.code == "PGRST100"  # noqa: PT017  nothing was raised, too, is right
    else:
        assert places(shape) == list(range(len(query.values)))
        assert shape.ranged == tuple(path for path, _ in query.ranges)


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0")))
def test_any_name_can_be_written_in_quotes(name: str) -> None:
    quoted = '"' + name.replace("\\", "\\\\").replace('"', '\\"') + '"'
    shape = parsed(encoded(select=quoted, order=quoted, columns=quoted))
    assert shape.select == (field(name),)
    assert shape.order == (((), (OrderTerm(Field(name)),)),)
    assert shape.columns == (name,)
