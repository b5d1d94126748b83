"""A commit → the messages that it broadcasts: rows of `realtime.messages`, and what the api emits.

The api's are `pg_logical_emit_message(true, 'butterbase.broadcast', …)` with EmittedMessages in a
list, as MessagePack.
"""

import logging
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec
from msgspec import Struct

from butterbase.ingest.changes import Commit, Insert, LogicalMessage, QualifiedName, Value
from butterbase.realtime.rooms.broadcast import Broadcast
from butterbase.realtime.rooms.room import Place
from butterbase.realtime.session.state import TOPIC_PREFIX

logger = logging.getLogger(__name__)

TABLE: Final[QualifiedName] = ("realtime", "messages")
PREFIX: Final = "butterbase.broadcast"


class EmittedMessage(Struct, frozen=True, array_like=True):
    """`payload` is JSON, or with `is_binary` any bytes."""

    topic: str
    """As policies know it, without `realtime:`."""
    is_private: bool
    event: str
    is_binary: bool
    payload: bytes


_ENCODER = msgspec.msgpack.Encoder()
_DECODER = msgspec.msgpack.Decoder(list[EmittedMessage])
_JSON = msgspec.json.Decoder(msgspec.Raw)


def encode_emitted(messages: Sequence[EmittedMessage]) -> bytes:
    return _ENCODER.encode(messages)


def has_broadcasts(commit: Commit) -> bool:
    """Whether there may be any. Costs next to nothing."""
    tables = commit.tables
    return TABLE in tables or not tables  # the api emits on its own, beside no table's change


def broadcasts_of(commit: Commit) -> Iterator[tuple[Place, Broadcast] | None]:
    """In the order in which they were made; None in the place of other changes.

    What cannot be read is logged, and left out.
    """
    changes = commit.changes_of(TABLE) if TABLE in commit.tables else iter(commit.changes)
    for change in changes:
        match change:
            case Insert():
                yield _of_row(change)
            case LogicalMessage(prefix=prefix, content=content) if prefix == PREFIX:
                yield from _of_emitted(content)
            case _:
                yield None


def _of_row(insert: Insert) -> tuple[Place, Broadcast] | None:
    row = {column.name: value for column, value in insert.relation.pairs(insert.new)}
    if row.get("extension") != "broadcast":
        return None
    try:
        return _read_row(row)
    except (KeyError, TypeError, ValueError) as error:
        logger.warning("a row of realtime.messages is not sent: %s: %s", row.get("id"), error)
        return None


def _read_row(row: dict[str, Value]) -> tuple[Place, Broadcast] | None:
    topic, event, private = (_text(row, name) for name in ("topic", "event", "private"))
    payload, binary = _text(row, "payload"), _text(row, "binary_payload")
    if topic is None or event is None or private is None:
        raise ValueError("its topic, its event or whether it is private is null")
    if payload is None and binary is None:
        raise ValueError("it has no payload")
    content = payload.encode() if payload is not None else _bytes(binary or "")
    place = TOPIC_PREFIX + topic, private == "t"
    return place, Broadcast(event, content, is_binary=payload is None, id=_text(row, "id"))


def _text(row: dict[str, Value], name: str) -> str | None:
    value = row[name]
    if value is not None and not isinstance(value, str):
        raise ValueError(f"{name} is not told")
    return value


def _bytes(text: str) -> bytes:
    """Of Postgres's text form of bytea: https://www.postgresql.org/docs/current/datatype-binary.html"""
    if not text.startswith("\\x"):
        raise ValueError("binary_payload is not in hex, see bytea_output")
    return bytes.fromhex(text[2:])


def _of_emitted(content: bytes) -> Iterator[tuple[Place, Broadcast]]:
    try:
        messages = _DECODER.decode(content)
        for message in messages:
            if not message.is_binary:
                message.payload.decode()
                _JSON.decode(message.payload)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        logger.warning("a message of prefix %s cannot be read: %s", PREFIX, error)
        return
    for message in messages:
        place = TOPIC_PREFIX + message.topic, message.is_private
        yield place, Broadcast(message.event, message.payload, is_binary=message.is_binary)
