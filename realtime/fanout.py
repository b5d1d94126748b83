"""A change as the payload of `postgres_changes`: encoded once for all who may read the same.

{schema, table, commit_timestamp, type, columns, record, old_record, errors}
"""

from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw

from butterbase.ingest.changes import Column, Delete, ReplicaIdentity, Row, Toast, Update
from butterbase.ingest.values import encode_row
from butterbase.realtime.access import Access
from butterbase.realtime.matching import RowChange, current_row, event_of
from butterbase.realtime.protocol import Message, Version, encode, websocket_frame

_ENCODER = msgspec.json.Encoder()


def format_timestamp(at: datetime) -> str:
    """UTC with milliseconds: `2025-11-03T09:32:55.000Z`."""
    return at.astimezone(UTC).isoformat(timespec="milliseconds").removesuffix("+00:00") + "Z"


def encode_data(change: RowChange, at: datetime, access: Access) -> bytes:
    """The payload's `data`, with the columns that the role may read.

    Columns that the log does not carry are left out. Raises MalformedMessageError.
    """
    relation = change.relation
    readable = access.readable
    data: dict[str, Any] = {
        "schema": relation.schema,
        "table": relation.name,
        "commit_timestamp": format_timestamp(at),
        "type": event_of(change),
        "columns": [
            {"name": column.name, "type": readable[column.name].type}
            for column in relation.columns
            if column.name in readable
        ],
    }
    if not isinstance(change, Delete):
        data["record"] = _encode_columns(change, current_row(change), frozenset(readable))
    if isinstance(change, Update | Delete):
        identity = _identity_columns(change, access) & readable.keys()
        data["old_record"] = _encode_columns(change, _old_row(change), identity)
    data["errors"] = None
    return _ENCODER.encode(data)


def encode_message(topic: str, ids: tuple[int, ...], data: bytes, version: Version) -> bytes:
    """The message as a websocket frame."""
    payload = {"ids": ids, "data": Raw(data)}
    return websocket_frame(encode(Message(topic, "postgres_changes", payload), version))


def _identity_columns(change: Update | Delete, access: Access) -> frozenset[str]:
    """What of the old row is told.

    The old row was never judged by the policies (of an update the new one is), so that with
    row-level security its primary key alone is told, where the replica identity has it.
    """
    relation = change.relation
    is_whole = relation.replica_identity is ReplicaIdentity.FULL
    known = frozenset(column.name for column in relation.columns if is_whole or column.is_key)
    return known & access.primary_key if access.is_row_security_active else known


def _old_row(change: Update | Delete) -> Row:
    if change.old is None:  # the identity did not change
        return change.new
    return change.old


def _encode_columns(change: RowChange, row: Row, names: frozenset[str]) -> Raw:
    columns: list[Column] = []
    values: list[str | Toast | None] = []
    for column, value in change.relation.pairs(row):
        if column.name in names:
            columns.append(column)
            values.append(value)
    return Raw(encode_row(columns, tuple(values)))
