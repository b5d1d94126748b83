import errno
from contextlib import closing
from typing import IO

import pytest

from butterbase.sql.errors import DatabaseError
from butterbase.sql.spool import READ_BYTES, Spool

PIECES = [b"a" * 10, b"b" * 100_000, b"", b"c" * 3]


@pytest.mark.parametrize("memory_bytes_max", [0, 9, 10, 100_000, 1_000_000])
def test_what_is_written_is_read_in_order(memory_bytes_max: int) -> None:
    with closing(Spool(memory_bytes_max=memory_bytes_max)) as spool:
        for piece in PIECES:
            spool.write(piece)
        assert spool.byte_count == 100_013
        assert spool.read() == b"".join(PIECES)
        assert spool.read() == b"".join(PIECES)


def test_a_file_is_read_in_bounded_pieces() -> None:
    with closing(Spool(memory_bytes_max=0)) as spool:
        spool.write(b"x" * (3 * READ_BYTES + 1))
        assert [len(piece) for piece in spool.pieces()] == [READ_BYTES] * 3 + [1]


def test_nothing_is_no_piece() -> None:
    with closing(Spool()) as spool:
        assert (spool.byte_count, list(spool.pieces())) == (0, [])


def test_a_full_disk_is_the_databases_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_file: IO[bytes], _piece: bytes) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("butterbase.sql.spool._write", full)
    with closing(Spool(memory_bytes_max=1)) as spool, pytest.raises(DatabaseError) as refused:
        spool.write(b"two")
    assert refused.value.sqlstate == "53100"
