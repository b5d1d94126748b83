"""The arguments of a table's tool → a request to the REST API; pure.

Nothing that a model writes becomes part of a name or of an operator: columns are those that were
granted, in quotes, and values are percent-encoded behind their operator.
"""

from collections.abc import Collection, Iterable
from typing import Annotated, Literal, TypeVar
from urllib.parse import quote

import msgspec
from msgspec import Meta, Raw, Struct

from butterbase.ai.http.body import decode_json
from butterbase.ai.tools.config import Operation
from butterbase.ai.tools.errors import ToolArgumentsError
from butterbase.ai.tools.ports import DataRequest
from butterbase.ai.tools.schemas import OPERATORS
from butterbase.ai.wire.decoding import raw_text
from butterbase.ai.wire.form import NULL

ARGUMENTS_BYTES_MAX = 64 * 1024
_VALUE_COUNT_MAX = 200

T = TypeVar("T")


class _Condition(Struct, frozen=True, forbid_unknown_fields=True):
    column: str
    operator: str = "eq"
    value: Raw = NULL
    values: Annotated[list[Raw], Meta(max_length=_VALUE_COUNT_MAX)] | None = None


class _Term(Struct, frozen=True, forbid_unknown_fields=True):
    column: str
    direction: Literal["asc", "desc"] = "asc"


class _Arguments(Struct, frozen=True, forbid_unknown_fields=True):
    operation: Operation | None = None
    where: Annotated[list[_Condition], Meta(max_length=50)] | None = None
    columns: Annotated[list[str], Meta(max_length=500)] | None = None
    order: Annotated[list[_Term], Meta(max_length=10)] | None = None
    limit: Annotated[int, Meta(ge=1)] | None = None
    offset: Annotated[int, Meta(ge=0, le=10**9)] | None = None
    values: dict[str, Raw] | None = None


class TableAccess(Struct, frozen=True):
    """What of a table a tool may touch."""

    table: str
    schema: str
    operations: tuple[Operation, ...]
    readable: tuple[str, ...]
    writable: tuple[str, ...]
    row_count_max: int
    change_count_max: int


class TableCall(Struct, frozen=True):
    operation: Operation
    request: DataRequest
    limit: int
    """Rows that its answer has at most; the request asks for one more."""


_ARGUMENTS = msgspec.json.Decoder(_Arguments)


def plan_call(access: TableAccess, arguments: str) -> TableCall:
    """Raises ToolArgumentsError."""
    given = decode_arguments(_ARGUMENTS, arguments)
    operation = given.operation or access.operations[0]
    if operation not in access.operations:
        raise ToolArgumentsError(
            f"this tool does not {operation}", hint=f"it can: {', '.join(access.operations)}"
        )
    _refuse_strangers(given, operation)
    limit = min(given.limit or access.row_count_max, access.row_count_max)
    pairs = list(_conditions(access, given))
    body = b""
    match operation:
        case "select":
            names = given.columns or access.readable
            pairs += [
                ("select", _names(names, access.readable)),
                *_order(access, given),
                ("limit", str(limit + 1)),
                ("offset", str(given.offset or 0)),
            ]
        case "insert" | "update":
            body = _values(access, given)
        case "delete":
            pass
    if operation in {"update", "delete"} and not pairs:
        raise ToolArgumentsError(f"where is missing: {operation} needs to be told which rows")
    if operation != "select" and "select" in access.operations:
        pairs.append(("select", _names(access.readable, access.readable)))
    request = DataRequest(
        _METHODS[operation],
        f"/{quote(access.table, safe='')}",
        "&".join(f"{quote(name, safe='')}={quote(value, safe='')}" for name, value in pairs),
        _preferences(access, operation),
        body,
        access.schema,
    )
    return TableCall(operation, request, limit)


