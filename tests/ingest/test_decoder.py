"""pgoutput's bytes, as captured from Postgres 18, and everything that they are not."""

import typing
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from butterbase.ingest.changes import Column, ReplicaIdentity, Toast
from butterbase.ingest.errors import MalformedMessageError
from butterbase.ingest.lsn import LSN
from butterbase.ingest.pgoutput import messages as m
from butterbase.ingest.pgoutput.decoder import decode
from tests.ingest import captured

EVERY = [pair for name in captured.NAMES for pair in captured.payloads(name)]


def of(name: str, *kinds: type) -> list[m.Message]:
    return [message for message in captured.messages(name) if isinstance(message, kinds)]


def test_every_kind_of_message_is_captured() -> None:
    kinds = {type(message) for name in captured.NAMES for message in captured.messages(name)}
    assert kinds == set(typing.get_args(m.Message))


def test_row_changes_are_decoded_in_order() -> None:
    changes = of("rows", m.Insert, m.Update, m.Delete, m.Truncate)
    notes, logs, pairs = [r.oid for r in of("rows", m.Relation)[:3] if isinstance(r, m.Relation)]
    assert changes == [
        m.Insert(None, notes, ("1", "grüße", "happy")),
        m.Insert(None, notes, ("2", None, None)),
        m.Update(None, notes, None, ("1", "grüße", "sad")),
        m.Update(None, notes, ("2", None, None), ("3", None, None)),
        m.Insert(None, notes, ("4", "x" * 3000, None)),
        m.Update(None, notes, None, ("4", Toast.UNCHANGED, "happy")),
        m.Delete(None, notes, ("1", None, None)),
        m.Insert(None, logs, ("1", "one")),
        m.Update(None, logs, ("1", "one"), ("1", "two")),
        m.Delete(None, logs, ("1", "two")),
        m.Insert(None, pairs, ("1", "2", "c")),
        m.Update(None, pairs, ("1", "2", None), ("1", "3", "c")),
        m.Insert(None, notes, ("5", "", None, "7")),
        m.Truncate(None, True, True, (notes, logs)),
    ]


def test_a_relation_tells_its_columns_and_what_identifies_a_row() -> None:
    relations = [r for r in of("rows", m.Relation) if isinstance(r, m.Relation)]
    (mood,) = {t.oid for t in of("rows", m.Type) if isinstance(t, m.Type)}
    notes, logs, pairs, altered = relations[:4]
    assert (notes.schema, notes.name) == ("public", "notes")
    assert notes.columns == (
        Column("id", 23, -1, is_key=True),
        Column("body", 25, -1, is_key=False),
        Column("mood", mood, -1, is_key=False),
    )
    assert altered == m.Relation(
        None,
        notes.oid,
        "public",
        "notes",
        ReplicaIdentity.DEFAULT,
        (*notes.columns, Column("extra", 23, -1, is_key=False)),
    )
    assert logs.replica_identity is ReplicaIdentity.FULL
    assert pairs.replica_identity is ReplicaIdentity.INDEX
    assert [column.is_key for column in pairs.columns] == [True, True, False]


def test_begin_and_commit_agree() -> None:
    begin, *_, commit = captured.messages("rows")[:6]
    assert isinstance(begin, m.Begin)
    assert isinstance(commit, m.Commit)
    assert begin.final_lsn == commit.commit_lsn < commit.end_lsn
    assert begin.at == commit.at
    assert begin.at.tzinfo is UTC


def test_a_logical_message_and_an_origin_are_decoded() -> None:
    first, aside = of("messages", m.LogicalMessage)
    assert isinstance(first, m.LogicalMessage)
    assert isinstance(aside, m.LogicalMessage)
    assert (first.is_transactional, first.prefix, first.content) == (True, "prefix", b"content")
    assert (aside.is_transactional, aside.prefix, aside.content) == (False, "aside", b"at once")
    assert of("messages", m.Origin) == [m.Origin(LSN(0xABCDEF), "elsewhere")]
    elsewhere = of("messages", m.Commit)[-1]
    assert isinstance(elsewhere, m.Commit)
    assert elsewhere.at == datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)


