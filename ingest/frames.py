"""What travels over the replication socket once streaming has begun, without IO.

https://www.postgresql.org/docs/current/protocol-replication.html#PROTOCOL-REPLICATION-START-REPLICATION
Times are microseconds since 2000-01-01 UTC, left as numbers: there is one in every frame.
"""

import struct
from typing import Final, TypeAlias

from msgspec import Struct

from butterbase.ingest.errors import MalformedMessageError
from butterbase.ingest.lsn import LSN

_XLOG_DATA = struct.Struct("!cQQq")
_KEEPALIVE = struct.Struct("!cQqB")
_STATUS = struct.Struct("!cQQQqB")


PAYLOAD_AT: Final = _XLOG_DATA.size
"""Where the message begins in the bytes of an XLogData."""

XLOG_DATA: Final = ord("w")


class XLogData(Struct, frozen=True):
    """A piece of the log: with pgoutput, exactly one message."""

    wal_start: LSN
    wal_end: LSN
    """With a logical slot the same as `wal_start`, not the end of the server's log."""
    sent_at_us: int
    payload: bytes


class Keepalive(Struct, frozen=True):
    wal_end: LSN
    """The server has sent every commit up to here."""
    sent_at_us: int
    reply_requested: bool


Frame: TypeAlias = XLogData | Keepalive


class StandbyStatus(Struct, frozen=True):
    """Our answer. `flushed` is what lets the server forget: it never sends that again."""

    written: LSN
    flushed: LSN
    sent_at_us: int
    reply_requested: bool


def decode_frame(data: bytes) -> Frame:
    """Decode what the server sends. Raises MalformedMessageError."""
    match data[:1]:
        case b"w" if len(data) >= _XLOG_DATA.size:
            _, start, end, sent_at_us = _XLOG_DATA.unpack_from(data)
            return XLogData(start, end, sent_at_us, data[_XLOG_DATA.size :])
        case b"k" if len(data) == _KEEPALIVE.size:
            _, end, sent_at_us, reply = _KEEPALIVE.unpack(data)
            return Keepalive(end, sent_at_us, reply == 1)
        case kind:
            raise MalformedMessageError(f"a frame of kind {kind!r} and {len(data)} bytes")


def start_of(data: bytes) -> LSN:
    """The first position in a frame's bytes: an XLogData's `wal_start`, a Keepalive's `wal_end`."""
    return LSN(int.from_bytes(data[1:9], "big"))


def encode_status(status: StandbyStatus) -> bytes:
    return _STATUS.pack(
        b"r",
        status.written,
        status.flushed,
        # What is "applied" matters to physical standbys alone.
        status.flushed,
        status.sent_at_us,
        status.reply_requested,
    )
