"""Changes as payloads."""

from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest

from butterbase.ingest.changes import (
    Column,
    Delete,
    Insert,
    Relation,
    ReplicaIdentity,
    Row,
    Toast,
    Update,
)
from butterbase.realtime.changes.access import Access, AccessColumn
from butterbase.realtime.changes.fanout import Layout, encode_message, format_timestamp
from butterbase.realtime.changes.matching import RowChange, Select
from butterbase.realtime.session.protocol import Version

AT = datetime(2026, 1, 2, 3, 4, 5, 678_999, tzinfo=UTC)
UNCHANGED = Toast.UNCHANGED
INT8, NUMERIC, TEXT = 20, 1700, 25


def relation(identity: ReplicaIdentity = ReplicaIdentity.DEFAULT) -> Relation:
    is_full = identity is ReplicaIdentity.FULL
    columns = (
        Column("id", INT8, -1, is_key=True),
        Column("price", NUMERIC, -1, is_key=is_full),
        Column("body", TEXT, -1, is_key=is_full),
    )
    return Relation(1, "public", "items", identity, columns)


DEFAULT, FULL = relation(), relation(ReplicaIdentity.FULL)
BY_BODY = Relation(
    1,
    "public",
    "items",
    ReplicaIdentity.INDEX,
    (
        Column("id", INT8, -1, is_key=False),
        Column("price", NUMERIC, -1, is_key=False),
        Column("body", TEXT, -1, is_key=True),
    ),
)
ROW: Row = ("1", "2.50", "text")


def access(*, rls: bool = True, readable: tuple[str, ...] = ("id", "price", "body")) -> Access:
    columns = tuple(
        AccessColumn(name, type_, type_, name in readable, name == "id")
        for name, type_ in (("id", "int8"), ("price", "numeric"), ("body", "text"))
    )
    return Access("1", "public", "items", rls, columns, ())


def payload(
    change: RowChange, reader: Access, select: Select = None, *, bytes_max: int = 1024**2
) -> Any:
    layout = Layout(change.relation, reader, select, bytes_max=bytes_max)
    return msgspec.json.decode(layout.encode(change, format_timestamp(AT).encode(), b"0/1/1"))


def told(change: RowChange, reader: Access, select: Select = None) -> tuple[Any, Any]:
    data = payload(change, reader, select)
    return data.get("record"), data.get("old_record")


def test_a_record_has_the_readable_columns() -> None:
    assert payload(Insert(DEFAULT, ROW), access(readable=("price",))) == {
        "schema": "public",
        "table": "items",
        "commit_timestamp": "2026-01-02T03:04:05.678Z",
        "position": "0/1/1",
        "type": "INSERT",
        "columns": [{"name": "price", "type": "numeric"}],
        "record": {"price": 2.5},
        "errors": None,
    }


@pytest.mark.parametrize(
    ("change", "rls", "record", "old"),
    [
        (Update(DEFAULT, ("1", "3", UNCHANGED), None), True, {"id": 1, "price": 3}, {"id": 1}),
        (
            Update(DEFAULT, ("2", "3", "x"), ("1", None, None)),
            True,
            {"id": 2, "price": 3, "body": "x"},
            {"id": 1},
        ),
        (
            Update(FULL, ("1", "3", UNCHANGED), ROW),
            True,
            {"id": 1, "price": 3, "body": "text"},
            {"id": 1},
        ),
        (
            Update(FULL, ("1", "3", "x"), ROW),
            False,
            {"id": 1, "price": 3, "body": "x"},
            {"id": 1, "price": 2.5, "body": "text"},
        ),
        (Delete(DEFAULT, ("1", None, None)), False, None, {"id": 1}),
        (Delete(FULL, ROW), True, None, {"id": 1}),
        (Delete(FULL, ROW), False, None, {"id": 1, "price": 2.5, "body": "text"}),
        (
            Update(BY_BODY, ("1", "3", "x"), (None, None, "secret")),
            True,
            {"id": 1, "price": 3, "body": "x"},
            {},
        ),
        (
            Update(BY_BODY, ("1", "3", "x"), (None, None, "old")),
            False,
            {"id": 1, "price": 3, "body": "x"},
            {"body": "old"},
        ),
        (Update(BY_BODY, ("2", "3", "x"), None), True, {"id": 2, "price": 3, "body": "x"}, {}),
        (Delete(BY_BODY, (None, None, "secret")), True, None, {}),
        (Delete(BY_BODY, (None, None, "old")), False, None, {"body": "old"}),
    ],
)
def test_the_old_row_is_told_only_where_nobody_judges_it(
    change: RowChange, rls: bool, record: Any, old: Any
) -> None:
    assert told(change, access(rls=rls)) == (record, old)


