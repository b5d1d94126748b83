"""A change as the payload of `postgres_changes`: encoded once for all who may read the same.

{schema, table, commit_timestamp, position, columns, type, record, old_record, errors}
"""

from collections.abc import Callable
from functools import lru_cache, partial
from typing import Final, TypeAlias

import msgspec
from msgspec import Raw

from butterbase.ingest.changes import Delete, Insert, Relation, ReplicaIdentity, Row, Update
from butterbase.ingest.row_changes import format_timestamp
from butterbase.ingest.values import RowEncoder, Types
from butterbase.realtime.changes.access import Access
from butterbase.realtime.changes.matching import RowChange, Select, current_row
from butterbase.realtime.session.protocol import Message, Version, encode
from butterbase.realtime.sockets.event_stream import EventStream

__all__ = ["Form", "Layout", "encode_message", "envelope", "format_timestamp", "frame"]

Form: TypeAlias = Version | EventStream

_ENCODER = msgspec.json.Encoder()
_PLACE: Final = b"(data)"

KEPT_BYTES_MAX: Final = 64
"""As JSON: a longer value is left out of a change that is too large. The primary key is not."""

_TOO_LARGE: Final = b'["Error 413: Payload Too Large"]'


class Layout:
    """What a table's changes look like to those who may read the same columns and ask for them."""

    def __init__(
        self, relation: Relation, access: Access, select: Select = None, *, bytes_max: int
    ) -> None:
        """Of a change that takes more than `bytes_max` only the short values are told."""
        self._relation, self._select, self._bytes_max = relation, select, bytes_max
        readable = access.readable
        asked = readable.keys() if select is None else access.primary_key.union(select)
        shown = [
            (place, column)
            for place, column in enumerate(relation.columns)
            if column.name in readable and column.name in asked
        ]
        told = _identity_columns(relation, access)
        types = Types(access.types)
        self._record = RowEncoder(types, shown)
        self._old_record = RowEncoder(types, [one for one in shown if one[1].name in told])
        self._key = [place for place, column in shown if column.name in access.primary_key]
        columns = [{"name": c.name, "type": readable[c.name].type} for _, c in shown]
        self._head = b'{"schema":%b,"table":%b,"commit_timestamp":"' % (
            _ENCODER.encode(relation.schema),
            _ENCODER.encode(relation.name),
        )
        self._columns = b',"columns":%b' % _ENCODER.encode(columns)

    def under(self, access: Access) -> "Layout":
        """For those who may read something else."""
        return Layout(self._relation, access, self._select, bytes_max=self._bytes_max)

    def encode(self, change: RowChange, timestamp: bytes, position: bytes) -> bytes:
        """The payload's `data`. Columns that the log does not carry are left out.

        Raises MalformedMessageError.
        """
        told = _told(change, self._record.encode, self._old_record.encode)
        head = b'%b%b","position":"%b"%b' % (self._head, timestamp, position, self._columns)
        data = b'%b%b,"errors":null}' % (head, told)
        if len(data) <= self._bytes_max:
            return data
        record, old_record = (
            partial(part.encode_short, value_bytes_max=KEPT_BYTES_MAX, always=self._key)
            for part in (self._record, self._old_record)
        )
        told = _told(change, record, old_record)
        return b'%b%b,"errors":%b}' % (head, told, _TOO_LARGE)


def _told(
    change: RowChange, record: Callable[[Row], bytes], old_record: Callable[[Row], bytes]
) -> bytes:
    match change:
        case Insert():
            return b',"type":"INSERT","record":' + record(change.new)
        case Update():
            # None: the identity did not change.
            old = change.new if change.old is None else change.old
            return b',"type":"UPDATE","record":%b,"old_record":%b' % (
                record(current_row(change)),
                old_record(old),
            )
        case Delete():
            return b',"type":"DELETE","old_record":' + old_record(change.old)


@lru_cache(maxsize=1024)
def envelope(topic: str, version: Form, ids: tuple[int, ...]) -> tuple[bytes, bytes]:
    """What stands before and behind the data in a message; nothing in an event stream's."""
    if version is EventStream.V1:
        return b"", b""
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
