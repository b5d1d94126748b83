"""Bounded reads over one message of the log.

Nothing here checks each read: a read past the end either raises (`struct.error`, `IndexError`,
`ValueError`) or leaves the offset past the end, which `expect_end` refuses. `decode` turns all of
them into MalformedMessageError. So a row costs no more than its slices.
"""

from datetime import UTC, datetime, timedelta
from struct import Struct

from butterbase.ingest.changes import Row, Toast, Value
from butterbase.ingest.errors import MalformedMessageError
from butterbase.ingest.lsn import LSN

POSTGRES_EPOCH = datetime(2000, 1, 1, tzinfo=UTC)
"""Timestamps in the protocol are microseconds since then."""

_UINT8 = Struct("!B")
_UINT16 = Struct("!H")
_UINT32 = Struct("!I")
_INT32 = Struct("!i")
_INT64 = Struct("!q")
_UINT64 = Struct("!Q")

_NULL, _UNCHANGED, _TEXT, _BINARY = b"nutb"

_read_uint16 = _UINT16.unpack_from
_read_uint32 = _UINT32.unpack_from


class Reader:
    __slots__ = ("offset", "payload")

    def __init__(self, payload: bytes, offset: int) -> None:
        self.payload = payload
        self.offset = offset

    def _integer(self, layout: Struct) -> int:
        value: int = layout.unpack_from(self.payload, self.offset)[0]
        self.offset += layout.size
        return value

    def uint8(self) -> int:
        return self._integer(_UINT8)

    def uint16(self) -> int:
        return self._integer(_UINT16)

    def uint32(self) -> int:
        return self._integer(_UINT32)

    def int32(self) -> int:
        return self._integer(_INT32)

    def lsn(self) -> LSN:
        return LSN(self._integer(_UINT64))

    def timestamp(self) -> datetime:
        return timestamp(self._integer(_INT64))

    def fields(self, layout: Struct) -> tuple[int, ...]:
        fields = layout.unpack_from(self.payload, self.offset)
        self.offset += layout.size
        return fields

    def string(self) -> str:
        end = self.payload.index(0, self.offset)
        text = self.payload[self.offset : end].decode()
        self.offset = end + 1
        return text

    def content(self) -> bytes:
        """Bytes behind their 32-bit length."""
        start = self.offset + _UINT32.size
        (length,) = _read_uint32(self.payload, self.offset)
        self.offset = start + length
        return self.payload[start : self.offset]

    def row(self) -> Row:
        row, self.offset = read_row(self.payload, self.offset)
        return row

    def expect_end(self) -> None:
        """Raises MalformedMessageError when the message is shorter or longer than its payload."""
        excess = len(self.payload) - self.offset
        if excess:
            raise MalformedMessageError(
                f"{excess} bytes after the message" if excess > 0 else f"{-excess} bytes missing"
            )


def timestamp(at_us: int) -> datetime:
    """Raises OverflowError for a time beyond year 9999."""
    return POSTGRES_EPOCH + timedelta(0, 0, at_us)


def read_row(payload: bytes, offset: int) -> tuple[Row, int]:
    """TupleData, and the offset behind it: the hot loop of all decoding, hence the local names."""
    (count,) = _read_uint16(payload, offset)
    offset += 2
    row: list[Value] = []
    append = row.append
    for _ in range(count):
        kind = payload[offset]
        if kind == _TEXT:
            start = offset + 5
            offset = start + _read_uint32(payload, offset + 1)[0]
            append(payload[start:offset].decode())
            continue
        offset += 1
        if kind == _NULL:
            append(None)
        elif kind == _UNCHANGED:
            append(Toast.UNCHANGED)
        elif kind == _BINARY:
            raise MalformedMessageError("a column in binary format, where text was asked for")
        else:
            raise MalformedMessageError(f"unknown kind of column {chr(kind)!r}")
    return tuple(row), offset
