"""Frames to commits, over what a server said once (tests/data/pgoutput)."""

import struct
import tempfile
from collections.abc import Iterator, Sequence
from typing import IO

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from butterbase.ingest.assembler import Assembler, Prepared
from butterbase.ingest.changes import (
    Change,
    Commit,
    Delete,
    Insert,
    LoggedChanges,
    LogicalMessage,
    Toast,
    Truncate,
    Update,
)
from butterbase.ingest.errors import (
    MalformedMessageError,
    PreparedTransactionError,
    UnexpectedMessageError,
)
from butterbase.ingest.lsn import LSN
from butterbase.ingest.pgoutput import messages as m
from butterbase.ingest.pgoutput.decoder import decode
from tests.ingest.captured import frame, frames

NOTES = 16385
KEEPALIVE = b"k" + struct.pack("!QqB", 77, 0, 0)


def assemble(given: Sequence[bytes], assembler: Assembler | None = None) -> list[Commit]:
    told = (assembler or Assembler()).feed(given)
    return [commit for commit in told if isinstance(commit, Commit)]


def changes(name: str) -> list[Change]:
    return [change for commit in assemble(frames(name)) for change in commit.changes]


def first_transaction() -> list[bytes]:
    """begin, type, relation, two inserts, commit"""
    return frames("rows")[:6]


def message_of(data: bytes) -> m.Message:
    return decode(data[25:])


# Messages as the server would write them, for what no capture holds.


def begin(xid: int = 1) -> bytes:
    return frame(b"B" + struct.pack("!QqI", 90, 0, xid))


def commit_at(end: int = 100) -> bytes:
    return frame(b"C\0" + struct.pack("!QQq", 90, end, 0))


def relation(*columns: str, xid: int | None = None, name: str = "notes", oid: int = NOTES) -> bytes:
    told = b"".join(b"\0" + c.encode() + b"\0" + struct.pack("!Ii", 25, -1) for c in columns)
    head = struct.pack("!I", oid) + b"public\0" + name.encode() + b"\0d"
    return frame(b"R" + named(xid) + head + struct.pack("!H", len(columns)) + told)


def insert(*values: str, xid: int | None = None, oid: int = NOTES) -> bytes:
    row = b"".join(b"t" + struct.pack("!I", len(v.encode())) + v.encode() for v in values)
    head = struct.pack("!I", oid) + b"N" + struct.pack("!H", len(values))
    return frame(b"I" + named(xid) + head + row)


def named(xid: int | None) -> bytes:
    return b"" if xid is None else struct.pack("!I", xid)


def start(xid: int, *, is_first: bool = False) -> bytes:
    return frame(b"S" + struct.pack("!IB", xid, is_first))


STOP = frame(b"E")


def stream_commit(xid: int, end: int = 100) -> bytes:
    return frame(b"c" + struct.pack("!IBQQq", xid, 0, 90, end, 0))


def stream_abort(xid: int, subtransaction: int | None = None) -> bytes:
    return frame(b"A" + struct.pack("!II", xid, subtransaction or xid))


def rows_of(commit: Commit) -> list[tuple[object, ...]]:
    return [change.new for change in commit.changes if isinstance(change, Insert)]


def test_a_commit_comes_with_its_last_message() -> None:
    *before, last = first_transaction()
    first, end = message_of(before[0]), message_of(last)
    assert isinstance(first, m.Begin)
    assert isinstance(end, m.Commit)
    assembler = Assembler()
    for data in before:
        assert (list(assembler.feed([data])), assembler.in_transaction) == ([], True)
    (commit,) = assembler.feed([last])
    assert isinstance(commit, Commit)
    assert not assembler.in_transaction
    assert (commit.lsn, commit.at, commit.xid) == (end.end_lsn, end.at, first.xid)
    assert len(commit.changes) == 2


def test_a_keepalive_between_transactions_tells_how_far_commits_were_told() -> None:
    first, *others = first_transaction()
    told = list(Assembler().feed([KEEPALIVE, first, KEEPALIVE, *others, KEEPALIVE]))
    assert [told[0], told[-1], len(told)] == [77, 77, 3]


