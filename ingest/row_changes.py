"""The row that a change is about, as the log has it.

An image holds the columns the log carries. One that it does not carry, an unchanged large value or
what a delete leaves out, is absent, and whatever asks for it is answered "no".
"""

from datetime import UTC, datetime
from typing import TypeAlias

from butterbase.ingest.changes import (
    Change,
    Delete,
    Insert,
    LogicalMessage,
    ReplicaIdentity,
    Row,
    Toast,
    Truncate,
    Update,
)

RowChange: TypeAlias = Insert | Update | Delete

Image: TypeAlias = dict[str, str | None]
"""Column name → text; None is SQL NULL."""


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


def format_timestamp(at: datetime) -> str:
    """UTC with milliseconds: `2025-11-03T09:32:55.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"
