import pytest

from butterbase.ingest.assembler import Assembler
from butterbase.ingest.changes import (
    Change,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Toast,
    Truncate,
    Update,
)
from butterbase.ingest.errors import (
    PreparedTransactionError,
    StreamedTransactionError,
    UnexpectedMessageError,
)
from butterbase.ingest.pgoutput import messages as m
from tests.ingest import captured


def assemble(messages: list[m.Message]) -> list[Commit]:
    assembler = Assembler()
    return [commit for message in messages if (commit := assembler.feed(message)) is not None]


def changes(name: str) -> list[Change]:
    return [change for commit in assemble(captured.messages(name)) for change in commit.changes]


def first_transaction() -> list[m.Message]:
    """begin, type, relation, two inserts, commit"""
    return captured.messages("rows")[:6]


def test_a_commit_comes_with_its_last_message() -> None:
    *before, last = first_transaction()
    begin = before[0]
    assert isinstance(begin, m.Begin)
    assert isinstance(last, m.Commit)
    assembler = Assembler()
    assert [(assembler.feed(message), assembler.in_transaction) for message in before] == [
        (None, True)
    ] * 5
    commit = assembler.feed(last)
    assert not assembler.in_transaction
    assert commit is not None
    assert (commit.lsn, commit.at, commit.xid) == (last.end_lsn, last.at, begin.xid)
    assert len(commit.changes) == 2


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
    begin, _, relation, *_, commit = first_transaction()
    assert isinstance(relation, m.Relation)
    new = (Toast.UNCHANGED, Toast.UNCHANGED, "happy")
    update = m.Update(None, relation.oid, ("large key", None, None), new)
    (assembled,) = assemble([begin, relation, update, commit])
    (change,) = assembled.changes
    assert isinstance(change, Update)
    assert change.new == ("large key", Toast.UNCHANGED, "happy")


@pytest.mark.parametrize("name", ["streamed", "streamed_serially", "streamed_prepared"])
def test_a_transaction_in_progress_is_refused(name: str) -> None:
    with pytest.raises(StreamedTransactionError, match="StreamStart"):
        assemble(captured.messages(name))


def test_a_prepared_transaction_is_refused() -> None:
    for message in captured.messages("prepared"):
        if not isinstance(message, m.Relation | m.Insert):
            with pytest.raises(PreparedTransactionError, match=type(message).__name__):
                assemble([message])


@pytest.mark.parametrize(
    ("order", "reason"),
    [
        ([0, 0], "begins inside another"),
        ([5], "did not begin"),
        ([2, 3], "outside of a transaction"),
        ([0, 3], "not described"),
    ],
)
def test_a_message_out_of_place_is_refused(order: list[int], reason: str) -> None:
    messages = first_transaction()
    with pytest.raises(UnexpectedMessageError, match=reason):
        assemble([messages[index] for index in order])


def test_the_commit_of_another_transaction_is_refused() -> None:
    messages = captured.messages("rows")
    other = next(message for message in reversed(messages) if isinstance(message, m.Commit))
    with pytest.raises(UnexpectedMessageError, match="did not begin"):
        assemble([messages[0], other])


def test_a_row_of_another_width_is_refused() -> None:
    begin, _, relation, *_ = first_transaction()
    assert isinstance(relation, m.Relation)
    with pytest.raises(UnexpectedMessageError, match="has 3 columns, a row of it 1"):
        assemble([begin, relation, m.Insert(None, relation.oid, ("1",))])
