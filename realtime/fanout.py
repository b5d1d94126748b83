"""A change as the payload of `postgres_changes`: encoded once for all who may read the same.

{schema, table, commit_timestamp, type, columns, record, old_record, errors}
"""

from collections.abc import Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec
from msgspec import Raw

from butterbase.ingest.changes import Delete, Insert, Relation, ReplicaIdentity, Row, Update
from butterbase.ingest.values import encode_row
from butterbase.realtime.access import Access
from butterbase.realtime.matching import RowChange, current_row
from butterbase.realtime.protocol import Message, Version, encode

_ENCODER = msgspec.json.Encoder()
_PLACE: Final = b"(data)"


def format_timestamp(at: datetime) -> str:
    """UTC with milliseconds: `2025-11-03T09:32:55.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


class Layout:
    """What a table's changes look like to those who may read the same columns."""

    def __init__(self, relation: Relation, access: Access) -> None:
        self._access = access
        readable = access.readable
        shown = [i for i, column in enumerate(relation.columns) if column.name in readable]
        told = _identity_columns(relation, access) & readable.keys()
        self._record = _Part(relation, shown)
        self._old_record = _Part(relation, [i for i in shown if relation.columns[i].name in told])
        columns = [
            {"name": name, "type": readable[name].type}
            for name in (relation.columns[index].name for index in shown)
        ]
        self._head = b'{"schema":%b,"table":%b,"commit_timestamp":"' % (
            _ENCODER.encode(relation.schema),
            _ENCODER.encode(relation.name),
        )
        self._columns = b',"columns":%b' % _ENCODER.encode(columns)

    def encode(self, change: RowChange, timestamp: bytes) -> bytes:
        """The payload's `data`. Columns that the log does not carry are left out.

        Raises MalformedMessageError.
        """
        row = current_row(change)
        match change:
            case Insert():
                kind, told = b"INSERT", b',"record":' + self._record.encode(row)
            case Update():
                kind, told = (
                    b"UPDATE",
                    b',"record":%b,"old_record":%b'
                    % (
                        self._record.encode(row),
                        self._old_record.encode(_old_row(change)),
                    ),
                )
            case Delete():
                kind, told = b"DELETE", b',"old_record":' + self._old_record.encode(change.old)
        return b'%b%b","type":"%b"%b%b,"errors":null}' % (
            self._head,
            timestamp,
            kind,
            self._columns,
            told,
        )


class _Part:
    """Some columns of a table."""

    def __init__(self, relation: Relation, indexes: Sequence[int]) -> None:
        self._columns = tuple(relation.columns[index] for index in indexes)
        self._indexes = None if len(indexes) == len(relation.columns) else tuple(indexes)

    def encode(self, row: Row) -> bytes:
        if self._indexes is not None:
            row = tuple(row[index] for index in self._indexes)
        return encode_row(self._columns, row)


def encode_data(change: RowChange, at: datetime, access: Access) -> bytes:
    """The payload's `data`, with the columns that the role may read."""
    return Layout(change.relation, access).encode(change, format_timestamp(at).encode())


@lru_cache(maxsize=1024)
def envelope(topic: str, version: Version, ids: tuple[int, ...]) -> tuple[bytes, bytes]:
    """What stands before and behind the data in a message."""
    payload = {"ids": ids, "data": Raw(_PLACE)}
    text = encode(Message(topic, "postgres_changes", payload), version)
    before, _, behind = text.rpartition(_PLACE)  # the data is a message's last text of a client's
    return before, behind


def frame(before: bytes, data: bytes, behind: bytes) -> bytes:
    """A message as an unmasked, unfragmented websocket text frame (RFC 6455, section 5.2)."""
    length = len(before) + len(data) + len(behind)
    if length < 126:
        return b"\x81%c%b%b%b" % (length, before, data, behind)
    if length < 1 << 16:
        return b"\x81\x7e%b%b%b%b" % (length.to_bytes(2, "big"), before, data, behind)
    return b"\x81\x7f%b%b%b%b" % (length.to_bytes(8, "big"), before, data, behind)


def encode_message(topic: str, ids: tuple[int, ...], data: bytes, version: Version) -> bytes:
    """The message as a websocket frame."""
    before, behind = envelope(topic, version, ids)
    return frame(before, data, behind)


def _identity_columns(relation: Relation, access: Access) -> frozenset[str]:
    """What of the old row is told.

    The old row was never judged by the policies (of an update the new one is), so that with
    row-level security its primary key alone is told, where the replica identity has it.
    """
    is_whole = relation.replica_identity is ReplicaIdentity.FULL
    known = frozenset(column.name for column in relation.columns if is_whole or column.is_key)
    return known & access.primary_key if access.is_row_security_active else known


def _old_row(change: Update) -> Row:
    return change.new if change.old is None else change.old  # None: the identity did not change
