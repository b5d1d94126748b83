"""Commits and changes: the vocabulary in which the log is told to every other folder.

A Commit is one Postgres transaction, in commit order. The position of a change is the pair
(commit's end LSN, ordinal of the change in the commit). A commit may be larger than memory: its
changes are read one after the other, and a reader that waits for something reads a bounded number
of them at a time.
"""

import enum
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
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

QualifiedName: TypeAlias = tuple[str, str]
"""Schema and table."""


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
    def qualified_name(self) -> QualifiedName:
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
    """Whether the change announces that the schema changed."""
    return isinstance(change, LogicalMessage) and change.prefix == DDL_PREFIX


Change: TypeAlias = Insert | Update | Delete | Truncate | LogicalMessage


class LoggedChanges(ABC):
    """Changes that are kept as the log tells them and decoded whenever they are read, so that they
    may be more than memory holds. Do not make a list of them.

    Reading raises MalformedMessageError where the bytes are not what the protocol says.
    """

    __slots__ = ()

    @abstractmethod
    def __len__(self) -> int: ...

    @abstractmethod
    def __iter__(self) -> Iterator[Change]: ...

    @property
    @abstractmethod
    def held_bytes(self) -> int:
        """In memory, undecoded: what lies in a file does not count."""
        ...

    @property
    @abstractmethod
    def tables(self) -> frozenset[QualifiedName]:
        """No change is of another table than these."""
        ...

    @property
    @abstractmethod
    def may_have_ddl(self) -> bool: ...

    @abstractmethod
    def of(self, tables: Collection[QualifiedName]) -> Iterator[Change]:
        """The changes of these tables alone; others are not decoded."""
        ...


Changes: TypeAlias = tuple[Change, ...] | LoggedChanges
"""In order, sized, and read as often as one likes."""


class Commit(Struct, frozen=True):
    lsn: LSN
    """The end of the commit record: acknowledged, it is never sent again."""
    at: datetime
    xid: int
    changes: Changes
    origin: str | None = None
    """Of a transaction that the server itself received by replication: where it was made."""

    @property
    def held_bytes(self) -> int:
        """What keeping the commit costs, about; decoded it is a few times as much."""
        return self.changes.held_bytes if isinstance(self.changes, LoggedChanges) else 0

    @property
    def tables(self) -> frozenset[QualifiedName]:
        """No change is of another table than these. Costs next to nothing, unlike the changes."""
        if isinstance(self.changes, LoggedChanges):
            return self.changes.tables
        names = map(table_of, self.changes)
        return frozenset(name for name in names if name is not None)

    @property
    def has_ddl(self) -> bool:
        """Whether the commit changed the schema, or would have but for an undone savepoint. Costs
        next to nothing.
        """
        if isinstance(self.changes, LoggedChanges):
            return self.changes.may_have_ddl
        return any(map(is_ddl, self.changes))

    def changes_of(self, *tables: QualifiedName) -> Iterator[Change]:
        """The changes of these tables alone, in order; none costs next to nothing."""
        if isinstance(self.changes, LoggedChanges):
            return self.changes.of(tables)
        return (change for change in self.changes if table_of(change) in tables)


def table_of(change: Change) -> QualifiedName | None:
    return None if isinstance(change, LogicalMessage) else change.relation.qualified_name
