"""Nodes → functions of (image, reads), with SQL's three-valued logic.

What an expression reads of the claims alone is no part of the function: each such part is a slot,
evaluated once for a caller. The tuple of their values is what the function is given as `reads`.
"""

import operator
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, Final, TypeAlias

from butterbase.realtime.changes.compiled.casts import conversion
from butterbase.realtime.changes.compiled.json_text import field, field_text, has_key
from butterbase.realtime.changes.compiled.kinds import Kind, Value, read
from butterbase.realtime.changes.compiled.like import like
from butterbase.realtime.changes.compiled.nodes import (
    And,
    Cast,
    ClaimsText,
    Coalesce,
    ColumnValue,
    Compare,
    Constant,
    Distinct,
    Field,
    HasKey,
    Is,
    Like,
    Node,
    Not,
    Operator,
    Or,
    reads_claims,
    reads_row,
)

Reads: TypeAlias = tuple[Value, ...]

Row: TypeAlias = Mapping[str, str | None]
"""Column name → text; every column that is read is there."""

Evaluate: TypeAlias = Callable[[Row, Reads], Value]
"""Raises UnanswerableError."""

_COMPARISONS: Final[dict[Operator, Callable[[Any, Any], bool]]] = {
    "=": operator.eq,
    "<>": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}


class Slots:
    """Collects the parts that read the claims alone, while expressions are built."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []

    def index(self, node: Node) -> int:
        if node not in self.nodes:
            self.nodes.append(node)
        return self.nodes.index(node)


def build(node: Node, slots: Slots) -> Evaluate:
    """The function of a node; its slots are added to the given ones."""
    if reads_claims(node) and not reads_row(node):
        index = slots.index(node)
        return lambda _, reads: reads[index]
    return _build(node, lambda child: build(child, slots))


def build_claim(node: Node) -> Callable[[str], Value]:
    """The value of a slot for a caller's claims, which are given as JSON text."""
    evaluate = _build_claim(node)
    return lambda claims: evaluate({}, (claims,))


def _build_claim(node: Node) -> Evaluate:
    if isinstance(node, ClaimsText):
        return lambda _, reads: reads[0]
    return _build(node, _build_claim)


def _build(node: Node, build_child: Callable[[Node], Evaluate]) -> Evaluate:
    match node:
        case And(children):
            return _and([build_child(child) for child in children])
        case Or(children):
            return _or([build_child(child) for child in children])
        case Not(child):
            return _not(build_child(child))
        case Is(child, value):
            return _is(build_child(child), value)
        case Compare(sign, left, right):
            return _compare(_COMPARISONS[sign], build_child(left), build_child(right))
        case HasKey(left, right):
            return _compare(has_key, build_child(left), build_child(right))
        case Like(child, pattern):
            return _of_known(like(pattern), build_child(child))
        case Distinct(left, right):
            return _distinct(build_child(left), build_child(right))
        case _:
            return _build_value(node, build_child)


def _build_value(
    node: Constant | ColumnValue | ClaimsText | Cast | Field | Coalesce,
    build_child: Callable[[Node], Evaluate],
) -> Evaluate:
    match node:
        case Constant(value=value):
            return lambda _row, _reads: value
        case ColumnValue(kind, name):
            return _column(kind, name)
        case Cast(child, kind):
            return _of_known(conversion(child.kind, kind), build_child(child))
        case Field(child, key, kind):
            is_text = kind is Kind.TEXT
            return _field(child.kind, key, build_child(child), is_text=is_text)
        case Coalesce(children):
            return _coalesce([build_child(child) for child in children])
        case ClaimsText():
            raise AssertionError("claims are read in slots")


@lru_cache(maxsize=256)
def _column(kind: Kind, name: str) -> Evaluate:
    """Shared by all who read the column, one after the other: a text is read once for them."""
    if kind in (Kind.TEXT, Kind.UUID, Kind.ENUM, Kind.OTHER):  # the text is the value
        return lambda row, _: row[name]
    known_text: str | None = None
    known_value: Value = None

    def evaluate(row: Row, _: Reads) -> Value:
        nonlocal known_text, known_value
        text = row[name]
        if text is not known_text:
            known_value = None if text is None else read(kind, text)
            known_text = text
        return known_value

    return evaluate


def _and(children: list[Evaluate]) -> Evaluate:
    def evaluate(row: Row, reads: Reads) -> bool | None:
        answer: bool | None = True
        for child in children:
            value = child(row, reads)
            if value is False:
                return False
            if value is None:
                answer = None
        return answer

    return evaluate


def _or(children: list[Evaluate]) -> Evaluate:
    def evaluate(row: Row, reads: Reads) -> bool | None:
        answer: bool | None = False
        for child in children:
            value = child(row, reads)
            if value is True:
                return True
            if value is None:
                answer = None
        return answer

    return evaluate


def _not(child: Evaluate) -> Evaluate:
    def evaluate(row: Row, reads: Reads) -> bool | None:
        value = child(row, reads)
        return None if value is None else not value

    return evaluate


def _is(child: Evaluate, asked: bool | None) -> Evaluate:
    return lambda row, reads: child(row, reads) is asked


def _compare(compare: Callable[[Any, Any], bool], left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(row: Row, reads: Reads) -> bool | None:
        first = left(row, reads)
        if first is None:
            return None
        second = right(row, reads)
        return None if second is None else compare(first, second)

    return evaluate


def _distinct(left: Evaluate, right: Evaluate) -> Evaluate:
    def evaluate(row: Row, reads: Reads) -> bool:
        first, second = left(row, reads), right(row, reads)
        if first is None or second is None:
            return first is not second
        return bool(first != second)

    return evaluate


def _of_known(convert: Callable[[Value], Value], child: Evaluate) -> Evaluate:
    def evaluate(row: Row, reads: Reads) -> Value:
        value = child(row, reads)
        return None if value is None else convert(value)

    return evaluate


def _field(document_kind: Kind, key: str, child: Evaluate, *, is_text: bool) -> Evaluate:
    is_binary = document_kind is Kind.JSONB

    def get(document: Value) -> Value:
        if is_text:
            return field_text(document, key, is_binary=is_binary)
        return field(document, key)

    return _of_known(get, child)


def _coalesce(children: list[Evaluate]) -> Evaluate:
    def evaluate(row: Row, reads: Reads) -> Value:
        for child in children:
            value = child(row, reads)
            if value is not None:
                return value
        return None

    return evaluate
