"""A query string → what is asked for: its outline and values, then its shape. Pure.

Every request is split (`read_query`), which looks at no more than must be looked at to tell the
values from the rest. The rest, the outline, identifies the shape, and is parsed (`shape_of`) when
it was not seen lately.
https://docs.postgrest.org/en/stable/references/api/url_grammar.html
"""

from collections.abc import Iterator
from functools import lru_cache
from operator import itemgetter
from typing import NamedTuple, TypeVar

from butterbase.api.rest.errors import QueryStringError
from butterbase.api.rest.request.encoding import encode, has_null_character, read_pairs
from butterbase.api.rest.request.grammar import (
    adapted,
    read_columns,
    read_logic,
    read_logic_path,
    read_order,
    read_select,
    read_tree_path,
)
from butterbase.api.rest.request.ranges import range_of
from butterbase.api.rest.request.syntax import (
    Field,
    Filter,
    Logic,
    Path,
    Query,
    Shape,
)
from butterbase.sql.filters import array_literal, operation_of, read_list, read_operation
from butterbase.sql.memo import memoized
from butterbase.sql.scanner import Reader, ScanError, Scanner, explanation, place

T = TypeVar("T")

VALUE_COUNT_MAX = 32_000
"""Below what a statement can have as parameters, 65,535."""

SHAPE_COUNT_MAX = 1024
OUTLINE_CHARS_MAX = 2048
"""The shape of a longer outline is not kept, nor need be what else is made of it."""

_PARAMETERS = frozenset({"select", "columns", "on_conflict"})
_ON_LEVELS = frozenset({"order", "limit", "offset", "and", "or"})


class Outline(NamedTuple):
    """A query string without its values, unread where it can be read later."""

    select: str | None
    columns: str | None
    on_conflict: str | None
    filters: tuple[str, ...]
    """A key, its operation, the next key, …"""
    order: tuple[str, ...]
    """A key, its terms, the next key, …"""
    ranged: tuple[Path, ...]
    logic: tuple[tuple[Path, Logic], ...]


def read_query(query_string: str, *, is_call: bool = False) -> Query:
    """Split a query string, as it was received; bytes above 127 as latin-1.

    For a call of a function, what is no filter is an argument. Raises QueryStringError.
    """
    if has_null_character(query_string):
        raise QueryStringError("The query string has a null character")
    pairs = read_pairs(query_string)
    parameters: dict[str, str | None] = {}
    filters: list[str] = []
    order: list[str] = []
    logic: list[tuple[str, str]] = []
    limits: dict[Path, dict[str, str]] = {}
    values: list[str] = []
    arguments: list[tuple[str, str]] = []
    for name, value in pairs:
        word = name.rpartition(".")[2]
        if name in _PARAMETERS:
            parameters.setdefault(name, value)
        elif value is None:
            continue
        elif word not in _ON_LEVELS:
            operation = _read_filter(value, values, is_call=is_call)
            if operation is None:
                arguments.append((_tree_path(name)[1].name, value))
            else:
                filters += (name, operation)
        elif word == "order":
            order += (name, value)
        elif word in ("and", "or"):
            logic.append((name, value))
        else:
            limits.setdefault(_tree_path(name)[0], {})[word] = value
    outline = Outline(
        parameters.get("select"),
        parameters.get("columns"),
        parameters.get("on_conflict"),
        tuple(filters),
        tuple(order),
        tuple(limits),
        tuple(_read_logic(name, text, values) for name, text in logic),  # its values come last
    )
    if len(values) > VALUE_COUNT_MAX:
        raise QueryStringError(f"The query string has more than {VALUE_COUNT_MAX} filters")
    ranges = [(path, range_of(**texts)) for path, texts in limits.items()]
    return Query(outline, tuple(values), tuple(ranges), tuple(arguments), _canonical(pairs))


