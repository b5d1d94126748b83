"""What a join asks for: the entries of its `postgres_changes`, before Postgres was asked."""

import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from butterbase.realtime.errors import InvalidSubscriptionError
from butterbase.realtime.matching import ALL
from butterbase.sql.filters import Equals, InvalidFilterError, OneOf, parse_filter

EVENTS: Final = frozenset({ALL, "INSERT", "UPDATE", "DELETE"})

_ID_BITS = 27  # as wide as the ids that clients know


class ChangeRequest(Struct, frozen=True):
    id: int
    event: str
    schema: str
    table: str
    filter: Equals | OneOf | None

    def __str__(self) -> str:
        condition = "none" if self.filter is None else format_filter(self.filter)
        return (
            f"[event: {self.event}, schema: {self.schema}, table: {self.table},"
            f" filter: {condition}]"
        )


def format_filter(condition: Equals | OneOf) -> str:
    """For people to read."""
    if isinstance(condition, Equals):
        return f"{condition.column}=eq.{condition.value}"
    return f"{condition.column}=in.({','.join(condition.values)})"


def number(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """An id for each entry: positive, equal for equal entries, different for different ones."""
    ids: dict[int, bytes] = {}
    numbers = []
    for entry in entries:
        text = msgspec.json.encode(entry, order="deterministic")
        number = zlib.crc32(text) & ((1 << _ID_BITS) - 1)
        while number == 0 or ids.get(number, text) != text:
            number += 1
        ids[number] = text
        numbers.append(number)
    return numbers


def parse_entry(id_: int, entry: Mapping[str, Any], schemas: Sequence[str]) -> ChangeRequest:
    """Read one entry. Raises InvalidSubscriptionError."""
    if entry.get("select"):
        raise InvalidSubscriptionError("Column selection (`select`) is not supported")
    if entry.get("schema") is None and entry.get("table") is None:
        raise InvalidSubscriptionError(
            "No subscription params provided. Please provide at least a `schema` or `table`"
        )
    event = _text(entry, "event", ALL).upper()
    if event not in EVENTS:
        raise InvalidSubscriptionError(f"Unknown event {event}: use *, INSERT, UPDATE or DELETE")
    schema, table = _text(entry, "schema", schemas[0]), _text(entry, "table", ALL)
    if schema != ALL and schema not in schemas:
        raise InvalidSubscriptionError(f"Schema {schema} is not exposed")
    return ChangeRequest(id_, event, schema, table, _filter(entry, schema, table))


def _filter(entry: Mapping[str, Any], schema: str, table: str) -> Equals | OneOf | None:
    text = _text(entry, "filter", "").strip()
    if not text:
        return None
    if ALL in (schema, table):
        raise InvalidSubscriptionError(f"Filter {text} needs a schema and a table")
    column, _, condition = text.partition("=")
    try:
        return parse_filter(column, condition)
    except InvalidFilterError as error:
        raise InvalidSubscriptionError(f"Error parsing `filter` params: {error.message}") from error


def _text(entry: Mapping[str, Any], name: str, default: str) -> str:
    value = entry.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or "\0" in value:
        raise InvalidSubscriptionError(f"`{name}` must be text")
    return value or default
