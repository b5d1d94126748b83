"""The entries of a join's `postgres_changes`, before Postgres is asked."""

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ingest.lsn import LSN
from butterbase.realtime.changes.filters import OPERATORS, Term, parse_filter
from butterbase.realtime.changes.matching import Select
from butterbase.realtime.changes.subscriptions import (
    ChangeRequest,
    number,
    parse_entry,
    read_position_of,
)
from butterbase.realtime.errors import InvalidPositionError, InvalidSubscriptionError
from butterbase.realtime.window.position import ChangePosition, Position


def test_equal_entries_have_equal_ids_and_others_different_ones() -> None:
    first, again, other = number(
        [{"event": "*", "table": "a"}, {"table": "a", "event": "*"}, {"event": "*", "table": "b"}]
    )
    assert first == again != other
    assert 0 < first < 2**27


def test_where_an_entry_goes_on_makes_it_no_other() -> None:
    first, again = number([{"table": "a", "from": "0/1/1"}, {"table": "a", "from": "0/2/2"}])
    assert first == again


@pytest.mark.parametrize(
    ("config", "entries", "position"),
    [
        ({}, [{"table": "a"}], None),
        ({"resume": None}, [{"table": "a", "from": None}], None),
        ({"resume": {"from": "0/1/2"}}, [], ChangePosition(LSN(1), 2)),
        ({}, [{"from": "0/1/2"}, {}, {"from": "0/1/2"}], ChangePosition(LSN(1), 2)),
        ({"resume": {"from": "0/3"}}, [{"from": "0/1"}, {"from": "0/2"}], ChangePosition(LSN(3))),
    ],
)
def test_where_a_join_goes_on(
    config: dict[str, Any], entries: list[dict[str, Any]], position: Position | None
) -> None:
    assert read_position_of(config, entries) == position


@pytest.mark.parametrize(
    ("config", "entries"),
    [
        ({"resume": {"from": 5}}, []),
        ({"resume": {"from": "x"}}, []),
        ({}, [{"from": "0/1"}, {"from": "0/2"}]),
        ({}, [{"from": ["0/1"]}]),
    ],
)
def test_where_no_join_can_go_on(config: dict[str, Any], entries: list[dict[str, Any]]) -> None:
    with pytest.raises(InvalidPositionError):
        read_position_of(config, entries)


SCHEMAS = ("public",)


@pytest.mark.parametrize(
    ("entry", "request_"),
    [
        ({"table": "t"}, ChangeRequest(1, "*", "public", "t")),
        ({"schema": "public"}, ChangeRequest(1, "*", "public", "*")),
        ({"schema": "*", "event": "insert"}, ChangeRequest(1, "INSERT", "*", "*")),
        ({"table": "t", "filter": " "}, ChangeRequest(1, "*", "public", "t")),
        (
            {"table": "t", "filter": "a=eq.x=eq.y"},
            ChangeRequest(1, "*", "public", "t", (Term("a", "eq", ("x=eq.y",)),)),
        ),
    ],
)
def test_entries(entry: dict[str, Any], request_: ChangeRequest) -> None:
    assert parse_entry(1, entry, SCHEMAS) == request_


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({}, "No subscription params provided"),
        ({"table": 5}, "`table` must be text"),
        ({"table": "t\0"}, "`table` must be text"),
        ({"schema": "auth", "table": "users"}, "Schema auth is not exposed"),
        ({"table": "t", "event": "SELECT"}, "Unknown event SELECT"),
        ({"table": "t", "filter": "a=foo.hey"}, 'Error parsing `filter` params: ["foo", "hey"]'),
        ({"table": "t", "filter": ["a=eq.1"]}, "`filter` must be text"),
        ({"table": "t", "select": "a,b"}, "Error parsing `select` params: expected a list"),
        ({"schema": "public", "select": ["a"]}, "not supported for wildcard subscriptions"),
        ({"schema": "*", "table": "t", "select": ["a"]}, "not supported for wildcard"),
        ({"schema": "public", "filter": "a=eq.1"}, "needs a schema and a table"),
    ],
)
def test_entries_that_cannot_be(entry: dict[str, Any], message: str) -> None:
    with pytest.raises(InvalidSubscriptionError, match=re.escape(message)):
        parse_entry(1, entry, SCHEMAS)


@pytest.mark.parametrize(
    ("select", "columns"),
    [
        (None, None),
        ([], None),
        ([1, None], None),
        (["b", "a", "b", 5], ("a", "b")),
        ({"a": 1}, None),
    ],
)
def test_a_choice_of_columns_is_a_list_of_names(select: Any, columns: Select) -> None:
    assert parse_entry(1, {"table": "t", "select": select}, SCHEMAS).select == columns


def test_a_request_is_told_as_the_clients_know_it() -> None:
    text = 'id=not.gt.5,tag=in.(a,"b,c")'
    request = parse_entry(1, {"table": "t", "filter": text, "select": ["id"]}, SCHEMAS)
    assert str(request) == (
        '[event: *, schema: public, table: t, filters: [{"id", "gt", "5", true},'
        ' {"tag", "in", "{a,b,c}", false}], select: ["id"]]'
    )
    plain = parse_entry(1, {"table": "t"}, SCHEMAS)
    assert str(plain) == "[event: *, schema: public, table: t, filters: [], select: nil]"


