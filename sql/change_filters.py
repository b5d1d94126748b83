"""A filter on changes as text → its terms: `id=gt.5,status=not.in.(done,"a, b")`; without IO.

Realtime's subscriptions and the triggers of functions have it. All terms must hold. The grammar is
Supabase Realtime's: a value with a comma, parenthesis or blank at an end stands in double quotes,
with backslashes before quotes and backslashes in it; a list is PostgREST's.
https://supabase.com/docs/guides/realtime/postgres-changes#available-filters
"""

import json
import re
from typing import Final, Literal, TypeAlias, get_args

from msgspec import Struct

from butterbase.sql.filters import read_list
from butterbase.sql.scanner import ScanError, explanation

Operator: TypeAlias = Literal[
    "eq", "neq", "lt", "lte", "gt", "gte", "in", "like", "ilike", "is", "match", "imatch",
    "isdistinct",
]  # fmt: skip

OPERATORS: Final[dict[str, Operator]] = {name: name for name in get_args(Operator)}
WORDS: Final = ("null", "true", "false", "unknown")
"""What `is` compares with."""

Sign: TypeAlias = Literal["=", "<>", "<", "<=", ">", ">="]
SIGNS: Final[dict[Operator, Sign]] = {
    "eq": "=",
    "neq": "<>",
    "lt": "<",
    "lte": "<=",
    "gt": ">",
    "gte": ">=",
}
"""What Postgres calls the comparisons of values with each other."""
PATTERNS: Final[dict[Operator, str]] = {
    "like": "~~",
    "ilike": "~~*",
    "match": "~",
    "imatch": "~*",
}
"""And those of texts with patterns."""

TERM_COUNT_MAX: Final = 20
VALUE_COUNT_MAX: Final = 100
"""In a list."""

ENDS_WITH_ESCAPE: Final = "LIKE pattern must not end with escape character"

_NEGATION: Final = "not."
_QUOTED: Final = re.compile(r'"((?:[^"\\]|\\.)*+)"', re.DOTALL)
_ESCAPED: Final = re.compile(r"\\(.)", re.DOTALL)


class ChangeFilterError(ValueError):
    """The text is no filter; the message says why."""


class Term(Struct, frozen=True, order=True):
    """`column=operator.value`."""

    column: str
    operator: Operator
    values: tuple[str, ...]
    """One; of `in` any number; of `is` one of WORDS."""
    is_negated: bool = False
    type_oid: int = 0
    """Of the type that the values were read as and are written as in the log; 0: as they came."""

    def __str__(self) -> str:
        negation = _NEGATION if self.is_negated else ""
        value = f"({','.join(self.values)})" if self.operator == "in" else self.values[0]
        return f"{self.column}={negation}{self.operator}.{value}"


def parse_filter(text: str) -> tuple[Term, ...]:
    """No terms where there is nothing but blanks. Raises ChangeFilterError."""
    if not text.strip():
        return ()
    terms = tuple(_term(part.strip()) for part in _parts(text.strip()))
    if len(terms) > TERM_COUNT_MAX:
        raise _fault(f"at most {TERM_COUNT_MAX} conditions fit a filter")
    return terms


def _parts(text: str) -> list[str]:
    """What commas separate outside of quotes and parentheses.

    A quote opens only where a value begins. A parenthesis that closes none is text.
    """
    parts, start, depth, position = [], 0, 0, 0
    while position < len(text):
        character = text[position]
        if character == '"' and position > start and text[position - 1] in ".(,":
            quoted = _QUOTED.match(text, position)
            position = quoted.end() if quoted else len(text)
            continue
        if character == "(":
            depth += 1
        elif character == ")":
            depth = max(0, depth - 1)
        elif character == "," and not depth:
            parts.append(text[start:position])
            start = position + 1
        position += 1
    return [*parts, text[start:]]


def _term(text: str) -> Term:
    if not text:
        raise _fault("filter must not contain empty segments (check for extra commas)")
    column, equals, rest = text.partition("=")
    is_negated = rest.startswith(_NEGATION)
    name, dot, value = rest.removeprefix(_NEGATION).partition(".")
    operator = OPERATORS.get(name)
    if not equals or not dot or operator is None:
        parts = [text] if not equals else [name, value] if dot else [name]
        raise _fault(json.dumps(parts, ensure_ascii=False))
    return Term(column, operator, _values(operator, value), is_negated)


def _values(operator: Operator, text: str) -> tuple[str, ...]:
    if operator == "in":
        return _list(text)
    value = _unquoted(text)
    if operator == "is" and value not in WORDS:
        raise _fault(f"invalid value for is filter: must be {', '.join(WORDS)}")
    if operator in ("like", "ilike") and ends_with_escape(value):
        raise _fault(ENDS_WITH_ESCAPE)
    return (value,)


def _list(text: str) -> tuple[str, ...]:
    if not text.startswith("(") or not text.endswith(")"):
        raise _fault("`in` filter value must be wrapped by parentheses")
    try:
        values, end = read_list(text)
    except ScanError as error:
        raise _fault(explanation(text, error.fault)) from error
    if end != len(text):
        raise _fault(f"{text[end:]!r} stands behind a list")
    if len(values) > VALUE_COUNT_MAX:
        raise _fault(f"too many values for `in` filter. Maximum {VALUE_COUNT_MAX}")
    return tuple(values)


def _unquoted(text: str) -> str:
    """Quotes that do not enclose the whole are text."""
    quoted = _QUOTED.fullmatch(text)
    return text if quoted is None else _ESCAPED.sub(r"\1", quoted[1])


def _fault(reason: str) -> ChangeFilterError:
    return ChangeFilterError(reason)


def ends_with_escape(pattern: str) -> bool:
    return (len(pattern) - len(pattern.rstrip("\\"))) % 2 == 1
