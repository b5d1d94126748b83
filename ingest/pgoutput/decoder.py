"""Bytes of the log → messages: the first step behind the replication socket, without IO.

Protocol versions 1 to 4, columns in text format.
https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

import struct
from collections.abc import Callable
from typing import Final

from butterbase.ingest.changes import Column, ReplicaIdentity, Row
from butterbase.ingest.errors import MalformedMessageError
from butterbase.ingest.lsn import LSN
from butterbase.ingest.pgoutput import messages as m
from butterbase.ingest.pgoutput.reader import Reader, timestamp

_NEW, _KEY, _OLD = b"NKO"

# At once: there is one of each in every transaction, and most transactions are small.
_BEGIN = struct.Struct("!QqI")
_COMMIT = struct.Struct("!BQQq")


def decode(payload: bytes, *, streaming: bool = False) -> m.Message:
    """Decode one pgoutput message; `streaming` inside a streamed block, where changes name their
    transaction.

    Raises MalformedMessageError, whatever the bytes are.
    """
    if not payload:
        raise MalformedMessageError("an empty message")
    kind = payload[0]
    reader = Reader(payload, 1)
    try:
        message: m.Message
        if decode_change := _CHANGES.get(kind):
            message = decode_change(reader, reader.uint32() if streaming else None)
        elif decode_control := _CONTROLS.get(kind):
            message = decode_control(reader)
        else:
            raise MalformedMessageError(f"unknown kind of message {chr(kind)!r}")
        reader.expect_end()
    # What reads past the end, text that is no UTF-8, and times beyond year 9999 raise.
    except (struct.error, IndexError, ValueError, OverflowError) as error:
        raise MalformedMessageError(f"message {chr(kind)!r}: {error}") from error
    return message


def _insert(reader: Reader, xid: int | None) -> m.Insert:
    oid = reader.uint32()
    _expect(reader.uint8(), _NEW)
    return m.Insert(xid, oid, reader.row())


def _update(reader: Reader, xid: int | None) -> m.Update:
    oid = reader.uint32()
    part = reader.uint8()
    old: Row | None = None
    if part in (_KEY, _OLD):
        old = reader.row()
        part = reader.uint8()
    _expect(part, _NEW)
    return m.Update(xid, oid, old, reader.row())


def _delete(reader: Reader, xid: int | None) -> m.Delete:
    oid = reader.uint32()
    _expect(reader.uint8(), _KEY, _OLD)
    return m.Delete(xid, oid, reader.row())


def _truncate(reader: Reader, xid: int | None) -> m.Truncate:
    count = reader.uint32()
    options = reader.uint8()
    # Checked ahead of the loop: four bytes of input must not ask for four billion iterations.
    if count * 4 != len(reader.payload) - reader.offset:
        raise MalformedMessageError(f"a truncate of {count} tables has another length")
    oids = tuple(reader.uint32() for _ in range(count))
    return m.Truncate(xid, bool(options & 1), bool(options & 2), oids)


def _relation(reader: Reader, xid: int | None) -> m.Relation:
    oid = reader.uint32()
    # pg_catalog is written as the empty string.
    schema = reader.string() or "pg_catalog"
    name = reader.string()
    identity = ReplicaIdentity(chr(reader.uint8()))
    columns = tuple(_column(reader) for _ in range(reader.uint16()))
    return m.Relation(xid, oid, schema, name, identity, columns)


def _column(reader: Reader) -> Column:
    flags = reader.uint8()
    return Column(
        name=reader.string(),
        type_oid=reader.uint32(),
        type_modifier=reader.int32(),
        is_key=bool(flags & 1),
    )


def _type(reader: Reader, xid: int | None) -> m.Type:
    return m.Type(xid, reader.uint32(), reader.string() or "pg_catalog", reader.string())


def _logical_message(reader: Reader, xid: int | None) -> m.LogicalMessage:
    flags = reader.uint8()
    return m.LogicalMessage(xid, bool(flags & 1), reader.lsn(), reader.string(), reader.content())


def _begin(reader: Reader) -> m.Begin:
    final_lsn, at_us, xid = reader.fields(_BEGIN)
    return m.Begin(LSN(final_lsn), timestamp(at_us), xid)


def _commit(reader: Reader) -> m.Commit:
    _, commit_lsn, end_lsn, at_us = reader.fields(_COMMIT)
    return m.Commit(LSN(commit_lsn), LSN(end_lsn), timestamp(at_us))


def _origin(reader: Reader) -> m.Origin:
    return m.Origin(reader.lsn(), reader.string())


def _stream_start(reader: Reader) -> m.StreamStart:
    return m.StreamStart(reader.uint32(), reader.uint8() == 1)


def _stream_stop(reader: Reader) -> m.StreamStop:
    return m.StreamStop()


def _stream_commit(reader: Reader) -> m.StreamCommit:
    xid = reader.uint32()
    _skip_flags(reader)
    return m.StreamCommit(xid, reader.lsn(), reader.lsn(), reader.timestamp())


def _stream_abort(reader: Reader) -> m.StreamAbort:
    xid, subtransaction_xid = reader.uint32(), reader.uint32()
    if reader.offset == len(reader.payload):
        return m.StreamAbort(xid, subtransaction_xid, None, None)
    return m.StreamAbort(xid, subtransaction_xid, reader.lsn(), reader.timestamp())


def _begin_prepare(reader: Reader) -> m.BeginPrepare:
    return m.BeginPrepare(
        reader.lsn(), reader.lsn(), reader.timestamp(), reader.uint32(), reader.string()
    )


def _prepare(reader: Reader) -> m.Prepare:
    _skip_flags(reader)
    return m.Prepare(
        reader.lsn(), reader.lsn(), reader.timestamp(), reader.uint32(), reader.string()
    )


def _commit_prepared(reader: Reader) -> m.CommitPrepared:
    _skip_flags(reader)
    return m.CommitPrepared(
        reader.lsn(), reader.lsn(), reader.timestamp(), reader.uint32(), reader.string()
    )


def _rollback_prepared(reader: Reader) -> m.RollbackPrepared:
    _skip_flags(reader)
    return m.RollbackPrepared(
        reader.lsn(),
        reader.lsn(),
        reader.timestamp(),
        reader.timestamp(),
        reader.uint32(),
        reader.string(),
    )


def _stream_prepare(reader: Reader) -> m.StreamPrepare:
    _skip_flags(reader)
    return m.StreamPrepare(
        reader.lsn(), reader.lsn(), reader.timestamp(), reader.uint32(), reader.string()
    )


def _skip_flags(reader: Reader) -> None:
    """The protocol keeps this byte for later; today it is always 0."""
    reader.uint8()


def _expect(part: int, *allowed: int) -> None:
    if part not in allowed:
        raise MalformedMessageError(f"unexpected part {chr(part)!r} of a row change")


_CHANGES: Final[dict[int, Callable[[Reader, int | None], m.Message]]] = {
    ord("I"): _insert,
    ord("U"): _update,
    ord("D"): _delete,
    ord("T"): _truncate,
    ord("R"): _relation,
    ord("Y"): _type,
    ord("M"): _logical_message,
}
"""The messages that carry an xid inside a streamed block."""

_CONTROLS: Final[dict[int, Callable[[Reader], m.Message]]] = {
    ord("B"): _begin,
    ord("C"): _commit,
    ord("O"): _origin,
    ord("S"): _stream_start,
    ord("E"): _stream_stop,
    ord("c"): _stream_commit,
    ord("A"): _stream_abort,
    ord("b"): _begin_prepare,
    ord("P"): _prepare,
    ord("K"): _commit_prepared,
    ord("r"): _rollback_prepared,
    ord("p"): _stream_prepare,
}
