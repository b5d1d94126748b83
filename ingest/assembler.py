"""Frames → commits: the step behind the socket, stateful and without IO but for what is too large.

A transaction comes in one of three ways:

    Begin … Commit                            whole, once it is committed
    StreamStart … StreamStop, again and again in progress, also several by turns; then StreamCommit,
                                              or StreamAbort, which may name a subtransaction alone
    BeginPrepare … Prepare (StreamPrepare)    prepared; then CommitPrepared or RollbackPrepared,
                                              after days, perhaps over another connection

https://www.postgresql.org/docs/current/protocol-logical-replication.html

Limits: what all open transactions hold in memory together. Past it the largest is moved to a file.
"""

import tempfile
from collections.abc import Callable, Iterator, Sequence
from datetime import datetime
from typing import IO, Final

from butterbase.ingest.changes import DDL_PREFIX, Commit, Relation
from butterbase.ingest.errors import PreparedTransactionError, UnexpectedMessageError
from butterbase.ingest.frames import PAYLOAD_AT, XLOG_DATA, start_of
from butterbase.ingest.lsn import LSN
from butterbase.ingest.pgoutput import messages as m
from butterbase.ingest.pgoutput.decoder import decode
from butterbase.ingest.transaction import ROWS, Transaction

HELD_BYTES_MAX: Final = 16 * 1024**2


class Prepared:
    """Prepared transactions that are neither committed nor rolled back, over all connections.

    Once the server heard that one was received, it never tells its changes again. So nothing past
    `held_at` may be acknowledged: then they come again after a restart.
    """

    def __init__(self) -> None:
        self.transactions: dict[str, Transaction] = {}

    @property
    def held_at(self) -> LSN | None:
        lsns = [t.prepared_at for t in self.transactions.values() if t.prepared_at is not None]
        return min(lsns, default=None)


