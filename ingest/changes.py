"""Commits and changes: the vocabulary in which the log is told to every other folder.

A Commit is one Postgres transaction, in commit order. The position of a change is the pair
(commit's end LSN, ordinal of the change in the commit).
"""

import enum
from collections.abc import Iterator
from datetime import datetime
from typing import Final, TypeAlias

from msgspec import Struct

from butterbase.ingest.lsn import LSN


class Toast(enum.Enum):
    """A large value that an UPDATE did not touch: the log does not repeat it."""

    UNCHANGED = "unchanged"


Value: TypeAlias = str | Toast | None
"""A column in Postgres's text format; None is SQL NULL."""

Row: TypeAlias = tuple[Value, ...]
"""Values in the order of the relation's columns."""


class Column(Struct, frozen=True):
    name: str
    type_oid: int
    type_modifier: int
    is_key: bool
    """Part of the replica identity."""


class ReplicaIdentity(enum.Enum):
    """What the log keeps of the old row (pg_class.relreplident)."""

    DEFAULT = "d"
    NOTHING = "n"
    FULL = "f"
    INDEX = "i"


class Relation(Struct, frozen=True):
    """A table as it was when the change was made; DDL makes a new Relation."""

    oid: int
    schema: str
    name: str
    replica_identity: ReplicaIdentity
    columns: tuple[Column, ...]

    @property
    def qualified_name(self) -> tuple[str, str]:
        return self.schema, self.name

    def pairs(self, row: Row) -> Iterator[tuple[Column, Value]]:
        return zip(self.columns, row, strict=True)


class Insert(Struct, frozen=True):
    relation: Relation
    new: Row


class Update(Struct, frozen=True):
    """`old` is None when the replica identity did not change and is not FULL.

    With replica identity FULL it is the whole old row; otherwise only key columns carry values
    and the others are None.
    """

    relation: Relation
    new: Row
    old: Row | None


class Delete(Struct, frozen=True):
    """`old` is whole with replica identity FULL; otherwise only key columns carry values."""

    relation: Relation
    old: Row


class Truncate(Struct, frozen=True):
    relation: Relation


class LogicalMessage(Struct, frozen=True):
    """`pg_logical_emit_message(true, prefix, content)`, in its place among the changes."""

    prefix: str
    content: bytes


DDL_PREFIX: Final = "butterbase.ddl"
"""Of the messages that our event triggers put into the log."""


def is_ddl(change: object) -> bool:
    """Whether the commit changed the schema."""
    return isinstance(change, LogicalMessage) and change.prefix == DDL_PREFIX


Change: TypeAlias = Insert | Update | Delete | Truncate | LogicalMessage


class Commit(Struct, frozen=True):
    lsn: LSN
    """The end of the commit record: acknowledged, it is never sent again."""
    at: datetime
    xid: int
    changes: tuple[Change, ...]
