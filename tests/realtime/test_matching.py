"""Bindings against tables, and the row that a change is about."""

import pytest

from butterbase.ingest.changes import (
    Column,
    Delete,
    Relation,
    ReplicaIdentity,
    Row,
    Toast,
    Update,
)
from butterbase.realtime.changes.matching import Binding, covers, image_of

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
ROW: Row = ("1", "2.50", "text")


@pytest.mark.parametrize(
    ("binding", "is_match"),
    [
        (("public", "items"), True),
        (("public", "*"), True),
        (("*", "*"), True),
        (("public", "other"), False),
        (("other", "items"), False),
    ],
)
def test_a_binding_covers_a_table_or_all(binding: tuple[str, str], is_match: bool) -> None:
    assert covers(Binding(1, "*", *binding), DEFAULT) is is_match


def test_an_image_has_what_the_log_keeps_of_a_deleted_row() -> None:
    assert image_of(Delete(FULL, ROW)) == {"id": "1", "price": "2.50", "body": "text"}
    assert image_of(Delete(DEFAULT, ("1", None, None))) == {"id": "1"}


def test_an_unchanged_large_value_is_known_with_full_identity_only() -> None:
    new: Row = ("1", "3", UNCHANGED)
    assert image_of(Update(DEFAULT, new, None)) == {"id": "1", "price": "3"}
    assert image_of(Update(FULL, new, ROW)) == {"id": "1", "price": "3", "body": "text"}
