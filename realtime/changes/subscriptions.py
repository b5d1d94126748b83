"""What a join asks for: the entries of its `postgres_changes`, before Postgres was asked."""

import json
import zlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec
from msgspec import Struct

from butterbase.realtime.changes.filters import Term, parse_filter
from butterbase.realtime.changes.matching import ALL, Select
from butterbase.realtime.errors import InvalidPositionError, InvalidSubscriptionError
from butterbase.realtime.window.position import Position, parse_position

EVENTS: Final = frozenset({ALL, "INSERT", "UPDATE", "DELETE"})

FROM: Final = "from"

_ID_BITS = 27  # as wide as the ids that clients know


class ChangeRequest(Struct, frozen=True):
    id: int
    event: str
    schema: str
    table: str
    filter: tuple[Term, ...] = ()
    """All must hold."""
    select: Select = None

    def __str__(self) -> str:
        filters = ", ".join(map(_readable, self.filter))
        select = "nil" if self.select is None else json.dumps(self.select, ensure_ascii=False)
        return (
            f"[event: {self.event}, schema: {self.schema}, table: {self.table},"
            f" filters: [{filters}], select: {select}]"
        )


def _readable(term: Term) -> str:
    value = f"{{{','.join(term.values)}}}" if term.operator == "in" else term.values[0]
    parts = json.dumps([term.column, term.operator, value, term.is_negated], ensure_ascii=False)
    return f"{{{parts[1:-1]}}}"


def number(entries: Sequence[Mapping[str, Any]]) -> list[int]:
    """An id for each entry: positive, equal for equal entries, different for different ones.

    Where an entry is resumed from (`from`) makes it no other.
    """
    ids: dict[int, bytes] = {}
    numbers = []
    for entry in entries:
        asked = {name: value for name, value in entry.items() if name != FROM}
        text = msgspec.json.encode(asked, order="deterministic")
        number = zlib.crc32(text) & ((1 << _ID_BITS) - 1)
        while number == 0 or ids.get(number, text) != text:
            number += 1
        ids[number] = text
        numbers.append(number)
    return numbers


def parse_entry(id_: int, entry: Mapping[str, Any], schemas: Sequence[str]) -> ChangeRequest:
    """Read one entry. Raises InvalidSubscriptionError."""
    if entry.get("schema") is None and entry.get("table") is None:
        raise InvalidSubscriptionError(
            "No subscription params provided. Please provide at least a `schema` or `table`"
            " to subscribe to"
        )
    event = _text(entry, "event", ALL).upper()
    if event not in EVENTS:
        raise InvalidSubscriptionError(f"Unknown event {event}: use *, INSERT, UPDATE or DELETE")
    schema, table = _text(entry, "schema", schemas[0]), _text(entry, "table", ALL)
    if schema != ALL and schema not in schemas:
        raise InvalidSubscriptionError(f"Schema {schema} is not exposed")
    text, select = _text(entry, "filter", "").strip(), _select(entry)
    if ALL in (schema, table):
        if text:
            raise InvalidSubscriptionError(f"Filter {text} needs a schema and a table")
        if select is not None:
            raise InvalidSubscriptionError(
                "Column selection is not supported for wildcard subscriptions."
                " Provide an explicit schema and table name."
            )
    return ChangeRequest(id_, event, schema, table, parse_filter(text), select)


def _select(entry: Mapping[str, Any]) -> Select:
    """Columns in order, so that equal choices are equal. Nothing chosen is everything."""
    names = entry.get("select")
    if isinstance(names, str):
        raise InvalidSubscriptionError(
            "Error parsing `select` params: expected a list of column name strings,"
            ' e.g. select: ["col1", "col2"]'
        )
    if not isinstance(names, list):
        return None
    return tuple(sorted({name for name in names if isinstance(name, str)})) or None


def read_position_of(
    config: Mapping[str, Any], entries: Sequence[Mapping[str, Any]]
) -> Position | None:
    """Where a join goes on: `{resume: {from}}` in its config, or else `from` in its entries. None:
    with changes to come. Raises InvalidPositionError.
    """
    resume = config.get("resume")
    if isinstance(resume, dict) and resume.get(FROM) is not None:
        return parse_position(resume[FROM])
    texts = [entry[FROM] for entry in entries if entry.get(FROM) is not None]
    if any(text != texts[0] for text in texts):
        raise InvalidPositionError("all changes of a channel go on from the same position")
    return parse_position(texts[0]) if texts else None


def _text(entry: Mapping[str, Any], name: str, default: str) -> str:
    value = entry.get(name)
    if value is None:
        return default
    if not isinstance(value, str) or "\0" in value:
        raise InvalidSubscriptionError(f"`{name}` must be text")
    return value or default
