"""The rows of a transaction's messages → changes: the one decoder that meets every row.

It works on frames as they came from the socket, so that nothing is copied before it is wanted.
https://www.postgresql.org/docs/current/protocol-logicalrep-message-formats.html
"""

import struct
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final

from butterbase.ingest.changes import (
    Change,
    Delete,
    Insert,
    LogicalMessage,
    Relation,
    Row,
    Toast,
    Truncate,
    Update,
)
from butterbase.ingest.errors import MalformedMessageError, UnexpectedMessageError
from butterbase.ingest.frames import PAYLOAD_AT, start_of
from butterbase.ingest.lsn import format_lsn
from butterbase.ingest.pgoutput import messages as m
from butterbase.ingest.pgoutput.decoder import decode
from butterbase.ingest.pgoutput.reader import read_row

_INSERT, _UPDATE, _DELETE, _RELATION = b"IUDR"
_NEW, _KEY, _OLD = b"NKO"
_ROWS: Final = frozenset(b"IUD")

_read_uint32 = struct.Struct("!I").unpack_from


def decode_changes(
    frames: Iterable[bytes],
    relations: Mapping[int, Relation],
    described: Sequence[Relation],
    *,
    is_streamed: bool,
    aborted: Collection[bytes] = (),
    wanted: Collection[int] | None = None,
) -> Iterator[Change]:
    """The changes that the frames of one transaction tell, in order.

    `relations` are as before the transaction, `described` those that its Relation messages
    describe, in their order. In a streamed transaction each message names its (sub)transaction;
    those of `aborted` ones, xids of four bytes, are left out. `wanted`: oids of relations.

    Raises MalformedMessageError.
    """
    known = dict(relations)
    descriptions = iter(described)
    oid_at = PAYLOAD_AT + (5 if is_streamed else 1)
    for frame in frames:
        kind = frame[PAYLOAD_AT]
        if kind == _RELATION:
            # Also in an aborted subtransaction: the server describes nothing twice.
            relation = next(descriptions)
            known[relation.oid] = relation
            continue
        if aborted and frame[PAYLOAD_AT + 1 : oid_at] in aborted:
            continue
        try:
            if kind not in _ROWS:
                yield from _other_changes(frame, known, is_streamed, wanted)
                continue
            (oid,) = _read_uint32(frame, oid_at)
            if wanted is None or oid in wanted:
                yield _row_change(kind, frame, oid_at + 4, known[oid])
        # What reads past the end, and text that is no UTF-8, raise.
        except (struct.error, LookupError, ValueError) as error:
            raise _located(MalformedMessageError, f"{chr(kind)!r}: {error}", frame) from error
        except UnexpectedMessageError as error:
            raise _located(UnexpectedMessageError, str(error), frame) from error


def _row_change(kind: int, frame: bytes, at: int, relation: Relation) -> Insert | Update | Delete:
    part = frame[at]
    first, end = read_row(frame, at + 1)
    change: Insert | Update | Delete
    if kind == _INSERT and part == _NEW:
        change = Insert(relation, _fitting(relation, first))
    elif kind == _DELETE and part in (_KEY, _OLD):
        change = Delete(relation, _fitting(relation, first))
    elif kind == _UPDATE and part == _NEW:
        change = Update(relation, _fitting(relation, first), None)
    elif kind == _UPDATE and part in (_KEY, _OLD) and frame[end] == _NEW:
        new, end = read_row(frame, end + 1)
        old = _fitting(relation, first)
        change = Update(relation, _restore(_fitting(relation, new), old), old)
    else:
        raise ValueError(f"unexpected part {chr(part)!r}")
    if end != len(frame):
        raise ValueError(f"a row that ends at {end} of {len(frame)} bytes")
    return change


def _other_changes(
    frame: bytes,
    relations: Mapping[int, Relation],
    is_streamed: bool,
    wanted: Collection[int] | None,
) -> Iterator[Change]:
    match decode(frame[PAYLOAD_AT:], streaming=is_streamed):
        case m.Truncate(relation_oids=oids):
            for oid in oids:
                if wanted is None or oid in wanted:
                    yield Truncate(relations[oid])
        case m.LogicalMessage(prefix=prefix, content=content):
            if wanted is None:
                yield LogicalMessage(prefix, content)
        case _:
            raise AssertionError("a transaction keeps no other messages")


def _fitting(relation: Relation, row: Row) -> Row:
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


def _located(
    error: type[MalformedMessageError], reason: str, frame: bytes
) -> MalformedMessageError:
    return error(f"the log at {format_lsn(start_of(frame))}: {reason}")
