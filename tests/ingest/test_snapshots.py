import pytest

from butterbase.ingest.snapshots import Snapshot, parse_snapshot


@pytest.mark.parametrize(
    ("text", "snapshot"),
    [
        ("734:734:", Snapshot(734, 734, frozenset())),
        ("734:740:734,738", Snapshot(734, 740, frozenset({734, 738}))),
    ],
)
def test_a_snapshot_is_read_as_postgres_writes_it(text: str, snapshot: Snapshot) -> None:
    assert parse_snapshot(text) == snapshot


@pytest.mark.parametrize("text", ["", "1:2", "a:b:", "1:2:3:4", "1:2:x"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r".+"):
        parse_snapshot(text)


@pytest.mark.parametrize(
    ("xid", "is_seen"),
    [(3, True), (733, True), (734, False), (735, True), (738, False), (739, True), (740, False)],
)
def test_what_was_in_progress_or_came_later_is_not_seen(xid: int, is_seen: bool) -> None:
    assert parse_snapshot("734:740:734,738").sees(xid) is is_seen


def test_ids_are_told_apart_past_the_wrap_of_their_32_bits() -> None:
    around = 2**32
    snapshot = parse_snapshot(f"{around - 2}:{around + 5}:{around - 2},{around + 3}")
    assert not snapshot.sees(2**32 - 2)
    assert snapshot.sees(2**32 - 1)
    assert not snapshot.sees(3)
    assert snapshot.sees(4)
    assert not snapshot.sees(5)
