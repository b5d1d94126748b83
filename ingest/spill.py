"""Frames of a transaction that is too large for memory, in a temporary file."""

import os
import struct
from collections.abc import Iterator, Sequence
from typing import IO, Final

READ_BYTES: Final = 256 * 1024
WRITE_FRAME_COUNT: Final = 10_000

_LENGTH: Final = struct.Struct("!I")


class Spill:
    """Frames in a file, which is closed when nobody refers to it any more."""

    def __init__(self, file: IO[bytes]) -> None:
        # A descriptor of our own: Python warns of a file object that is collected before it is
        # closed, and in a cycle it may be collected before us.
        with file:
            self._descriptor = os.dup(file.fileno())
        self._size = 0

    def __del__(self) -> None:
        os.close(self._descriptor)

    def write(self, frames: Sequence[bytes]) -> None:
        for first in range(0, len(frames), WRITE_FRAME_COUNT):
            part = frames[first : first + WRITE_FRAME_COUNT]
            data = b"".join([piece for f in part for piece in (_LENGTH.pack(len(f)), f)])
            rest = memoryview(data)
            while rest:
                rest = rest[os.write(self._descriptor, rest) :]
            self._size += len(data)

    def read(self) -> Iterator[bytes]:
        """All of them. The file's own position is left alone, so that several may read."""
        offset, rest = 0, b""
        while offset < self._size:
            data = os.pread(self._descriptor, _size_of_read(rest), offset)
            if not data:
                raise OSError("the temporary file of a transaction was cut short")
            offset += len(data)
            data = rest + data
            first = 0
            while first + _LENGTH.size <= len(data):
                start = first + _LENGTH.size
                end = start + _LENGTH.unpack_from(data, first)[0]
                if end > len(data):
                    break
                yield data[start:end]
                first = end
            rest = data[first:]


def _size_of_read(rest: bytes) -> int:
    """How much to read behind the beginning of a frame: of a large one all that is missing."""
    if len(rest) < _LENGTH.size:
        return READ_BYTES
    (length,) = _LENGTH.unpack_from(rest)
    return max(READ_BYTES, _LENGTH.size + int(length) - len(rest))
