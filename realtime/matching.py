"""A subscription's bindings against a change: event, table, and filter on the row in the log.

An image holds the columns the log carries. One that it does not carry, an unchanged large value or
what a delete leaves out, is absent, and whatever asks for it is answered "no".
"""

from contextlib import suppress
from decimal import Decimal, InvalidOperation
from typing import Final, TypeAlias

from msgspec import Struct

from butterbase.ingest.changes import (
    Change,
    Delete,
    Insert,
    LogicalMessage,
    Relation,
    ReplicaIdentity,
    Row,
    Toast,
    Truncate,
    Update,
)

ALL: Final = "*"

RowChange: TypeAlias = Insert | Update | Delete

Image: TypeAlias = dict[str, str | None]
"""Column name → text; None is SQL NULL."""

# Equal numbers are written in several ways (1.0, 1.00; -0, 0): float4, float8, numeric.
_NUMBERS: Final = frozenset({700, 701, 1700})
_BPCHAR: Final = 1042  # char(n): blanks at the end do not count


class Filter(Struct, frozen=True):
    column: str
    value: str
    """As Postgres writes it in the log, so that equal values have equal text.

    Where they need not (an interval's 24 hours and 1 day, numbers inside jsonb, citext) only the
    equal text matches.
    """
    more: tuple[str, ...] = ()
    """Other values that do as well."""

    @property
    def values(self) -> tuple[str, ...]:
        return self.value, *self.more


class Binding(Struct, frozen=True):
    """One entry of a join's `postgres_changes`."""

    id: int
    event: str
    """INSERT, UPDATE, DELETE or ALL."""
    schema: str
    table: str
    filter: Filter | None = None


def row_change(change: Change) -> RowChange | None:
    match change:
        case Insert() | Update() | Delete():
            return change
        case Truncate() | LogicalMessage():
            return None


def event_of(change: RowChange) -> str:
    match change:
        case Insert():
            return "INSERT"
        case Update():
            return "UPDATE"
        case Delete():
            return "DELETE"


def current_row(change: RowChange) -> Row:
    """The row that the change is about: the new one, or the deleted one.

    Columns that the log does not carry are `Toast.UNCHANGED`.
    """
    match change:
        case Insert(new=new):
            return new
        case Update(new=new, old=old):
            if old is None or change.relation.replica_identity is not ReplicaIdentity.FULL:
                return new
            return tuple(
                was if value is Toast.UNCHANGED else value
                for value, was in zip(new, old, strict=True)
            )
        case Delete():
            return _identity_row(change)


def _identity_row(change: Delete) -> Row:
    if change.relation.replica_identity is ReplicaIdentity.FULL:
        return change.old
    return tuple(
        value if column.is_key else Toast.UNCHANGED
        for column, value in change.relation.pairs(change.old)
    )


def image_of(change: RowChange) -> Image:
    pairs = change.relation.pairs(current_row(change))
    return {column.name: value for column, value in pairs if value is not Toast.UNCHANGED}


def covers(binding: Binding, relation: Relation) -> bool:
    """Whether the table's changes are asked for."""
    return binding.schema in (ALL, relation.schema) and binding.table in (ALL, relation.name)


def matches(binding: Binding, change: RowChange, image: Image) -> bool:
    return (
        binding.event in (ALL, event_of(change))
        and covers(binding, change.relation)
        and (binding.filter is None or _passes(binding.filter, change, image))
    )


def _passes(wanted: Filter, change: RowChange, image: Image) -> bool:
    value = image.get(wanted.column)
    if value is None:  # absent, or NULL, which equals nothing
        return False
    if value in wanted.values:
        return True
    type_oid = next(c.type_oid for c in change.relation.columns if c.name == wanted.column)
    found = comparable(type_oid, value)
    return any(comparable(type_oid, one) == found for one in wanted.values)


def comparable(type_oid: int, text: str) -> str | Decimal:
    """What is equal, and hashes as equal, for equal values of a type."""
    if type_oid == _BPCHAR:
        return text.rstrip(" ")
    if type_oid in _NUMBERS:
        with suppress(InvalidOperation):
            number = Decimal(text)
            return text if number.is_nan() else number
    return text
