"""Frames between the host and a process, and between an api worker and the host.

u32 payload length · u8 type · u32 stream · payload, big endian. The host opens streams for calls,
with odd numbers; a process opens them for its own requests and operations, with even ones. A body
is sent as its reader gives credit for it, so that neither side holds more than a window of it.

Without IO: bytes in, frames out.
"""

import struct
from collections.abc import Iterator
from enum import IntEnum
from typing import Final, NamedTuple

HEADER_BYTES: Final = 9
PAYLOAD_BYTES_MAX: Final = 1024**2
"""Of a frame from a process. A bundle on its way there is longer."""
BUNDLE_BYTES_MAX: Final = 16 * 1024**2
CHUNK_BYTES_MAX: Final = 64 * 1024
"""Of a body, in one frame."""
WINDOW_BYTES: Final = 256 * 1024
"""Of a body, that may be sent before its reader asks for more."""

_HEADER: Final = struct.Struct(">IBI")
_CREDIT: Final = struct.Struct(">I")


class FrameType(IntEnum):
    OPEN = 1
    """JSON: a request's head."""
    HEAD = 2
    """JSON: an answer's head."""
    DATA = 3
    END = 4
    """Of a body."""
    CREDIT = 5
    """u32: bytes that may be sent beyond those before."""
    RESET = 6
    """JSON or nothing: neither side sends any more."""
    LOG = 7
    READY = 8
    PING = 9
    PONG = 10
    DONE = 11
    """A call has left nothing behind."""
    LOAD = 12
    """u32 length of JSON, JSON, bundle."""
    LOADED = 13
    FAULT = 14
    """JSON: an error that nobody handled."""
    OPERATION = 15
    RESULT = 16


class FrameError(Exception):
    """The other side does not speak this protocol."""


class Frame(NamedTuple):
    type: FrameType
    stream: int
    payload: bytes = b""


def encode(type: FrameType, stream: int, payload: bytes = b"") -> bytes:  # noqa: A002
    return _HEADER.pack(len(payload), type, stream) + payload


def encode_credit(stream: int, count: int) -> bytes:
    return encode(FrameType.CREDIT, stream, _CREDIT.pack(count))


def encode_load(head: bytes, bundle: bytes) -> bytes:
    return encode(FrameType.LOAD, 0, _CREDIT.pack(len(head)) + head + bundle)


def encode_body(stream: int, body: bytes) -> bytes:
    """A whole body that fits into a window, and its end."""
    assert len(body) <= WINDOW_BYTES
    parts = [
        encode(FrameType.DATA, stream, body[at : at + CHUNK_BYTES_MAX])
        for at in range(0, len(body), CHUNK_BYTES_MAX)
    ]
    return b"".join((*parts, encode(FrameType.END, stream)))


def decode_credit(payload: bytes) -> int:
    """Raises FrameError."""
    if len(payload) != _CREDIT.size:
        raise FrameError("credit is not four bytes")
    count: int = _CREDIT.unpack(payload)[0]
    return count


class FrameDecoder:
    """Whole frames out of bytes as they come."""

    def __init__(self, *, payload_bytes_max: int = PAYLOAD_BYTES_MAX) -> None:
        self._payload_bytes_max = payload_bytes_max
        self._rest = bytearray()
        self._wanted = HEADER_BYTES
        """Bytes without which there is nothing to decode, so that a frame that comes byte by byte
        is not looked at as often."""

    def feed(self, data: bytes) -> Iterator[Frame]:
        """Raises FrameError, after the frames before; nothing is decoded after it."""
        received: bytes | bytearray = data
        if self._rest:
            self._rest += data
            if len(self._rest) < self._wanted:
                return
            received, self._rest = self._rest, bytearray()
        at = 0
        self._wanted = HEADER_BYTES
        while len(received) - at >= HEADER_BYTES:
            size, type_number, stream = _HEADER.unpack_from(received, at)
            if size > self._payload_bytes_max:
                raise FrameError(f"a frame of {size} bytes")
            end = at + HEADER_BYTES + size
            if end > len(received):
                self._wanted = HEADER_BYTES + size
                break
            try:
                frame_type = FrameType(type_number)
            except ValueError:
                raise FrameError(f"no frame has type {type_number}") from None
            yield Frame(frame_type, stream, bytes(received[at + HEADER_BYTES : end]))
            at = end
        self._rest = bytearray(received[at:])

    @property
    def is_between_frames(self) -> bool:
        return not self._rest
