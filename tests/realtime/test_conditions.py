"""A filter's conditions on a table: which are compiled, and what needs not be asked twice."""

import gc
from typing import Any

import pytest

from butterbase.realtime.changes.access import Access, AccessColumn
from butterbase.realtime.changes.conditions import Comparisons, Filter, Filters, Told
from butterbase.realtime.changes.filters import Operator, Term
from butterbase.realtime.changes.matching import Image

TYPES = {  # (oid, typtype)
    "bool": (16, "b"),
    "int4": (23, "b"),
    "numeric": (1700, "b"),
    "float4": (700, "b"),
    "text": (25, "b"),
    "bpchar": (1042, "b"),
    "uuid": (2950, "b"),
    "date": (1082, "b"),
    "interval": (1186, "b"),
    "jsonb": (3802, "b"),
    "_int4": (1007, "b"),
    "color": (90_001, "e"),
    "amount": (90_002, "d"),
    "pair": (90_003, "c"),
}
COLUMNS = (
    *(
        AccessColumn(name, name, name, True, False, None, oid, kind, True)
        for name, (oid, kind) in TYPES.items()
    ),
    AccessColumn("no_case", "text", "text", True, False, '"c"', 25, "b", False),
)
ACCESS = Access("1", "public", "things", False, COLUMNS, ())


def term(column: str, operator: Operator, *values: str, negated: bool = False) -> Term:
    oid = next(c.type_oid for c in COLUMNS if c.name == column)
    return Term(column, operator, values, negated, oid)


def passes(image: Image, *terms: Term) -> bool | None:
    return Filters(ACCESS, "anon").get(terms).passes(image, Comparisons())


@pytest.mark.parametrize(
    ("column", "operators"),
    [
        ("bool", "eq neq lt gte in isdistinct is"),
        ("int4", "eq neq lt gte in isdistinct is"),
        ("numeric", "eq neq lt gte in isdistinct is"),
        ("float4", "eq neq lt gte in isdistinct is"),
        ("uuid", "eq neq lt gte in isdistinct is"),
        ("date", "eq neq lt gte in isdistinct is"),
        ("text", "eq neq in isdistinct is like"),
        ("bpchar", "eq neq in isdistinct is"),
        ("color", "eq neq in isdistinct is"),
        ("no_case", "is"),
        ("interval", "is"),
        ("jsonb", "is"),
        ("_int4", "is"),
        ("amount", ""),
        ("pair", ""),
    ],
)
def test_what_we_answer_ourselves(column: str, operators: str) -> None:
    values = {"bool": "t", "date": "2025-01-01", "is": "null"}
    compiled = []
    names: Any = "eq neq lt gte in isdistinct is like ilike match imatch"
    for operator in names.split():
        value = values.get(operator) or values.get(column, "1")
        (condition,) = Filters(ACCESS, "anon").get((term(column, operator, value),)).conditions
        if condition.is_compiled:
            compiled.append(operator)
    assert compiled == operators.split()


def test_a_type_that_the_values_were_not_read_as_is_asked_about() -> None:
    (condition,) = Filters(ACCESS, "anon").get((Term("int4", "eq", ("1",), False, 25),)).conditions
    assert not condition.is_compiled


@pytest.mark.parametrize("negated", [False, True])
@pytest.mark.parametrize(
    ("operator", "values"),
    [("eq", ["1"]), ("in", []), ("is", ["null"]), ("isdistinct", ["1"]), ("match", ["1"])],
)
def test_a_column_that_the_log_lacks_passes_nothing(
    operator: Operator, values: list[str], negated: bool
) -> None:
    assert passes({}, term("int4", operator, *values, negated=negated)) is False


@pytest.mark.parametrize(
    ("wanted", "answer"),
    [
        (term("interval", "eq", "1 day"), False),
        (term("interval", "eq", "1 day", negated=True), False),
        (term("interval", "isdistinct", "1 day"), True),
        (term("interval", "in"), False),
        (term("interval", "in", negated=True), True),
        (term("pair", "is", "null"), True),
        (term("pair", "is", "null", negated=True), False),
        (term("text", "match", "a", negated=True), False),
    ],
)
def test_nobody_is_asked_about_null(wanted: Term, answer: bool) -> None:
    assert passes({wanted.column: None}, wanted) is answer


def test_nobody_is_asked_where_what_is_compiled_does_not_hold() -> None:
    comparisons = Comparisons()
    wanted = Filters(ACCESS, "anon").get((term("interval", "eq", "1 day"), term("int4", "eq", "1")))
    assert wanted.passes({"interval": "24:00:00", "int4": "2"}, comparisons) is False
    assert not comparisons.missing
    assert wanted.passes({"interval": "24:00:00", "int4": "1"}, comparisons) is None
    assert comparisons.missing


def test_what_was_told_is_not_asked_again_and_combines_as_in_sql() -> None:
    comparisons = Comparisons()
    filters = Filters(ACCESS, "anon")
    kept = [filters.get((term("interval", "in", "a", "b", negated=n),)) for n in (False, True)]

    def told(image: Image) -> list[bool | None]:
        return [one.passes(image, comparisons) for one in kept]

    assert told({"interval": "x"}) == [None, None]
    (missing,) = comparisons.missing.values()
    assert [c.value for c in missing.comparisons] == ["a", "b"] * 2
    texts = frozenset("xyz")
    says = {
        "a": Told(texts, frozenset("x"), frozenset("z")),
        "b": Told(texts, frozenset(), frozenset()),
    }
    comparisons.learn({c: says[c.value] for c in missing.comparisons})
    assert told({"interval": "x"}) == [True, False]
    assert told({"interval": "y"}) == [False, True]
    assert told({"interval": "z"}) == [False, False]


def test_a_value_that_we_cannot_read_is_asked_about() -> None:
    comparisons = Comparisons()
    wanted = Filters(ACCESS, "anon").get((term("date", "gt", "2025-01-01"),))
    assert wanted.passes({"date": "01/02/2025"}, comparisons) is None
    (missing,) = comparisons.missing.values()
    assert list(missing.texts) == ["01/02/2025"]


def test_equal_conditions_are_one_and_are_evaluated_once_for_a_change() -> None:
    filters = Filters(ACCESS, "anon")
    expensive, cheap = term("int4", "gt", "5"), term("bool", "eq", "t")
    first, second = filters.get((expensive,)), filters.get((cheap, expensive))
    assert filters.get((expensive,)) is first
    (shared,) = {*first.conditions} & {*second.conditions}
    count = 0
    evaluate = shared._compiled
    assert evaluate is not None

    def counting(*arguments: Any) -> Any:
        nonlocal count
        count += 1
        return evaluate(*arguments)

    shared._compiled = counting
    image: Image = {"int4": "7", "bool": "t"}
    assert all(one.passes(image, Comparisons()) for one in (first, second, first))
    assert count == 1
    assert first.passes({**image, "int4": "3"}, Comparisons()) is False
    assert count == 2


def test_conditions_live_as_long_as_somebody_has_them() -> None:
    filters = Filters(ACCESS, "anon")
    kept: Filter | None = filters.get((term("int4", "gt", "5"),))
    assert kept is not None
    kept = None
    gc.collect()
    assert not filters._filters
    assert not filters._conditions