class Assembler:
    """The state of one replication connection: the server describes each relation once per
    connection, so a new connection needs a new Assembler.
    """

    def __init__(
        self,
        *,
        prepared: Prepared | None = None,
        held_bytes_max: int = HELD_BYTES_MAX,
        open_file: Callable[[], IO[bytes]] = tempfile.TemporaryFile,
    ) -> None:
        self._prepared = prepared or Prepared()
        self._held_bytes_max = held_bytes_max
        self._open_file = open_file
        self._relations: dict[int, Relation] = {}
        self._begin: m.Begin | m.BeginPrepare | None = None
        self._current: Transaction | None = None
        """Whose messages come now: between Begin and Commit, or in a streamed block."""
        self._streamed: dict[int, Transaction] = {}

    @property
    def in_transaction(self) -> bool:
        """Whether a transaction is being told that is committed or prepared already."""
        return self._begin is not None

    def feed(self, frames: Sequence[bytes]) -> Iterator[Commit | LSN]:
        """What the frames complete: commits, and positions up to which every commit was told.

        Raises MalformedMessageError, PreparedTransactionError, OSError.
        """
        index = 0
        while index < len(frames):
            frame = frames[index]
            if frame[PAYLOAD_AT : PAYLOAD_AT + 1] in ROWS:
                index = self._take_rows(frames, index)
                continue
            index += 1
            if frame[0] != XLOG_DATA:
                # Inside a transaction it lies before its commit and would be safe as well; nothing
                # is lost by not depending on it.
                if self._begin is None:
                    yield start_of(frame)
                continue
            is_in_block = self._current is not None and self._current.is_streamed
            message = decode(frame[PAYLOAD_AT:], streaming=is_in_block)
            commit = self._take(message, frame)
            if commit is not None:
                yield commit

    # What stands inside of transactions

    def _take_rows(self, frames: Sequence[bytes], first: int) -> int:
        current = self._inside()
        index = current.take_rows(frames, first)
        self._limit_memory(current)
        return index

    def _take(self, message: m.Message, frame: bytes) -> Commit | None:
        match message:
            case m.Begin() | m.Commit():
                return self._take_boundary(message)
            case m.Relation():
                self._describe(message, frame)
            case m.Truncate(relation_oids=oids):
                self._inside().take(frame, change_count=len(oids), oids=oids)
            case m.LogicalMessage():
                self._take_logical(message, frame)
            case m.Origin():
                self._inside().origin = message.name
            case m.Type():
                pass  # what is wanted of types is asked of the catalog
            case m.Insert() | m.Update() | m.Delete():
                raise AssertionError("rows are taken undecoded")
            case _:
                return self._take_boundary(message)
        return None

    def _take_boundary(self, message: m.Boundary) -> Commit | None:
        match message:
            case m.Begin() | m.BeginPrepare():
                self._start(message)
            case m.Commit():
                return self._commit(message)
            case m.StreamStart() | m.StreamStop() | m.StreamAbort():
                self._take_streamed(message)
            case m.StreamCommit():
                return self._commit_streamed(message)
            case _:
                return self._take_prepared(message)
        return None

    def _take_logical(self, message: m.LogicalMessage, frame: bytes) -> None:
        # One that is not transactional belongs to no commit, and may have been rolled back.
        if message.is_transactional:
            current = self._inside()
            current.take(frame)
            if message.prefix == DDL_PREFIX:
                current.take_ddl()
            self._limit_memory(current)

    def _describe(self, message: m.Relation, frame: bytes) -> None:
        relation = Relation(
            oid=message.oid,
            schema=message.schema,
            name=message.name,
            replica_identity=message.replica_identity,
            columns=message.columns,
        )
        current = self._inside()
        current.take_description(frame, relation)
        if current.is_streamed:
            # Others do not see what this transaction did to the table until it commits.
            current.replaces[relation.oid] = self._relations.get(relation.oid)
        else:
            self._relations = self._relations | {relation.oid: relation}

    def _inside(self) -> Transaction:
        if self._current is None:
            raise UnexpectedMessageError("a change outside of a transaction")
        return self._current

    def _limit_memory(self, current: Transaction) -> None:
        held = current.held_bytes
        others = [*self._streamed.values(), *self._prepared.transactions.values()]
        if others:
            held = sum(t.held_bytes for t in {current, *others})
        if held > self._held_bytes_max:
            max([current, *others], key=lambda t: t.held_bytes).spill(self._open_file)

    # Whole transactions

    def _start(self, message: m.Begin | m.BeginPrepare) -> None:
        if self._current is not None:
            raise UnexpectedMessageError("a transaction begins inside another")
        self._begin = message
        self._current = Transaction(message.xid, self._relations)

    def _commit(self, message: m.Commit) -> Commit:
        begin, current = self._begin, self._current
        if (
            not isinstance(begin, m.Begin)
            or current is None
            or begin.final_lsn != message.commit_lsn
        ):
            raise UnexpectedMessageError("the commit of a transaction that did not begin")
        self._begin = self._current = None
        return self._told(current, message.end_lsn, message.at)

    def _told(self, transaction: Transaction, end_lsn: LSN, at: datetime) -> Commit:
        if transaction.is_spilled:
            transaction.spill(self._open_file)
        return Commit(
            lsn=end_lsn,
            at=at,
            xid=transaction.xid,
            changes=transaction.changes(),
            origin=transaction.origin,
        )

    # Transactions in progress

    def _take_streamed(self, message: m.StreamStart | m.StreamStop | m.StreamAbort) -> None:
        match message:
            case m.StreamStart(xid):
                if self._current is not None:
                    raise UnexpectedMessageError("a streamed block inside a transaction")
                if message.is_first_segment:
                    self._streamed[xid] = Transaction(xid, self._relations, is_streamed=True)
                self._current = self._open(xid)
            case m.StreamStop():
                if self._current is None or not self._current.is_streamed:
                    raise UnexpectedMessageError("the end of a streamed block that did not begin")
                self._current = None
            case m.StreamAbort(xid, subtransaction_xid) if xid == subtransaction_xid:
                self._streamed.pop(xid, None)
            case m.StreamAbort(xid, subtransaction_xid):
                if xid in self._streamed:
                    self._streamed[xid].abort_subtransaction(subtransaction_xid)

    def _open(self, xid: int) -> Transaction:
        transaction = self._streamed.get(xid)
        if transaction is None:
            raise UnexpectedMessageError(f"transaction {xid} goes on but did not begin")
        return transaction

    def _commit_streamed(self, message: m.StreamCommit) -> Commit:
        if self._current is not None:
            raise UnexpectedMessageError("the commit of a transaction inside another")
        transaction = self._end_streamed(message.xid)
        return self._told(transaction, message.end_lsn, message.at)

    def _end_streamed(self, xid: int) -> Transaction:
        """Take it out of those in progress. What it described holds for all from now on."""
        transaction = self._open(xid)
        del self._streamed[xid]
        # Where a relation was described anew since, outside of this transaction, that holds.
        news = {
            relation.oid: relation
            for relation in transaction.described
            if transaction.replaces[relation.oid] is self._relations.get(relation.oid)
        }
        if news:
            self._relations = self._relations | news
        return transaction

    # Prepared transactions

    def _take_prepared(
        self, message: m.Prepare | m.StreamPrepare | m.RollbackPrepared | m.CommitPrepared
    ) -> Commit | None:
        match message:
            case m.Prepare(prepare_lsn, _, _, _, gid):
                begin, current = self._begin, self._current
                if not isinstance(begin, m.BeginPrepare) or current is None or begin.gid != gid:
                    raise UnexpectedMessageError(f"transaction {gid!r} is prepared unbegun")
                self._begin = self._current = None
                self._hold(gid, current, prepare_lsn)
            case m.StreamPrepare(prepare_lsn, _, _, xid, gid):
                self._hold(gid, self._end_streamed(xid), prepare_lsn)
            case m.RollbackPrepared(gid=gid):
                self._prepared.transactions.pop(gid, None)
            case m.CommitPrepared(gid=gid):
                transaction = self._prepared.transactions.pop(gid, None)
                if transaction is None:
                    raise PreparedTransactionError(
                        f"transaction {gid!r} is committed, but another reader of the slot"
                        " received its changes",
                        hint="Drop the slot; it is made anew.",
                    )
                return self._told(transaction, message.end_lsn, message.at)
        return None

    def _hold(self, gid: str, transaction: Transaction, prepare_lsn: LSN) -> None:
        transaction.prepared_at = prepare_lsn
        self._prepared.transactions[gid] = transaction
