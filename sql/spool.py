"""A big answer between Postgres and its client: written at once, sent as fast as the client reads.

It frees the connection that it came over: ten slow readers would hold all of them else.
"""

import tempfile
from collections.abc import Iterator
from typing import IO

from butterbase.sql.errors import SpoolFullError

ROOM_BYTES_MAX = 4 * 1024**3
MEMORY_BYTES_MAX = 1024**2
READ_BYTES = 64 * 1024


class SpoolRoom:
    """How many bytes the spools that share it hold together, and may hold."""

    __slots__ = ("_whole", "bytes_max", "used_bytes")

    def __init__(
        self, bytes_max: int = ROOM_BYTES_MAX, *, whole: "SpoolRoom | None" = None
    ) -> None:
        self.bytes_max = bytes_max
        self.used_bytes = 0
        self._whole = whole

    def part(self) -> "SpoolRoom":
        """A room in this one, for at most half of what the others leave: none can fill it."""
        return SpoolRoom(self.bytes_max, whole=self)

    def count(self, size: int) -> None:
        """Add to what is used; what is given back is negative."""
        self.used_bytes += size
        if self._whole is not None:
            self._whole.count(size)

    def is_too_full(self) -> bool:
        if self._whole is None:
            return self.used_bytes > self.bytes_max
        of_others = self._whole.used_bytes - self.used_bytes
        return 2 * self.used_bytes > self._whole.bytes_max - of_others


ROOM = SpoolRoom()
"""Of this process."""


class Spool:
    """Bytes in memory up to a bound, and beyond it all of them in a file that has no name."""

    __slots__ = (
        "_file",
        "_file_bytes",
        "_is_full",
        "_memory_bytes_max",
        "_pieces",
        "_room",
        "byte_count",
        "is_closed",
    )

    def __init__(self, room: SpoolRoom = ROOM, *, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
        self._room = room
        self._memory_bytes_max = memory_bytes_max
        self._file: IO[bytes] | None = None
        self._file_bytes = 0
        self._pieces: list[bytes] = []  # what follows those of the file
        self._is_full = False
        self.is_closed = False
        self.byte_count = 0

    def write(self, piece: bytes) -> None:
        """Append.

        Raises SpoolFullError once, when there is no room for it or the disk is full. What cannot be
        undone may still be written: this piece and all that follow are kept, in memory.
        """
        size = len(piece)
        self.byte_count += size
        self._room.count(size)
        if self._is_full or self.byte_count <= self._memory_bytes_max:
            self._pieces.append(piece)
            return
        try:
            if self._room.is_too_full():
                raise SpoolFullError
            self._write_out(piece)
        except (OSError, SpoolFullError) as error:
            self._is_full = True
            self._pieces.append(piece)
            if isinstance(error, OSError):
                raise SpoolFullError(f"a large answer cannot be kept: {error}") from error
            raise

    def pieces(self) -> Iterator[bytes]:
        """All bytes from the start, at most a piece of them from the file at a time."""
        if self._file is not None:
            self._file.seek(0)
            rest = self._file_bytes
            while rest and (piece := self._file.read(min(READ_BYTES, rest))):
                rest -= len(piece)
                yield piece
        yield from self._pieces

    def read(self) -> bytes:
        """All bytes at once."""
        return b"".join(self.pieces())

    def close(self) -> None:
        """Give the room back, which otherwise happens when the spool is forgotten."""
        if self.is_closed:
            return
        self.is_closed = True
        self._room.count(-self.byte_count)
        self._pieces = []
        if self._file is not None:
            self._file.close()

    def __del__(self) -> None:
        self.close()

    def _write_out(self, piece: bytes) -> None:
        """Raises OSError; then the file has what was in it before, and more that does not count."""
        if self._file is None:
            # Writing to the page cache takes less than handing the piece to a thread.
            self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  `close` is ours
        while self._pieces:
            kept = self._pieces[0]
            _write(self._file, kept)
            self._file_bytes += len(kept)
            del self._pieces[0]
        _write(self._file, piece)
        self._file_bytes += len(piece)


def _write(file: IO[bytes], piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:  # a disk that fills up may take a part
        rest = rest[file.write(rest) :]