def test_each_change_knows_its_relation_and_rows() -> None:
    told = changes("rows")
    assert [type(change) for change in told] == [
        *[Insert, Insert, Update, Update, Insert, Update, Delete, Insert, Update, Delete],
        *[Insert, Update, Insert, Truncate, Truncate],
    ]
    assert [change.relation.name for change in told if not isinstance(change, LogicalMessage)] == [
        *["notes"] * 7,
        *["logs"] * 3,
        *["pairs"] * 2,
        *["notes", "notes", "logs"],
    ]
    key_change = told[3]
    assert isinstance(key_change, Update)
    assert (key_change.old, key_change.new) == (("2", None, None), ("3", None, None))


def test_ddl_makes_a_new_relation_and_leaves_the_old_one() -> None:
    inserts = [change for change in changes("rows") if isinstance(change, Insert)]
    first, last = inserts[0], inserts[-1]
    assert first.relation.oid == last.relation.oid
    assert [column.name for column in first.relation.columns] == ["id", "body", "mood"]
    assert [column.name for column in last.relation.columns] == ["id", "body", "mood", "extra"]
    assert {column.name: value for column, value in last.relation.pairs(last.new)} == {
        "id": "5",
        "body": "",
        "mood": None,
        "extra": "7",
    }


def test_only_transactional_messages_are_part_of_a_commit() -> None:
    told = [change for change in changes("messages") if isinstance(change, LogicalMessage)]
    assert told == [LogicalMessage("prefix", b"content")]


def test_a_large_value_that_no_old_row_repeats_stays_unchanged() -> None:
    updates = [change for change in changes("rows") if isinstance(change, Update)]
    assert updates[2].new == ("4", Toast.UNCHANGED, "happy")


def test_a_large_value_is_taken_from_the_old_row() -> None:
    key = b"\0\x02t\0\0\0\x05largen"
    update = frame(b"U" + struct.pack("!I", NOTES) + b"K" + key + b"N\0\x02ut\0\0\0\x01x")
    (commit,) = assemble([begin(), relation("id", "body"), update, commit_at()])
    (change,) = commit.changes
    assert isinstance(change, Update)
    assert change.new == ("large", "x")


def test_changes_are_read_as_often_as_one_likes_and_by_several_at_once() -> None:
    rows = [insert(str(number)) for number in range(2_000)]
    (commit,) = assemble([begin(), relation("id"), *rows, commit_at()])
    first, second = iter(commit.changes), iter(commit.changes)
    assert [next(first), next(first)] == [next(second), next(second)]
    assert len(list(first)) == len(list(second)) == 1_998
    assert commit.changes == commit.changes
    assert len(commit.changes) == 2_000


def test_a_commit_knows_its_tables_and_tells_the_changes_of_some() -> None:
    given = [begin(), relation("id"), insert("1"), relation("id", name="other", oid=2)]
    (commit,) = assemble([*given, insert("2", oid=2), insert("3"), commit_at()])
    assert commit.tables == {("public", "notes"), ("public", "other")}
    told = list(commit.changes_of(("public", "other"), ("x", "y")))
    assert [change.new for change in told if isinstance(change, Insert)] == [("2",)]
    assert list(commit.changes_of(("x", "y"))) == []
    plain = Commit(commit.lsn, commit.at, commit.xid, tuple(commit.changes))
    assert plain.tables == commit.tables
    assert list(plain.changes_of(("public", "other"))) == told
    assert plain == commit


def test_a_table_that_is_renamed_on_the_way_is_known_under_both_names() -> None:
    given = [begin(), relation("id"), insert("1"), relation("id", name="later"), insert("2")]
    (commit,) = assemble([*given, commit_at()])
    assert commit.tables == {("public", "notes"), ("public", "later")}
    assert len(list(commit.changes_of(("public", "later")))) == 1


def test_the_announcement_of_ddl_is_seen_without_reading() -> None:
    content = b"M\1" + struct.pack("!Q", 5) + b"butterbase.ddl\0" + struct.pack("!I", 0)
    with_ddl, without = assemble([begin(), frame(content), commit_at(), begin(2), commit_at(200)])
    assert (with_ddl.has_ddl, without.has_ddl) == (True, False)


def test_an_origin_is_part_of_the_commit() -> None:
    origin = frame(b"O" + struct.pack("!Q", 5) + b"elsewhere\0")
    (commit,) = assemble([begin(), origin, commit_at()])
    assert commit.origin == "elsewhere"


# Transactions in progress


def test_a_streamed_transaction_is_told_at_its_commit_without_what_was_rolled_back() -> None:
    told = changes("streamed")
    assert [type(change) for change in told[:-1]] == [Insert, Update, Delete, Truncate]
    assert told[-1] == LogicalMessage("prefix", b"content")
    (commit,) = assemble(frames("streamed_serially"))
    assert rows_of(commit) == [("1",), ("3",)]
    assert len(commit.changes) == 2


