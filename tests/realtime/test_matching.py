"""Changes against bindings, and changes as payloads."""

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
from butterbase.realtime.access import Access, AccessColumn
from butterbase.realtime.fanout import encode_data, encode_message, format_timestamp
from butterbase.realtime.matching import Binding, Filter, RowChange, image_of, matches
from butterbase.realtime.protocol import Version

AT = datetime(2026, 1, 2, 3, 4, 5, 678_999, tzinfo=UTC)
UNCHANGED = Toast.UNCHANGED
INT8, NUMERIC, TEXT, BPCHAR, FLOAT8 = 20, 1700, 25, 1042, 701


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


def matched(change: RowChange, **binding: Any) -> bool:
    wanted = {"id": 1, "event": "*", "schema": "public", "table": "items", **binding}
    return matches(Binding(**wanted), change, image_of(change))


@pytest.mark.parametrize(
    ("binding", "is_match"),
    [
        ({}, True),
        ({"event": "INSERT"}, True),
        ({"event": "UPDATE"}, False),
        ({"table": "*"}, True),
        ({"schema": "*", "table": "*"}, True),
        ({"table": "other"}, False),
        ({"schema": "other"}, False),
    ],
)
def test_event_and_table(binding: dict[str, Any], is_match: bool) -> None:
    assert matched(Insert(DEFAULT, ROW), **binding) is is_match


@pytest.mark.parametrize(
    ("column", "value", "is_match"),
    [
        ("id", "1", True),
        ("id", "01", False),
        ("price", "2.5", True),
        ("price", "2.5000", True),
        ("price", "2.51", False),
        ("price", "NaN", False),
        ("body", "text", True),
        ("body", "text ", False),
        ("gone", "1", False),
    ],
)
def test_filters_compare_values(column: str, value: str, is_match: bool) -> None:
    assert matched(Insert(DEFAULT, ROW), filter=Filter(column, value)) is is_match


@pytest.mark.parametrize(
    ("type_oid", "value", "wanted"),
    [(BPCHAR, "ab   ", "ab"), (FLOAT8, "-0", "0"), (NUMERIC, "NaN", "NaN")],
)
def test_equal_values_of_different_text_match(type_oid: int, value: str, wanted: str) -> None:
    columns = (Column("c", type_oid, -1, is_key=True),)
    change = Insert(Relation(1, "public", "items", ReplicaIdentity.DEFAULT, columns), (value,))
    assert matched(change, filter=Filter("c", wanted))


@pytest.mark.parametrize("value", ["", "null", "NULL"])
def test_null_equals_nothing(value: str) -> None:
    assert not matched(Insert(DEFAULT, ("1", None, None)), filter=Filter("body", value))


def test_a_delete_is_matched_on_what_the_log_keeps_of_it() -> None:
    by_body = Filter("body", "text")
    assert matched(Delete(FULL, ROW), filter=by_body)
    assert not matched(Delete(DEFAULT, ("1", None, None)), filter=by_body)
    assert matched(Delete(DEFAULT, ("1", None, None)), filter=Filter("id", "1"))


def test_an_unchanged_large_value_is_known_with_full_identity_only() -> None:
    new: Row = ("1", "3", UNCHANGED)
    assert image_of(Update(DEFAULT, new, None)) == {"id": "1", "price": "3"}
    assert image_of(Update(FULL, new, ROW)) == {"id": "1", "price": "3", "body": "text"}


def access(*, rls: bool = True, readable: tuple[str, ...] = ("id", "price", "body")) -> Access:
    columns = tuple(
        AccessColumn(name, type_, type_, name in readable, name == "id")
        for name, type_ in (("id", "int8"), ("price", "numeric"), ("body", "text"))
    )
    return Access("1", "public", "items", rls, columns, ())


def told(change: RowChange, reader: Access) -> tuple[Any, Any]:
    data = msgspec.json.decode(encode_data(change, AT, reader))
    return data.get("record"), data.get("old_record")


def test_a_record_has_the_readable_columns() -> None:
    data = msgspec.json.decode(encode_data(Insert(DEFAULT, ROW), AT, access(readable=("price",))))
    assert data == {
        "schema": "public",
        "table": "items",
        "commit_timestamp": "2026-01-02T03:04:05.678Z",
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
