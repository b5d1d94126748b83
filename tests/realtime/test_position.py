import re
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ingest.lsn import LSN
from butterbase.ingest.snapshots import Snapshot, parse_snapshot
from butterbase.realtime.errors import InvalidPositionError
from butterbase.realtime.window.position import (
    TEXT_LENGTH_MAX,
    ChangePosition,
    CommonPast,
    Position,
    ReadPosition,
    format_change,
    parse_position,
)

LSNS = st.integers(0, 2**64 - 1).map(LSN)


@st.composite
def snapshots(draw: st.DrawFn) -> Snapshot:
    xmin = draw(st.integers(3, 2**40))
    xids = draw(st.frozensets(st.integers(xmin, xmin + 50), max_size=8))
    xmax = draw(st.integers(max(xids, default=xmin), xmin + 60))
    return Snapshot(min(xids, default=xmin), xmax, xids)


POSITIONS: st.SearchStrategy[Position] = st.one_of(
    st.builds(ChangePosition, LSNS, st.none() | st.integers(1, 2**31)),
    st.builds(ReadPosition, LSNS, snapshots()),
)


@given(POSITIONS)
def test_a_position_is_read_as_it_was_written(position: Position) -> None:
    assert parse_position(str(position)) == position


@given(LSNS, st.integers(1, 2**31))
def test_a_change_is_told_with_its_position(lsn: LSN, ordinal: int) -> None:
    assert format_change(lsn, ordinal).decode() == str(ChangePosition(lsn, ordinal))


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("0/16B3748/3", ChangePosition(LSN(0x16B3748), 3)),
        ("0/16B3748", ChangePosition(LSN(0x16B3748))),
        ("A/b@734:734:", ReadPosition(LSN(0xA0000000B), parse_snapshot("734:734:"))),
        ("0/1@734:740:736,738", ReadPosition(LSN(1), parse_snapshot("734:740:736,738"))),
    ],
)
def test_the_forms_of_a_position(text: str, position: Position) -> None:
    assert parse_position(text) == position


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "0/",
        "0/1/",
        "0/1/x",
        "0/1/-2",
        "0/1/2/3",
        "0/1/2@1:2:",
        "0/123456789",
        "x/1",
        "0/\u0661",
    ],
)
def test_other_text_is_no_position(text: str) -> None:
    with pytest.raises(InvalidPositionError, match=re.escape(text[:80])):
        parse_position(text)


@pytest.mark.parametrize(
    "text",
    ["0/1@", "0/1@1:2", "0/1@1:2:,", "0/1@1:2:3,,4", "0/1@1:2:3:4", "0/1@1:2:x", " 0/1", "0/1\n"],
)
def test_other_text_is_no_position_of_a_read(text: str) -> None:
    with pytest.raises(InvalidPositionError, match=re.escape(text[:80])):
        parse_position(text)


@pytest.mark.parametrize(
    "value", ["", None, 7, ["0/1"], {"lsn": "0/1"}, "1" * (TEXT_LENGTH_MAX + 1)]
)
def test_what_is_no_short_text_is_no_position(value: object) -> None:
    with pytest.raises(InvalidPositionError):
        parse_position(value)


@given(st.text(max_size=100))
def test_any_text_is_read_or_refused(text: str) -> None:
    with suppress(InvalidPositionError):
        parse_position(text)


def test_a_change_position_lies_between_the_changes_of_its_commit() -> None:
    position = ChangePosition(LSN(100), 3)
    found = [
        position.is_before(LSN(lsn), 1, n) for lsn, n in [(99, 9), (100, 3), (100, 4), (101, 1)]
    ]
    assert found == [False, False, True, True]
    assert not ChangePosition(LSN(100)).is_before(LSN(100), 1, 10**9)


def test_what_a_read_did_not_see_lies_behind_it_wherever_its_record_is() -> None:
    position = ReadPosition(LSN(100), parse_snapshot("734:740:736"))
    assert position.is_before(LSN(50), 736, 1), "logged before, visible after"
    assert position.is_before(LSN(50), 740, 1)
    assert not position.is_before(LSN(50), 735, 1)
    assert not position.is_before(LSN(100), 739, 1)
    assert position.is_before(LSN(101), 741, 1)


@given(
    st.lists(st.integers(1, 12), max_size=4),
    st.lists(st.integers(0, 12), max_size=4),
    st.permutations(range(1, 13)),
)
def test_the_common_past_is_what_all_are_done_with(
    changes: list[int], reads: list[int], order: list[int]
) -> None:
    """Transaction n commits at LSN 10n, and becomes visible as the nth of the order says."""

    def snapshot(seen_count: int) -> Snapshot:
        unseen = frozenset(order[seen_count:])
        return Snapshot(min(unseen, default=13), 13, unseen)

    positions: list[Position] = [ChangePosition(LSN(10 * n)) for n in changes]
    positions += [ReadPosition(LSN(125), snapshot(count)) for count in reads]
    past = CommonPast()
    for position in positions:
        past.add(position)
    for n in range(1, 14):
        is_awaited = any(p.is_before(LSN(10 * n), n, 1) for p in positions)
        if past.has(LSN(10 * n), n):
            assert not is_awaited
        elif not changes:
            assert is_awaited
