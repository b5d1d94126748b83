"""Filters as text, `id=eq.7`, and as values: for REST, and in parts for realtime.

The grammar is PostgREST's, https://docs.postgrest.org/en/stable/references/api/tables_views.html
"""

import re
from collections.abc import Sequence
from typing import Literal, cast

from msgspec import Struct

from butterbase.sql.memo import memoized
from butterbase.sql.scanner import (
    NOTHING,
    Fault,
    ScanError,
    common_prefix,
    merged,
    quoted,
    unescaped,
)

_SIMPLE = ("neq", "cs", "cd", "ov", "sl", "sr", "nxr", "nxl", "adj")
_QUANTIFIED = ("eq", "gte", "gt", "lte", "lt", "like", "ilike", "match", "imatch")
_SEARCHES = ("fts", "plfts", "phfts", "wfts")
_WORDS = ("null", "not_null", "true", "false", "unknown")

IDENTIFIER = r"(?:[^\W\d]|[0-9 $])+"
"""Letters, ASCII digits, `_`, `$` and blanks."""

_NEGATION = "not"
_OPERATION = re.compile(
    rf"(?P<not>not\.)?(?:"
    rf"(?P<quantified>{'|'.join(_QUANTIFIED)})(?:\((?P<quantifier>any|all)\))?"
    rf"|(?P<search>{'|'.join(_SEARCHES)})(?:\((?P<language>{IDENTIFIER})\))?"
    rf"|(?P<other>in|isdistinct|is|{'|'.join(_SIMPLE)}))\."
)
_WORD = re.compile("|".join(_WORDS), re.IGNORECASE | re.ASCII)
_LANGUAGE = re.compile(rf"\((?:{IDENTIFIER})?")

# Without looking back (`(?>`, `*+`), so that no text takes more than one pass.
_ELEMENT = r'(?>"(?P<quoted>(?:[^"\\]|\\.)*+)"(?=[,)]|\Z)|(?P<raw>[^,)]*+))'
_ANY_ELEMENT = _ELEMENT.replace("?P<quoted>", "").replace("?P<raw>", "")
_LIST = re.compile(
    rf"[ \t]*\([ \t]*(?P<inner>{_ANY_ELEMENT}(?:,{_ANY_ELEMENT})*+)\)[ \t]*", re.DOTALL
)
_ELEMENTS = re.compile(rf"{_ELEMENT},", re.DOTALL)
_LIST_START = re.compile(r"[ \t]*(\([ \t]*)?")


class Operation(Struct, frozen=True):
    """`not.eq(any)`, `fts(french)`, `is.null`: all of a filter but its column and its value."""

    operator: str
    """PostgREST's name: `eq`, `neq`, `in`, `is`, `isdistinct`, `cs`, `fts`, …"""
    is_negated: bool = False
    quantifier: Literal["any", "all"] | None = None
    language: str | None = None
    """The text search configuration of `fts` and its kin."""
    word: Literal["null", "not_null", "true", "false", "unknown"] | None = None
    """What `is` compares with."""


def read_operation(text: str, start: int = 0) -> tuple[Operation, int]:
    """The operation that begins there, and where its value does. Raises ScanError.

    The word of `is` is part of the operation. What is behind it is not looked at.
    """
    match = _OPERATION.match(text, start)
    if not match:
        raise ScanError(_operation_fault(text, start))
    end = match.end()
    operation = operation_of(match[0])
    if operation.operator != "is":
        return operation, end
    word = _WORD.match(text, end)
    if not word:
        raise ScanError(_word_fault(text, end))
    return operation_of(match[0] + word[0].lower()), word.end()


@memoized
def operation_of(text: str) -> Operation:
    """The operation of a text that `read_operation` knows, `not.eq(any).` or `is.null`."""
    match = _OPERATION.match(text)
    assert match, text
    language = match["language"]
    return Operation(
        match["quantified"] or match["search"] or match["other"],
        is_negated=match["not"] is not None,
        quantifier=cast("Literal['any', 'all'] | None", match["quantifier"]),
        language=language and language.strip(),
        word=cast("Literal['null']", text[match.end() :] or None),
    )


def read_list(text: str, start: int = 0) -> tuple[list[str], int]:
    """`(a,"b,c")` that begins there, and where it ends. Raises ScanError.

    `()` has no values, and so has `("")`.
    """
    match = _LIST.match(text, start)
    if not match:
        raise ScanError(_list_fault(text, start))
    inner = match["inner"]
    if '"' not in inner:
        return inner.split(",") if inner else [], match.end()
    elements = _ELEMENTS.findall(inner + ",")
    values = [unescaped(in_quotes) or raw for in_quotes, raw in elements]
    return values if values != [""] else [], match.end()


def array_literal(values: Sequence[str]) -> str:
    """As Postgres reads an array."""
    if not values:
        return "{}"
    inner = '","'.join(values)
    if inner.count('"') == 2 * (len(values) - 1) and "\\" not in inner:
        return '{"' + inner + '"}'
    escaped = (value.replace("\\", r"\\").replace('"', r"\"") for value in values)
    return "{" + ",".join(f'"{value}"' for value in escaped) + "}"


def _operation_fault(text: str, start: int) -> Fault:
    if text.startswith(_NEGATION + ".", start):
        hint, start = NOTHING, start + len(_NEGATION) + 1
    elif text.startswith(_NEGATION, start):
        end = start + len(_NEGATION)
        hint = Fault(end, end, (), ("delimiter (.)",))
    else:
        found = start + common_prefix(_NEGATION, text, start)
        hint = Fault(start, found, (), (quoted(_NEGATION),))
    furthest = NOTHING
    for operator in ("in", "is", "isdistinct", *_SEARCHES, *_SIMPLE, *_QUANTIFIED):
        if text.startswith(operator, start):
            fault = _behind_operator(operator, text, start + len(operator))
        else:
            fault = Fault(start, start + common_prefix(operator, text, start))
        furthest = merged(furthest, fault)
    return merged(hint, furthest._replace(expected=("operator (eq, gt, ...)",)))


def _behind_operator(operator: str, text: str, end: int) -> Fault:
    """Where, behind the operator, something else than a dot stands."""
    if operator in _SEARCHES:
        language = _LANGUAGE.match(text, end)
        if language:
            end = language.end()
            if language[0] != "(":
                end += text.startswith(")", end)
    elif operator in _QUANTIFIED and text.startswith("(", end):
        end += 1
        if not text.startswith(("any", "all"), end):
            return Fault(end, end + common_prefix("all", text, end))
        end += len("any")
        end += text.startswith(")", end)
    return Fault(end, end)


def _word_fault(text: str, start: int) -> Fault:
    known = text[start : start + max(map(len, _WORDS))].lower()
    end = start + max(common_prefix(word, known, 0) for word in _WORDS)
    return Fault(end, end, (), ("isVal: (null, not_null, true, false, unknown)",))


def _list_fault(text: str, start: int) -> Fault:
    match = _LIST_START.match(text, start)
    assert match
    opening, end = match.end(), len(text)
    if not match[1]:
        return Fault(opening, opening, (), ('"("',))
    quote = ('"\\""',) if opening == end else ()
    return Fault(end, end, (), (*quote, '","', '")"'))
