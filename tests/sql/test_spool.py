import errno
from contextlib import closing
from typing import IO

import pytest

from butterbase.sql.errors import SpoolFullError
from butterbase.sql.spool import READ_BYTES, Spool, SpoolRoom

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


@pytest.mark.parametrize("disk_bytes", [0, 5, 13])
def test_what_a_full_disk_does_not_take_is_kept_and_told_once(
    disk_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = disk_bytes

    def write(file: IO[bytes], piece: bytes) -> None:
        nonlocal left
        file.write(piece[:left])
        left -= len(piece)
        if left < 0:
            left = 0
            raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("butterbase.sql.spool._write", write)
    pieces = [b"0123", b"456", b"789ab", b"cdefghij", b"k"]
    failed_count = 0
    with closing(Spool(memory_bytes_max=8)) as spool:
        for piece in pieces:
            try:
                spool.write(piece)
            except SpoolFullError:
                failed_count += 1
        assert failed_count == 1
        assert spool.read() == b"".join(pieces)
        assert spool.byte_count == 21


def test_spools_share_their_room_until_they_are_closed() -> None:
    room = SpoolRoom(100)
    first, second = Spool(room, memory_bytes_max=10), Spool(room, memory_bytes_max=10)
    first.write(b"x" * 60)
    with pytest.raises(SpoolFullError):
        second.write(b"y" * 50)
    assert room.used_bytes == 110
    for _ in range(2):
        first.close()
        assert room.used_bytes == 50
    second.close()
    third = Spool(room, memory_bytes_max=10)
    third.write(b"z" * 100)
    assert third.read() == b"z" * 100
    del third
    assert room.used_bytes == 0


def test_no_part_of_a_room_can_fill_it() -> None:
    whole = SpoolRoom(100)
    greedy, other = (Spool(whole.part(), memory_bytes_max=0) for _ in range(2))
    greedy.write(b"x" * 50)
    with pytest.raises(SpoolFullError):
        greedy.write(b"x")
    other.write(b"y" * 24)
    assert whole.used_bytes == 75
    with pytest.raises(SpoolFullError):
        other.write(b"y" * 2)
    greedy.close()
    assert whole.used_bytes == 26
    other.close()
    assert whole.used_bytes == 0
