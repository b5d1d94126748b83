"""The messages of pgoutput, one Struct per kind, with the fields in the order of the protocol.

https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html

`xid` is set on the messages inside a streamed block (protocol >= 2): there, changes of several
transactions alternate; elsewhere it is None, and Begin tells the transaction.
"""

from datetime import datetime
from typing import TypeAlias

from msgspec import Struct

from butterbase.ingest.changes import Column, ReplicaIdentity, Row
from butterbase.ingest.lsn import LSN


class Begin(Struct, frozen=True):
    final_lsn: LSN
    """Where the commit record starts; Commit repeats it as `commit_lsn`."""
    at: datetime
    xid: int


class LogicalMessage(Struct, frozen=True):
    xid: int | None
    is_transactional: bool
    lsn: LSN
    prefix: str
    content: bytes


class Commit(Struct, frozen=True):
    commit_lsn: LSN
    end_lsn: LSN
    at: datetime


class Origin(Struct, frozen=True):
    commit_lsn: LSN
    name: str


class Relation(Struct, frozen=True):
    xid: int | None
    oid: int
    schema: str
    name: str
    replica_identity: ReplicaIdentity
    columns: tuple[Column, ...]


class Type(Struct, frozen=True):
    xid: int | None
    oid: int
    schema: str
    name: str


class Insert(Struct, frozen=True):
    xid: int | None
    relation_oid: int
    new: Row


class Update(Struct, frozen=True):
    """`old` is the whole row with replica identity FULL, else the key, else None."""

    xid: int | None
    relation_oid: int
    old: Row | None
    new: Row


class Delete(Struct, frozen=True):
    xid: int | None
    relation_oid: int
    old: Row


class Truncate(Struct, frozen=True):
    xid: int | None
    is_cascade: bool
    restarts_identity: bool
    relation_oids: tuple[int, ...]


class StreamStart(Struct, frozen=True):
    xid: int
    is_first_segment: bool


class StreamStop(Struct, frozen=True):
    pass


class StreamCommit(Struct, frozen=True):
    xid: int
    commit_lsn: LSN
    end_lsn: LSN
    at: datetime


class StreamAbort(Struct, frozen=True):
    """`lsn` and `at` are sent only when parallel streaming was asked for (protocol 4)."""

    xid: int
    subtransaction_xid: int
    lsn: LSN | None
    at: datetime | None


class BeginPrepare(Struct, frozen=True):
    prepare_lsn: LSN
    end_lsn: LSN
    at: datetime
    xid: int
    gid: str


class Prepare(Struct, frozen=True):
    prepare_lsn: LSN
    end_lsn: LSN
    at: datetime
    xid: int
    gid: str


class CommitPrepared(Struct, frozen=True):
    commit_lsn: LSN
    end_lsn: LSN
    at: datetime
    xid: int
    gid: str


class RollbackPrepared(Struct, frozen=True):
    prepare_end_lsn: LSN
    rollback_end_lsn: LSN
    prepared_at: datetime
    at: datetime
    xid: int
    gid: str


class StreamPrepare(Struct, frozen=True):
    prepare_lsn: LSN
    end_lsn: LSN
    at: datetime
    xid: int
    gid: str


StreamedMessage: TypeAlias = StreamStart | StreamStop | StreamCommit | StreamAbort
PreparedMessage: TypeAlias = (
    BeginPrepare | Prepare | CommitPrepared | RollbackPrepared | StreamPrepare
)
Boundary: TypeAlias = Begin | Commit | StreamedMessage | PreparedMessage
"""Where a transaction, or a piece of it, begins and ends."""

Message: TypeAlias = (
    LogicalMessage | Origin | Relation | Type | Insert | Update | Delete | Truncate | Boundary
)