def test_a_streamed_and_prepared_transaction_is_told_at_its_commit() -> None:
    assert [type(change) for change in changes("streamed_prepared")] == [Insert]


def test_transactions_in_progress_are_told_apart_and_in_the_order_of_their_commits() -> None:
    first, second = assemble(
        [
            *[start(1, is_first=True), relation("id", xid=1), insert("a", xid=1), STOP],
            *[start(2, is_first=True), relation("id", xid=2), insert("b", xid=2), STOP],
            *[start(1), insert("c", xid=3), insert("d", xid=4), STOP],
            *[start(2), insert("e", xid=2), STOP, stream_commit(2, 100)],
            *[stream_abort(1, 4), start(1), insert("f", xid=1), STOP, stream_commit(1, 200)],
        ]
    )
    assert (first.xid, first.lsn, rows_of(first)) == (2, 100, [("b",), ("e",)])
    assert (second.xid, second.lsn, rows_of(second)) == (1, 200, [("a",), ("c",), ("f",)])
    assert (len(first.changes), len(second.changes)) == (2, 3)


def test_a_transaction_in_progress_that_is_rolled_back_is_forgotten() -> None:
    given = [start(1, is_first=True), relation("id", xid=1), insert("a", xid=1), STOP]
    assembler = Assembler()
    assert assemble([*given, stream_abort(1)], assembler) == []
    with pytest.raises(UnexpectedMessageError, match="goes on but did not begin"):
        assemble([start(1)], assembler)


def test_what_a_transaction_in_progress_does_to_a_table_is_its_own_until_it_commits() -> None:
    assembler = Assembler()
    before = [begin(), relation("id"), insert("1"), commit_at()]
    streamed = [start(5, is_first=True), relation("id", "extra", xid=5)]
    block = [*streamed, insert("2", "x", xid=5), STOP]
    meanwhile = [begin(2), insert("3"), commit_at(200)]
    after = [begin(3), insert("4", "y"), commit_at(400)]
    told = assemble([*before, *block, *meanwhile, stream_commit(5, 300), *after], assembler)
    assert [rows_of(commit) for commit in told] == [[("1",)], [("3",)], [("2", "x")], [("4", "y")]]


def test_a_relation_that_was_described_anew_since_is_not_set_back() -> None:
    streamed = [start(5, is_first=True), relation("id", xid=6), insert("2", xid=6), STOP]
    altered = [begin(2), relation("id", "extra"), insert("3", "x"), commit_at(200)]
    after = [begin(3), insert("4", "y"), commit_at(400)]
    told = assemble(
        [*streamed, stream_abort(5, 6), *altered, stream_commit(5, 300), *after], Assembler()
    )
    assert [rows_of(commit) for commit in told] == [[("3", "x")], [], [("4", "y")]]


def test_the_description_by_an_aborted_subtransaction_holds_for_the_rest() -> None:
    # The server describes a relation once for a transaction in progress, whoever met it first.
    given = [start(1, is_first=True), relation("id", xid=2), insert("a", xid=2)]
    (commit,) = assemble([*given, insert("b", xid=1), STOP, stream_abort(1, 2), stream_commit(1)])
    assert rows_of(commit) == [("b",)]


# Prepared transactions


def test_a_prepared_transaction_is_told_at_its_commit_and_not_when_rolled_back() -> None:
    prepared = Prepared()
    assembler = Assembler(prepared=prepared)
    told = []
    held = []
    for data in frames("prepared"):
        told += assemble([data], assembler)
        held.append(prepared.held_at is not None)
    (commit,) = told
    assert rows_of(commit) == [("1",)]
    last = message_of(next(f for f in frames("prepared") if f[25:26] == b"K"))
    assert isinstance(last, m.CommitPrepared)
    assert commit.lsn == last.end_lsn
    assert (any(held), held[-1]) == (True, False)


def test_a_prepared_transaction_outlives_the_connection() -> None:
    prepared = Prepared()
    before, after = split_at(frames("prepared"), b"K")
    assert assemble(before, Assembler(prepared=prepared)) == []
    prepare = message_of(before[-1])
    assert isinstance(prepare, m.Prepare)
    assert prepared.held_at == prepare.prepare_lsn
    # The server tells it again, since it was not acknowledged.
    (commit,) = assemble([*before, *after], Assembler(prepared=prepared))
    assert len(commit.changes) == 1
    assert prepared.held_at is None