def shape_of(query: Query) -> Shape:
    """The shape that an outline is of. Raises QueryStringError."""
    assert isinstance(query.outline, Outline)
    return (_shape if is_keepable(query) else _new_shape)(query.outline)


def is_keepable(query: Query) -> bool:
    """Whether it is small enough to keep what was made for its outline."""
    return len(query.canonical) - sum(map(len, query.values)) <= OUTLINE_CHARS_MAX


def _new_shape(outline: Outline) -> Shape:
    select = "*" if outline.select is None else outline.select
    order = tuple(
        (_tree_path(key)[0], _read("order", text, read_order))
        for key, text in _two_by_two(outline.order)
    )
    columns = _read_names("columns", outline.columns)
    return Shape(
        _read("select parameter", select, read_select),
        tuple(_filters(outline.filters)),
        outline.logic,
        order,
        outline.ranged,
        columns and tuple(sorted(set(columns))),
        _read_names("on_conflict", outline.on_conflict),
    )


_shape = lru_cache(maxsize=SHAPE_COUNT_MAX)(_new_shape)


def _canonical(pairs: list[tuple[str, str | None]]) -> str:
    """Sorted by name; the values of one name are joined by commas."""
    encoded: dict[str, str] = {}
    for name, value in sorted(pairs, key=itemgetter(0)):
        text = encode(value or "")
        encoded[name] = f"{encoded[name]},{text}" if name in encoded else text
    return "&".join([f"{encode(name)}={text}" for name, text in encoded.items()])


def _read_filter(value: str, values: list[str], *, is_call: bool) -> str | None:
    """The text of the operation; what it compares with is added to the values.

    None when there is none, and it is no fault.
    """
    try:
        operation, start = read_operation(value)
        if operation.operator == "in":
            values.append(array_literal(read_list(value, start)[0]))
        elif operation.operator != "is":
            values.append(adapted(operation, value[start:]))
    except ScanError as error:
        # A text that begins like a filter is a wrong filter, even for a function.
        if is_call and not value.startswith(("not.", "in.", "is.")):
            return None
        raise _refusal("filter", value, value, error) from error
    return value[:start].lower() if operation.operator == "is" else value[:start]


def _read_logic(name: str, text: str, values: list[str]) -> tuple[Path, Logic]:
    path, operator = _logic_path(name)
    whole = operator + text
    try:
        condition = read_logic(Scanner(whole), values)
    except ScanError as error:
        raise _refusal("logic tree", text, whole, error) from error
    return path, condition if isinstance(condition, Logic) else Logic((condition,))


def _filters(filters: tuple[str, ...]) -> Iterator[tuple[Path, Filter]]:
    count = 0
    for key, text in _two_by_two(filters):
        path, field = _tree_path(key)
        operation = operation_of(text)
        takes_value = operation.operator != "is"
        yield path, Filter(field, operation, count if takes_value else -1)
        count += takes_value


def _two_by_two(texts: tuple[str, ...]) -> Iterator[tuple[str, str]]:
    return zip(texts[::2], texts[1::2], strict=True)


def _read_names(parameter: str, text: str | None) -> tuple[str, ...] | None:
    return None if text is None else _read(f"{parameter} parameter", text, read_columns)


@memoized
def _tree_path(key: str) -> tuple[Path, Field]:
    return _read("tree path", key, read_tree_path)


@memoized
def _logic_path(key: str) -> tuple[Path, str]:
    return _read("logic path", key, read_logic_path)


def _read(what: str, text: str, read: Reader[T]) -> T:
    try:
        return read(Scanner(text))
    except ScanError as error:
        raise _refusal(what, text, text, error) from error


def _refusal(what: str, text: str, whole: str, error: ScanError) -> QueryStringError:
    """The fault, found while reading the whole, of which the text is what the user wrote."""
    position = place(whole, error.fault.position)
    return QueryStringError(
        f'"failed to parse {what} ({text})" {position}', details=explanation(whole, error.fault)
    )