def is_(column: str, operator: Any, *values: str, negated: bool = False) -> Term:
    return Term(column, operator, values, negated)


@pytest.mark.parametrize(
    ("text", "terms"),
    [
        ("", []),
        ("  ", []),
        ("id=eq.5", [is_("id", "eq", "5")]),
        (" id=gt.0 , id=lt.100 ", [is_("id", "gt", "0"), is_("id", "lt", "100")]),
        ("a=not.eq.5", [is_("a", "eq", "5", negated=True)]),
        ("a=eq.not.eq.5", [is_("a", "eq", "not.eq.5")]),
        ("a=eq.", [is_("a", "eq", "")]),
        ("a=eq. x", [is_("a", "eq", " x")]),
        ("a=eq.x=eq.y", [is_("a", "eq", "x=eq.y")]),
        ("a=in.(1,2),b=eq.x", [is_("a", "in", "1", "2"), is_("b", "eq", "x")]),
        ('a=in.("x,y",z)', [is_("a", "in", "x,y", "z")]),
        (r'a=in.("a\"b","c\\d")', [is_("a", "in", 'a"b', "c\\d")]),
        ("a=in.()", [is_("a", "in")]),
        ("a=not.in.(1)", [is_("a", "in", "1", negated=True)]),
        ("a=is.null,b=not.is.true", [is_("a", "is", "null"), is_("b", "is", "true", negated=True)]),
        ("a=match.^(x|y),b=imatch.z", [is_("a", "match", "^(x|y)"), is_("b", "imatch", "z")]),
        ("a=like.%a_,b=ilike.A%", [is_("a", "like", "%a_"), is_("b", "ilike", "A%")]),
        ("a=isdistinct.null", [is_("a", "isdistinct", "null")]),
        ('a=eq."x,y",b=eq.z', [is_("a", "eq", "x,y"), is_("b", "eq", "z")]),
        (r'a=eq."say \"hi\" \\o/"', [is_("a", "eq", 'say "hi" \\o/')]),
        ('a=eq.""', [is_("a", "eq", "")]),
        ('a=eq." x "', [is_("a", "eq", " x ")]),
        ('a=eq."never closed', [is_("a", "eq", '"never closed')]),
        ('a=eq."x"y,b=eq.z', [is_("a", "eq", '"x"y'), is_("b", "eq", "z")]),
        ('a=eq.5" tall,b=eq.z', [is_("a", "eq", '5" tall'), is_("b", "eq", "z")]),
        ("a=eq.x),b=eq.y", [is_("a", "eq", "x)"), is_("b", "eq", "y")]),
        ("a=eq.(x,b=eq.y", [is_("a", "eq", "(x,b=eq.y")]),
    ],
)
def test_a_filter_is_terms_between_commas(text: str, terms: list[Term]) -> None:
    assert parse_filter(text) == tuple(terms)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("undefined", '["undefined"]'),
        ("a=eq", '["eq"]'),
        ("a=foo.hey", '["foo", "hey"]'),
        ("a=EQ.1", '["EQ", "1"]'),
        ("a=not.foo.1", '["foo", "1"]'),
        ("a=eq(any).{1}", '["eq(any)", "{1}"]'),
        ("a=cs.{1}", '["cs", "{1}"]'),
        ("a=eq.1,b=foo.2", '["foo", "2"]'),
        ("a=eq.1,", "filter must not contain empty segments (check for extra commas)"),
        (",a=eq.1", "filter must not contain empty segments (check for extra commas)"),
        ("a=eq.1,,b=eq.2", "filter must not contain empty segments (check for extra commas)"),
        ("a=in.1,2", "`in` filter value must be wrapped by parentheses"),
        ("a=in.(1)2", "`in` filter value must be wrapped by parentheses"),
        ("a=in.(1))", "')' stands behind a list"),
        (f"a=in.({'1,' * 100}1)", "too many values for `in` filter. Maximum 100"),
        ("a=is.nothing", "invalid value for is filter: must be null, true, false, unknown"),
        ("a=is.NULL", "invalid value for is filter: must be null, true, false, unknown"),
        ("a=like.x\\", "LIKE pattern must not end with escape character"),
        (",".join(["a=eq.1"] * 21), "at most 20 conditions fit a filter"),
    ],
)
def test_what_is_no_filter_is_told_with_its_reason(text: str, reason: str) -> None:
    with pytest.raises(InvalidSubscriptionError) as refused:
        parse_filter(text)
    assert refused.value.message == f"Error parsing `filter` params: {reason}"


@given(st.text('ab=.,()"\\ inotelq') | st.text())
def test_any_text_is_a_filter_or_refused(text: str) -> None:
    try:
        terms = parse_filter(text)
    except InvalidSubscriptionError:
        return
    assert all(term.operator in OPERATORS for term in terms)


def quoted(value: str) -> str:
    """As realtime-js writes a value."""
    if not re.search(r'[,()"\\]', value) and value == value.strip():
        return value
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


@given(st.lists(st.text(), min_size=2, max_size=3))
def test_what_a_client_quotes_is_read_as_it_was_meant(values: list[str]) -> None:
    text = ",".join(f"a=eq.{quoted(value)}" for value in values)
    assert [term.values for term in parse_filter(text)] == [(value,) for value in values]
    items = ",".join(map(quoted, values))
    assert [term.values for term in parse_filter(f"b=in.({items})")] == [tuple(values)]
