"""A subscription's bindings, and whether a table's changes are asked for."""

from typing import Final, TypeAlias

from msgspec import Struct

from butterbase.ingest.changes import Relation
from butterbase.ingest.row_changes import (
    Image,
    RowChange,
    current_row,
    event_of,
    image_of,
    row_change,
)
from butterbase.realtime.changes.filters import Term

__all__ = [
    "ALL",
    "Binding",
    "Image",
    "RowChange",
    "Select",
    "covers",
    "current_row",
    "event_of",
    "image_of",
    "row_change",
]

ALL: Final = "*"

Select: TypeAlias = tuple[str, ...] | None
"""The columns that are told beside the primary key; None for all."""


class Binding(Struct, frozen=True):
    """One entry of a join's `postgres_changes`."""

    id: int
    event: str
    """INSERT, UPDATE, DELETE or ALL."""
    schema: str
    table: str
    filter: tuple[Term, ...] = ()
    """All must hold."""
    select: Select = None


def covers(binding: Binding, relation: Relation) -> bool:
    """Whether the table's changes are asked for."""
    return binding.schema in (ALL, relation.schema) and binding.table in (ALL, relation.name)