def decode_arguments(decoder: "msgspec.json.Decoder[T]", arguments: str) -> T:
    """Raises ToolArgumentsError."""
    if len(arguments) > ARGUMENTS_BYTES_MAX:
        raise ToolArgumentsError(f"the arguments are longer than {ARGUMENTS_BYTES_MAX} characters")
    body = arguments.strip().encode("utf-8", "replace") or b"{}"
    return decode_json(decoder, body, lambda reason: ToolArgumentsError(reason))


_METHODS = {"select": "GET", "insert": "POST", "update": "PATCH", "delete": "DELETE"}

_FIELDS: dict[Operation, frozenset[str]] = {
    "select": frozenset({"where", "columns", "order", "limit", "offset"}),
    "insert": frozenset({"values"}),
    "update": frozenset({"where", "values"}),
    "delete": frozenset({"where"}),
}


def _refuse_strangers(given: _Arguments, operation: Operation) -> None:
    """What an operation would not look at must not be taken for done."""
    for name in given.__struct_fields__:
        value = getattr(given, name)
        if name not in {"operation", *_FIELDS[operation]} and value not in (None, [], {}):
            raise ToolArgumentsError(f"{name} does not go with {operation}")


def _preferences(access: TableAccess, operation: Operation) -> str:
    if operation == "select":
        return ""
    shown = "return=representation" if "select" in access.operations else "return=minimal"
    if operation == "insert":
        return f"{shown},missing=default,count=exact"
    # More than that, and nothing is changed.
    return f"{shown},count=exact,handling=strict,max-affected={access.change_count_max}"


def _conditions(access: TableAccess, given: _Arguments) -> Iterable[tuple[str, str]]:
    for condition in given.where or ():
        name = _name(condition.column, access.readable)
        operator = OPERATORS.get(condition.operator)
        if operator is None:
            raise ToolArgumentsError(
                f"there is no operator {condition.operator[:40]!r}",
                hint=f"there are: {', '.join(OPERATORS)}",
            )
        yield name, _comparison(condition, operator)


def _comparison(condition: _Condition, operator: str) -> str:
    if condition.operator in {"is_null", "is_not_null"}:
        return operator
    if condition.operator != "in":
        if condition.value == NULL:
            raise ToolArgumentsError(
                f"{condition.column}: value is missing", hint="is_null and is_not_null need none"
            )
        return f"{operator}.{_text(condition.value)}"
    if not condition.values:
        raise ToolArgumentsError(f"{condition.column}: values is missing")
    listed = ",".join(_quoted(_text(value)) for value in condition.values)
    return f"in.({listed})"


def _order(access: TableAccess, given: _Arguments) -> Iterable[tuple[str, str]]:
    terms = [
        f"{_name(term.column, access.readable)}.{term.direction}" for term in given.order or ()
    ]
    if terms:
        yield "order", ",".join(terms)


def _values(access: TableAccess, given: _Arguments) -> bytes:
    if not given.values:
        raise ToolArgumentsError("values is missing")
    for name in given.values:
        _name(name, access.writable)
    return msgspec.json.encode(given.values)


def _names(columns: Iterable[str], allowed: Collection[str]) -> str:
    return ",".join(_name(column, allowed) for column in dict.fromkeys(columns))


def _name(column: str, allowed: Collection[str]) -> str:
    """As the REST API reads any name. Raises ToolArgumentsError."""
    if column not in allowed:
        raise ToolArgumentsError(
            f"there is no column {column[:80]!r}", hint=f"there are: {', '.join(allowed)}"[:1000]
        )
    return _quoted(column)


def _quoted(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


_TEXT = msgspec.json.Decoder(str)


def _text(value: Raw) -> str:
    """A text, a number or a boolean, as Postgres reads it."""
    begin = bytes(value)[:1]
    if begin == b'"':
        text = decode_json(_TEXT, value, lambda reason: ToolArgumentsError(reason))
        if "\0" in text:
            raise ToolArgumentsError("a text has a null character")
        return text
    if begin in b"-0123456789tf" and begin:
        return raw_text(value)
    raise ToolArgumentsError("a value is a text, a number or a boolean")
