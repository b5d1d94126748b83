"""Queries as values, and their SQL text: the one place where SQL is made from input.

A query holds names and the *shape* of its filters; values travel beside it as parameters. Equal
queries have equal text, which is rendered once and prepared once a connection.
"""

from functools import lru_cache
from typing import LiteralString, TypeAlias

from msgspec import Struct
from psycopg.sql import SQL, Composable, Composed, Identifier

Table: TypeAlias = tuple[str, str]
"""Schema and name."""

Columns: TypeAlias = tuple[str, ...]
"""Column names to answer with; empty means all."""


class Order(Struct, frozen=True):
    column: str
    is_descending: bool = False


class Select(Struct, frozen=True, tag=True):
    """Parameters: the filters' values, limit, offset (NULL for none)."""

    table: Table
    columns: Columns = ()
    equals: Columns = ()
    order: tuple[Order, ...] = ()

    @property
    def name_count(self) -> int:
        return len(self.columns) + len(self.equals) + len(self.order)


class Insert(Struct, frozen=True, tag=True):
    """Parameters: the rows as a JSON array of objects with exactly `values` as keys."""

    table: Table
    values: Columns
    returning: Columns | None = None
    """None answers nothing, empty answers all columns."""

    @property
    def name_count(self) -> int:
        return len(self.values) + len(self.returning or ())


class Update(Struct, frozen=True, tag=True):
    """Parameters: the new values as a JSON object with exactly `values` as keys, the filters'."""

    table: Table
    values: Columns
    equals: Columns = ()
    returning: Columns | None = None

    @property
    def name_count(self) -> int:
        return len(self.values) + len(self.equals) + len(self.returning or ())


class Delete(Struct, frozen=True, tag=True):
    """Parameters: the filters' values."""

    table: Table
    equals: Columns = ()
    returning: Columns | None = None

    @property
    def name_count(self) -> int:
        return len(self.equals) + len(self.returning or ())


Query: TypeAlias = Select | Insert | Update | Delete


NAME_COUNT_KEPT = 64
"""A query that names more columns is rendered anew each time, so that the cache stays small."""


def render(query: Query) -> bytes:
    """The query's text. One row comes back: the JSON array of rows as text, if any are asked for.

    With `returning` None a statement answers no row; its command tag tells how many it changed.
    """
    return (_render_kept if query.name_count <= NAME_COUNT_KEPT else _render)(query)


def _render(query: Query) -> bytes:
    match query:
        case Select():
            composed = _select(query)
        case Insert():
            composed = _answer(_insert(query), query.table, query.returning)
        case Update():
            composed = _answer(_update(query), query.table, query.returning)
        case Delete():
            composed = _answer(_delete(query), query.table, query.returning)
    return composed.as_bytes(None)


_render_kept = lru_cache(maxsize=2048)(_render)


# `r.*`, since `r` alone would be a column of that name.
_ROWS = SQL("select coalesce(json_agg(r.*), '[]')::text from ")


def _select(query: Select) -> Composed:
    table = Identifier(*query.table)
    count = len(query.equals)
    order: Composable = SQL("")
    if query.order:
        keys = [
            SQL("{} desc" if o.is_descending else "{} asc").format(Identifier(o.column))
            for o in query.order
        ]
        order = SQL(" order by {}").format(SQL(", ").join(keys))
    rows = SQL("select {columns} from {table}{where}{order} limit {limit} offset {offset}").format(
        columns=_columns(table, query.columns),
        table=table,
        where=_where(table, query.equals, first=1),
        order=order,
        limit=_parameter(count + 1, "bigint"),
        offset=_parameter(count + 2, "bigint"),
    )
    return _ROWS + SQL("({}) r").format(rows)


def _insert(query: Insert) -> Composed:
    table = Identifier(*query.table)
    if not query.values:
        return SQL("insert into {} default values").format(table)
    return SQL(
        "insert into {table} ({names}) "
        "select {names} from json_populate_recordset(null::{table}, {rows})"
    ).format(table=table, names=_names(query.values), rows=_parameter(1, "json"))


def _update(query: Update) -> Composed:
    table = Identifier(*query.table)
    new = SQL(", ").join(
        SQL("{0} = butterbase_new.{0}").format(Identifier(column)) for column in query.values
    )
    return SQL(
        "update {table} set {new} "
        "from json_populate_record(null::{table}, {row}) butterbase_new{where}"
    ).format(
        table=table,
        new=new,
        row=_parameter(1, "json"),
        where=_where(table, query.equals, first=2),
    )


def _delete(query: Delete) -> Composed:
    table = Identifier(*query.table)
    return SQL("delete from {}{}").format(table, _where(table, query.equals, first=1))


def _answer(change: Composed, table: Table, returning: Columns | None) -> Composed:
    if returning is None:
        return change
    columns = _columns(Identifier(*table), returning)
    return SQL("with r as ({} returning {}) ").format(change, columns) + _ROWS + SQL("r")


def _columns(table: Identifier, columns: Columns) -> Composable:
    # Qualified, since the row of new values stands beside the table in an update.
    if not columns:
        return SQL("{}.*").format(table)
    return SQL(", ").join(SQL("{}.{}").format(table, Identifier(column)) for column in columns)


def _names(columns: Columns) -> Composable:
    return SQL(", ").join(map(Identifier, columns))


def _where(table: Identifier, columns: Columns, *, first: int) -> Composable:
    if not columns:
        return SQL("")
    conditions = [
        SQL("{}.{} = {}").format(table, Identifier(column), _parameter(first + ordinal))
        for ordinal, column in enumerate(columns)
    ]
    return SQL(" where {}").format(SQL(" and ").join(conditions))


def _parameter(ordinal: int, type_name: LiteralString = "") -> Composable:
    """`$n`, typed by its place or, where that says nothing, by a cast."""
    number = SQL(f"${ordinal:d}")
    return number + SQL("::") + SQL(type_name) if type_name else number
