"""A change as functions are told it: `{type, schema, table, record, old_record, commit_timestamp,
position}`.

`record` is the new row, and null of a delete; `old_record` is what the log has of the row before,
which is the primary key unless the table's replica identity is full, and null of an insert. Values
are as `to_json` writes them, and what the log does not carry is left out.
"""

from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Final

import msgspec
from psycopg import AsyncConnection

from butterbase.ingest.changes import (
    Delete,
    Insert,
    QualifiedName,
    Relation,
    ReplicaIdentity,
    Row,
    Toast,
    Update,
)
from butterbase.ingest.row_changes import (
    RowChange,
    current_row,
    event_of,
    format_timestamp,
    image_of,
)
from butterbase.ingest.values import RowEncoder, Type, Types, types_query

TOLD: Final[dict[QualifiedName, frozenset[str]]] = {
    ("auth", "users"): frozenset(
        {
            "id", "aud", "role", "email", "email_confirmed_at", "invited_at", "phone",
            "phone_confirmed_at", "confirmed_at", "last_sign_in_at", "raw_app_meta_data",
            "raw_user_meta_data", "banned_until", "is_anonymous", "created_at", "updated_at",
            "deleted_at",
        }
    ),
}  # fmt: skip
"""Of our own tables, what is no secret: no hash of a password is put anywhere else."""

_TYPES: Final = f"select ({types_query('%s::oid[]')})::text"
_TYPE_LIST: Final = msgspec.json.Decoder(list[Type])
_encode = msgspec.json.Encoder().encode


class Layout:
    """What changes of one table look like to one trigger."""

    def __init__(self, relation: Relation, types: Types, columns: Collection[str] | None) -> None:
        told = TOLD.get(relation.qualified_name)
        shown = [
            (place, column)
            for place, column in enumerate(relation.columns)
            if (told is None or column.name in told)
            and (columns is None or column.name in columns or column.is_key)
        ]
        is_whole = relation.replica_identity is ReplicaIdentity.FULL
        self._record = RowEncoder(types, shown)
        self._old = RowEncoder(types, [one for one in shown if is_whole or one[1].is_key])
        self._head = b'"schema":%b,"table":%b' % (_encode(relation.schema), _encode(relation.name))

    def encode(self, change: RowChange, *, at: datetime, position: str) -> bytes:
        """As JSON. Raises MalformedMessageError."""
        record = old = b"null"
        match change:
            case Insert(new=new):
                record = self._record.encode(new)
            case Update():
                record = self._record.encode(current_row(change))
                old = self._old.encode(old_row(change))
            case Delete(old=row):
                old = self._old.encode(row)
        return (
            b'{"type":"%b",%b,"record":%b,"old_record":%b,"commit_timestamp":"%b","position":"%b"}'
            % (
                event_of(change).encode(),
                self._head,
                record,
                old,
                format_timestamp(at).encode(),
                position.encode(),
            )
        )


class EventWriter:
    """Makes layouts, and keeps what it knows of types until it is told that there was DDL."""

    def __init__(self) -> None:
        self._layouts: dict[tuple[Relation, tuple[str, ...] | None], Layout] = {}

    def forget(self) -> None:
        self._layouts.clear()

    async def layout(
        self, conn: AsyncConnection, relation: Relation, columns: tuple[str, ...] | None
    ) -> Layout:
        layout = self._layouts.get((relation, columns))
        if layout is None:
            oids = [column.type_oid for column in relation.columns]
            row = await (await conn.execute(_TYPES.encode(), [oids])).fetchone()
            assert row is not None
            layout = Layout(relation, Types(_TYPE_LIST.decode(row[0])), columns)
            self._layouts[relation, columns] = layout
        return layout


def old_row(change: Update) -> Row:
    """None was told where the replica identity did not change."""
    return change.new if change.old is None else change.old


def touches(change: RowChange, columns: Collection[str] | None) -> bool:
    """False for an update that is known to leave the columns as they were."""
    if columns is None or not isinstance(change, Update):
        return True
    if change.relation.replica_identity is not ReplicaIdentity.FULL or change.old is None:
        return True
    return any(
        new is not Toast.UNCHANGED and new != old
        for column, new, old in zip(change.relation.columns, change.new, change.old, strict=True)
        if column.name in columns
    )


def ordering_key(change: RowChange, primary: Sequence[str]) -> str:
    """Equal for changes of the same row; of a table without a primary key all have one."""
    image = image_of(change)
    return _encode([image.get(name) for name in primary]).decode()
