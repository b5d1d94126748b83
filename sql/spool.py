"""A big answer between Postgres and its client: written at once, sent as fast as the client reads.

It frees the connection that it came over: ten slow readers would hold all of them else.
"""

import tempfile
from collections.abc import Iterator
from typing import IO

from butterbase.sql.errors import DatabaseError

MEMORY_BYTES_MAX = 1024**2
READ_BYTES = 64 * 1024


class Spool:
    """Bytes in memory up to a bound, and beyond it all of them in a file that has no name."""

    __slots__ = ("_file", "_memory_bytes_max", "_pieces", "byte_count")

    def __init__(self, *, memory_bytes_max: int = MEMORY_BYTES_MAX) -> None:
        self._memory_bytes_max = memory_bytes_max
        self._pieces: list[bytes] = []
        self._file: IO[bytes] | None = None
        self.byte_count = 0

    def write(self, piece: bytes) -> None:
        """Append. Raises DatabaseError (disk full) where the file cannot take it."""
        self.byte_count += len(piece)
        if self.byte_count <= self._memory_bytes_max:
            self._pieces.append(piece)
            return
        try:
            if self._file is None:
                # Writing to the page cache takes less than handing the piece to a thread.
                self._file = tempfile.TemporaryFile(buffering=0)  # noqa: SIM115  `close` is ours
                for kept in self._pieces:
                    _write(self._file, kept)
                self._pieces = []
            _write(self._file, piece)
        except OSError as error:
            raise DatabaseError("53100", f"the answer cannot be kept: {error}") from error

    def pieces(self) -> Iterator[bytes]:
        """All bytes from the start, at most a piece of them in memory at a time."""
        if self._file is None:
            yield from self._pieces
            return
        self._file.seek(0)
        while piece := self._file.read(READ_BYTES):
            yield piece

    def read(self) -> bytes:
        """All bytes at once."""
        return b"".join(self.pieces())

    def close(self) -> None:
        """Give the disk's room back, which otherwise happens when the spool is forgotten."""
        self._pieces = []
        if self._file is not None:
            self._file.close()

    def __del__(self) -> None:
        self.close()


def _write(file: IO[bytes], piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:  # a disk that fills up may take a part
        rest = rest[file.write(rest) :]
