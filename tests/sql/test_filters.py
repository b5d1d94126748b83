import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.sql.filters import (
    Operation,
    array_literal,
    operation_of,
    read_list,
    read_operation,
)
from butterbase.sql.scanner import ScanError, explanation, place
from tests.postgres import Databases

# No U+0000, which Postgres has not, and no halves of surrogate pairs, which UTF-8 has not.
TEXTS = st.text(st.characters(codec="utf-8", exclude_characters="\0"))


@pytest.mark.parametrize(
    ("text", "operation", "value"),
    [
        ("eq.5", Operation("eq"), "5"),
        ("eq.", Operation("eq"), ""),
        ("neq.a.b", Operation("neq"), "a.b"),
        ("not.gte.5", Operation("gte", is_negated=True), "5"),
        ("lt(any).{1,2}", Operation("lt", quantifier="any"), "{1,2}"),
        ("not.ilike(all).{a*}", Operation("ilike", True, "all"), "{a*}"),
        ("isdistinct.x", Operation("isdistinct"), "x"),
        ("in.(1,2)", Operation("in"), "(1,2)"),
        ("fts.cat", Operation("fts"), "cat"),
        ("wfts( english ).cat", Operation("wfts", language="english"), "cat"),
        ("is.null", Operation("is", word="null"), ""),
        ("not.is.NOT_NULL", Operation("is", True, word="not_null"), ""),
        ("is.trueish", Operation("is", word="true"), "ish"),
        ("nxr.[1,2)", Operation("nxr"), "[1,2)"),
    ],
)
def test_an_operation_stands_before_its_value(text: str, operation: Operation, value: str) -> None:
    read, start = read_operation(text)
    assert (read, text[start:]) == (operation, value)


@pytest.mark.parametrize(
    ("text", "column", "details"),
    [
        ("0", 1, 'unexpected "0" expecting "not" or operator (eq, gt, ...)'),
        ("noop.0", 1, 'unexpected "o" expecting "not" or operator (eq, gt, ...)'),
        ("", 1, 'unexpected end of input expecting "not" or operator (eq, gt, ...)'),
        ("EQ.1", 1, 'unexpected "E" expecting "not" or operator (eq, gt, ...)'),
        ("notx", 4, 'unexpected "x" expecting delimiter (.)'),
        ("not.null", 5, 'unexpected "n" expecting operator (eq, gt, ...)'),
        ("eq", 3, "unexpected end of input expecting operator (eq, gt, ...)"),
        ("eq().v", 4, 'unexpected ")" expecting operator (eq, gt, ...)'),
        ("neq(any).v", 4, 'unexpected "(" expecting operator (eq, gt, ...)'),
        ("fts().v", 5, 'unexpected ")" expecting operator (eq, gt, ...)'),
        ("in().v", 3, 'unexpected "(" expecting operator (eq, gt, ...)'),
        (
            "is.nope",
            6,
            'unexpected "p" expecting isVal: (null, not_null, true, false, unknown)',
        ),
    ],
)
def test_what_is_no_operation_is_told_as_postgrest_does(
    text: str, column: int, details: str
) -> None:
    with pytest.raises(ScanError) as refused:
        read_operation(text)
    fault = refused.value.fault
    assert place(text, fault.position) == f"(line 1, column {column})"
    assert explanation(text, fault) == details


@given(st.text("notequlkigis.(){}any _") | st.text())
def test_any_text_is_an_operation_and_a_value_or_refused(text: str) -> None:
    operation: Operation | None
    try:
        operation, start = read_operation(text)
    except ScanError as error:
        operation, start = None, error.fault.position
    assert 0 <= start <= len(text)
    if operation is not None:
        prefix = text[:start].lower() if operation.operator == "is" else text[:start]
        assert operation_of(prefix) == operation


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("()", []),
        ('("")', []),
        ("(a)", ["a"]),
        ("(a,,b)", ["a", "", "b"]),
        ('("a,b",c)', ["a,b", "c"]),
        (r'("a\"b","c\\d")', ['a"b', r"c\d"]),
        ('("a"b,c)', ['"a"b', "c"]),
        ('(a"b)', ['a"b']),
        ("( a , b )", ["a ", " b "]),
        ('("(x)")', ["(x)"]),
    ],
)
def test_a_list_holds_plain_and_quoted_values(text: str, values: list[str]) -> None:
    assert read_list(text) == (values, len(text))


def test_what_follows_a_list_is_not_looked_at() -> None:
    assert read_list("x(1,2) y", 1) == (["1", "2"], 7)


@pytest.mark.parametrize(
    ("text", "details"),
    [
        ("1,2", 'unexpected "1" expecting "("'),
        ("", 'unexpected end of input expecting "("'),
        ("(", 'unexpected end of input expecting "\\"", "," or ")"'),
        ("(1", 'unexpected end of input expecting "," or ")"'),
    ],
)
def test_a_list_has_parentheses(text: str, details: str) -> None:
    with pytest.raises(ScanError) as refused:
        read_list(text)
    assert explanation(text, refused.value.fault) == details


def test_an_open_list_of_many_quoted_values_is_refused_in_one_pass() -> None:
    with pytest.raises(ScanError):  # a second pass for each value would take longer than anybody
        read_list("(" + '"a",' * 100_000)


def test_postgres_reads_a_list_as_it_was_written(postgres: Databases) -> None:
    @given(st.lists(TEXTS))
    def check(values: list[str]) -> None:
        row = conn.execute("select %s::text[]", [array_literal(values)]).fetchone()
        assert row == (values,)

    with psycopg.connect(postgres.dsn) as conn:
        check()


@given(TEXTS)
def test_a_quoted_value_is_read_as_it_was_meant(value: str) -> None:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    assert read_list(f'("{escaped}",x)')[0] == [value, "x"]