def test_an_unreadable_key_is_not_told() -> None:
    assert told(Delete(DEFAULT, ("1", None, None)), access(readable=("body",))) == (None, {})


def test_a_timestamp_is_in_utc() -> None:
    at = datetime(2026, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=2)))
    assert format_timestamp(at) == "2025-12-31T23:00:00.000Z"


def test_a_message_of_version_2_has_no_references() -> None:
    frame = encode_message("realtime:t", (5,), b"{}", Version.V2)
    assert frame[2:] == b'[null,null,"realtime:t","postgres_changes",{"ids":[5],"data":{}}]'


@pytest.mark.parametrize(
    ("change", "record", "old"),
    [
        (Insert(DEFAULT, ROW), {"id": 1, "body": "text"}, None),
        (Update(DEFAULT, ("1", "3", "x"), None), {"id": 1, "body": "x"}, {"id": 1}),
        (Update(FULL, ("1", "3", "x"), ROW), {"id": 1, "body": "x"}, {"id": 1, "body": "text"}),
        (Delete(FULL, ROW), None, {"id": 1, "body": "text"}),
        (Delete(DEFAULT, ("1", None, None)), None, {"id": 1}),
    ],
)
def test_a_choice_of_columns_is_told_with_the_primary_key(
    change: RowChange, record: Any, old: Any
) -> None:
    reader = access(rls=False)
    assert told(change, reader, ("body",)) == (record, old)
    names = [column["name"] for column in payload(change, reader, ("body",))["columns"]]
    assert names == ["id", "body"]


def test_a_chosen_column_that_may_no_longer_be_read_is_not_told() -> None:
    reader = access(readable=("id", "price"))
    assert told(Insert(DEFAULT, ROW), reader, ("body", "price")) == ({"id": 1, "price": 2.5}, None)


LONG = "x" * 63  # 65 bytes with its quotes
SHORT = "x" * 62


def test_of_a_change_that_is_too_large_only_short_values_and_the_key_are_told() -> None:
    change = Update(FULL, ("1", "3", LONG), ("1", "2.50", SHORT))
    whole = payload(change, access(rls=False))
    assert (whole["record"]["body"], whole["errors"]) == (LONG, None)
    cut = payload(change, access(rls=False), bytes_max=100)
    assert cut == whole | {
        "record": {"id": 1, "price": 3},
        "old_record": {"id": 1, "price": 2.5, "body": SHORT},
        "errors": ["Error 413: Payload Too Large"],
    }


def test_a_long_key_is_told_all_the_same() -> None:
    columns = (Column("id", TEXT, -1, is_key=True), Column("body", TEXT, -1, is_key=False))
    keyed = Relation(1, "public", "items", ReplicaIdentity.DEFAULT, columns)
    cut = payload(Insert(keyed, (LONG, LONG)), access(), bytes_max=100)
    assert cut["record"] == {"id": LONG}


def test_the_limit_is_for_what_is_told() -> None:
    data = payload(Insert(DEFAULT, ("1", "2.50", "x" * 1000)), access(), ("price",), bytes_max=1000)
    assert (data["record"], data["errors"]) == ({"id": 1, "price": 2.5}, None)
