"""Messages → commits: the second step behind the decoder, stateful and without IO.

Limits: a transaction is held in memory until its commit, however large it is. Transactions still
in progress and transactions prepared for two-phase commit are refused, in `_refuse`, the one place
where their support belongs; START_REPLICATION does not ask for them.
"""

from typing import NoReturn

from butterbase.ingest.changes import (
    Change,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Relation,
    Row,
    Toast,
    Truncate,
    Update,
)
from butterbase.ingest.errors import (
    PreparedTransactionError,
    StreamedTransactionError,
    UnexpectedMessageError,
)
from butterbase.ingest.pgoutput import messages as m


class Assembler:
    """The state of one replication connection: the server describes each relation once per
    connection, so a new connection needs a new Assembler.
    """

    def __init__(self) -> None:
        self._relations: dict[int, Relation] = {}
        self._begin: m.Begin | None = None
        self._changes: list[Change] = []

    @property
    def in_transaction(self) -> bool:
        return self._begin is not None

    def feed(self, message: m.Message) -> Commit | None:
        """The commit that this message completes.

        Raises UnexpectedMessageError, UnsupportedTransactionError.
        """
        match message:
            case m.Insert() | m.Update() | m.Delete():
                self._add(self._row_change(message))
            case m.Begin():
                self._start(message)
            case m.Commit():
                return self._commit(message)
            case m.Relation():
                self._describe(message)
            case m.Truncate():
                self._add(*(Truncate(self._relation(oid)) for oid in message.relation_oids))
            case m.LogicalMessage():
                # One that is not transactional belongs to no commit, and may have been rolled back.
                if message.is_transactional:
                    self._add(LogicalMessage(message.prefix, message.content))
            case m.Type() | m.Origin():
                pass
            case _:
                _refuse(message)
        return None

    def _add(self, *changes: Change) -> None:
        if self._begin is None:
            raise UnexpectedMessageError("a change outside of a transaction")
        self._changes.extend(changes)

    def _start(self, message: m.Begin) -> None:
        if self._begin is not None:
            raise UnexpectedMessageError("a transaction begins inside another")
        self._begin = message

    def _commit(self, message: m.Commit) -> Commit:
        begin = self._begin
        if begin is None or begin.final_lsn != message.commit_lsn:
            raise UnexpectedMessageError("the commit of a transaction that did not begin")
        commit = Commit(
            lsn=message.end_lsn, at=message.at, xid=begin.xid, changes=tuple(self._changes)
        )
        self._begin = None
        self._changes = []
        return commit

    def _row_change(self, message: m.Insert | m.Update | m.Delete) -> Insert | Update | Delete:
        relation = self._relation(message.relation_oid)
        if isinstance(message, m.Insert):
            return Insert(relation, _of(relation, message.new))
        if isinstance(message, m.Delete):
            return Delete(relation, _of(relation, message.old))
        new = _of(relation, message.new)
        old = None if message.old is None else _of(relation, message.old)
        return Update(relation, new if old is None else _restore(new, old), old)

    def _describe(self, message: m.Relation) -> None:
        self._relations[message.oid] = Relation(
            oid=message.oid,
            schema=message.schema,
            name=message.name,
            replica_identity=message.replica_identity,
            columns=message.columns,
        )

    def _relation(self, oid: int) -> Relation:
        relation = self._relations.get(oid)
        if relation is None:
            raise UnexpectedMessageError(f"a change of relation {oid}, which was not described")
        return relation


def _of(relation: Relation, row: Row) -> Row:
    if len(row) != len(relation.columns):
        raise UnexpectedMessageError(
            f"{relation.schema}.{relation.name} has {len(relation.columns)} columns,"
            f" a row of it {len(row)}"
        )
    return row


def _restore(new: Row, old: Row) -> Row:
    """Put large values that the update left alone, and the old row repeats, where they belong.

    The old row holds the key, or everything with replica identity FULL. None there means NULL or
    "not told"; a large value is never NULL, so None restores nothing.
    """
    if Toast.UNCHANGED not in new:
        return new
    return tuple(
        before if after is Toast.UNCHANGED and before is not None else after
        for after, before in zip(new, old, strict=True)
    )


def _refuse(message: m.StreamedMessage | m.PreparedMessage) -> NoReturn:
    match message:
        case m.StreamStart() | m.StreamStop() | m.StreamCommit() | m.StreamAbort():
            raise StreamedTransactionError(
                f"{type(message).__name__} although streaming was not asked for"
            )
        case _:
            raise PreparedTransactionError(
                f"{type(message).__name__}: two-phase commit is not supported",
                hint="Create the slot without two_phase.",
            )