def test_streamed_changes_name_their_transaction() -> None:
    _, first, second, abort, *_ = captured.contents("streamed")
    assert isinstance(first, m.Insert)
    assert isinstance(second, m.Insert)
    assert isinstance(abort, m.StreamAbort)
    assert (first.xid, second.xid) == (abort.xid, abort.subtransaction_xid)
    assert abort.lsn is not None
    assert [s.is_first_segment for s in of("streamed", m.StreamStart)[:2]] == [True, False]  # type: ignore[union-attr]  # of() gives only those
    commit = captured.contents("streamed")[-1]
    assert isinstance(commit, m.StreamCommit)
    assert commit.xid == first.xid


def test_a_serially_streamed_abort_has_no_position() -> None:
    (abort,) = of("streamed_serially", m.StreamAbort)
    assert isinstance(abort, m.StreamAbort)
    assert (abort.lsn, abort.at) == (None, None)


def test_prepared_transactions_carry_their_global_id() -> None:
    prepared = of("prepared", m.BeginPrepare, m.Prepare, m.CommitPrepared, m.RollbackPrepared)
    assert [(type(p), p.gid) for p in prepared] == [  # type: ignore[union-attr]  # all have one
        (m.BeginPrepare, "one"),
        (m.Prepare, "one"),
        (m.CommitPrepared, "one"),
        (m.BeginPrepare, "two"),
        (m.Prepare, "two"),
        (m.RollbackPrepared, "two"),
    ]
    begin, prepare, commit = prepared[:3]
    assert isinstance(begin, m.BeginPrepare)
    assert isinstance(prepare, m.Prepare)
    assert isinstance(commit, m.CommitPrepared)
    assert (begin.prepare_lsn, begin.end_lsn) == (prepare.prepare_lsn, prepare.end_lsn)
    assert begin.xid == prepare.xid == commit.xid
    rollback = prepared[-1]
    assert isinstance(rollback, m.RollbackPrepared)
    assert rollback.prepared_at < rollback.at


def test_every_truncation_of_a_message_is_malformed() -> None:
    for payload, streaming in EVERY:
        for length in range(len(payload)):
            # Without parallel streaming an abort ends after its two xids.
            if payload[:1] == b"A" and length == 9:
                continue
            with pytest.raises(MalformedMessageError):
                decode(payload[:length], streaming=streaming)


def test_a_message_with_bytes_behind_it_is_malformed() -> None:
    for payload, streaming in EVERY:
        with pytest.raises(MalformedMessageError):
            decode(payload + b"\0", streaming=streaming)


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        (b"", "empty"),
        (b"?", "unknown kind of message '\\?'"),
        (b"I\0\0\0\1N\0\1b\0\0\0\1x", "binary"),
        (b"I\0\0\0\1N\0\1x", "unknown kind of column 'x'"),
        (b"I\0\0\0\1K\0\0", "unexpected part 'K'"),
        (b"D\0\0\0\1N\0\0", "unexpected part 'N'"),
        (b"I\0\0\0\1N\0\1t\0\0\0\1\xff", "utf-8"),
        (b"I\0\0\0\1N\0\1t\xff\xff\xff\xffx", "bytes missing"),
        (b"I\0\0\0\1N\xff\xff", "out of range"),
        (b"T\xff\xff\xff\xff\0", "another length"),
        (b"R\0\0\0\1public\0t\0z\0\0", "not a valid ReplicaIdentity"),
        (b"B" + b"\x7f" * 20, "(out of range|too large)"),
    ],
)
def test_the_fault_is_named(payload: bytes, reason: str) -> None:
    with pytest.raises(MalformedMessageError, match=reason):
        decode(payload)


def decodes_or_refuses(payload: bytes, streaming: bool) -> None:
    try:
        message = decode(payload, streaming=streaming)
    except MalformedMessageError:
        return
    assert isinstance(message, typing.get_args(m.Message))


@given(st.sampled_from(sorted({payload[:1] for payload, _ in EVERY})), st.binary(), st.booleans())
def test_any_bytes_decode_or_are_malformed(kind: bytes, rest: bytes, streaming: bool) -> None:
    decodes_or_refuses(rest, streaming)
    decodes_or_refuses(kind + rest, streaming)


@given(st.sampled_from(EVERY), st.data())
def test_any_mutation_decodes_or_is_malformed(
    original: tuple[bytes, bool], data: st.DataObject
) -> None:
    payload, streaming = original
    start = data.draw(st.integers(0, len(payload)))
    end = data.draw(st.integers(start, min(len(payload), start + 8)))
    patch = data.draw(st.binary(max_size=8))
    decodes_or_refuses(payload[:start] + patch + payload[end:], streaming)