def split_at(given: Sequence[bytes], kind: bytes) -> tuple[list[bytes], list[bytes]]:
    index = next(i for i, data in enumerate(given) if data[25:26] == kind)
    return list(given[:index]), list(given[index:])


def test_the_commit_of_a_prepared_transaction_that_was_never_told_is_an_error() -> None:
    _, after = split_at(frames("prepared"), b"K")
    with pytest.raises(PreparedTransactionError, match="'one' is committed"):
        assemble(after)


# Limits


class Files:
    """Opens temporary files and remembers them."""

    def __init__(self) -> None:
        self.opened: list[IO[bytes]] = []

    def __call__(self) -> IO[bytes]:
        self.opened.append(tempfile.TemporaryFile())  # noqa: SIM115  the transaction's to close
        return self.opened[-1]


def test_a_transaction_larger_than_the_limit_waits_in_a_file() -> None:
    files = Files()
    assembler = Assembler(held_bytes_max=2_000, open_file=files)
    rows = [insert(str(number), "ü" * 100) for number in range(3_000)]
    given = [begin(), relation("id", "body"), *rows, commit_at()]
    told: list[Commit] = []
    for data in given:
        told += assemble([data], assembler)
    (commit,) = told
    assert len(files.opened) == 1
    for _ in range(2):
        assert [int(str(row[0])) for row in rows_of(commit)] == list(range(3_000))
    assert len(commit.changes) == 3_000
    assert list(commit.changes_of(("x", "y"))) == []


def test_the_limit_is_of_all_open_transactions_and_the_largest_gives_way() -> None:
    files = Files()
    assembler = Assembler(held_bytes_max=20_000, open_file=files)

    def block(xid: int, size: int) -> Iterator[bytes]:
        yield from [start(xid, is_first=True), relation("id", xid=xid)]
        yield from [insert("x" * size, xid=xid), STOP]

    told = assemble([*block(1, 9_000), *block(2, 9_000), *block(3, 9_500)], assembler)
    assert told == []
    assert len(files.opened) == 1
    told = assemble([stream_commit(xid, xid * 100) for xid in (1, 2, 3)], assembler)
    assert [len(str(rows_of(commit)[0][0])) for commit in told] == [9_000, 9_000, 9_500]


# What cannot be


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ([0, 0], "begins inside another"),
        ([5], "did not begin"),
        ([3], "outside of a transaction"),
        ([0, 3], "not described"),
    ],
)
def test_a_message_out_of_place_is_refused(order: list[int], reason: str) -> None:
    given = first_transaction()
    with pytest.raises(UnexpectedMessageError, match=reason):
        assemble([given[index] for index in order])


def test_the_commit_of_another_transaction_is_refused() -> None:
    given = frames("rows")
    other = next(data for data in reversed(given) if data[25:26] == b"C")
    with pytest.raises(UnexpectedMessageError, match="did not begin"):
        assemble([given[0], other])


def test_a_row_of_another_width_is_refused_when_it_is_read() -> None:
    (commit,) = assemble([begin(), relation("id", "a", "b"), insert("1"), commit_at()])
    with pytest.raises(UnexpectedMessageError, match="has 3 columns, a row of it 1"):
        list(commit.changes)


@settings(max_examples=300)
@given(st.lists(st.tuples(st.sampled_from(b"IUDTRMBCSEcAOYbPKrp"), st.binary(max_size=40))))
def test_any_messages_are_commits_or_our_error(given: list[tuple[int, bytes]]) -> None:
    try:
        for told in Assembler().feed([frame(bytes([kind]) + rest) for kind, rest in given]):
            if isinstance(told, Commit):
                list(told.changes)
    except (MalformedMessageError, PreparedTransactionError):
        pass


@settings(max_examples=300)
@given(st.integers(0, 40), st.integers(25, 60), st.integers(0, 255))
def test_a_flipped_byte_is_read_or_our_error(index: int, at: int, byte: int) -> None:
    given = frames("rows")
    data = bytearray(given[index % len(given)])
    data[at % len(data)] = byte
    given[index % len(given)] = bytes(data)
    try:
        for told in Assembler().feed(given):
            if isinstance(told, Commit):
                assert isinstance(told.changes, LoggedChanges | tuple)
                assert len(list(told.changes)) == len(told.changes)
            else:
                assert told >= LSN(0)
    except (MalformedMessageError, PreparedTransactionError):
        pass
