"""A filter on changes, asked of Postgres: of many rows, as the log has them, those that pass.

Each value is compared as its column's type, by Postgres's own operator and under the column's
collation. Only types that are Postgres's own are compared, and enums; a domain as what it is made
of. So no code of the developer's runs here, whose role is another (a domain's check would).
"""

from collections.abc import Mapping, Sequence
from typing import Final

from msgspec import Struct
from psycopg import AsyncConnection, sql

from butterbase.ingest.changes import Relation
from butterbase.ingest.row_changes import Image
from butterbase.sql.change_filters import PATTERNS, SIGNS, Term

_WORDS: Final = {"null": "null", "true": "true", "false": "false", "unknown": "unknown"}
_ENUM: Final = "e"

# The types are those of the change, which the table's columns may not have any more; of the table
# itself only collations and the primary key are read. Zero rows: there is no such table any more.
_COLUMNS: Final = """
with recursive based (wanted, oid) as (
  select t.oid, t.oid from pg_type t where t.oid = any(%(types)s)
  union all
  select b.wanted, t.typbasetype from based b join pg_type t on t.oid = b.oid
  where t.typtype = 'd'
), types as (
  select b.wanted as oid, format_type(t.oid, -1) as sql_type, t.typtype as kind,
    t.typnamespace = 'pg_catalog'::regnamespace as is_own
  from based b join pg_type t on t.oid = b.oid
  where t.typtype <> 'd'
)
select c.name, t.sql_type, t.kind::text, t.is_own,
  case when a.attcollation not in (0, '"default"'::regcollation)
    then a.attcollation::regcollation::text end,
  coalesce(a.attnum = any (i.indkey), false)
from unnest(%(names)s::text[], %(types)s::oid[]) as c (name, type)
left join types t on t.oid = c.type
left join pg_attribute a on a.attrelid = %(table)s and a.attname = c.name and a.attnum > 0
left join pg_index i on i.indrelid = a.attrelid and i.indisprimary
"""


class UnfilterableError(ValueError):
    """The filter asks what cannot be asked of the table's columns; the message says why."""


class ColumnType(Struct, frozen=True):
    """What a column's text is compared as."""

    name: str
    sql_type: str | None
    """None: there is no such type any more."""
    kind: str | None
    is_own: bool | None
    """Whether the type is Postgres's."""
    collation: str | None
    is_primary: bool


async def read_columns(conn: AsyncConnection, relation: Relation) -> dict[str, ColumnType]:
    """The relation's columns by name."""
    values = {
        "names": [column.name for column in relation.columns],
        "types": [column.type_oid for column in relation.columns],
        "table": relation.oid,
    }
    cursor = await conn.execute(_COLUMNS, values)
    return {row[0]: ColumnType(*row) for row in await cursor.fetchall()}


async def passing(
    conn: AsyncConnection,
    terms: Sequence[Term],
    columns: Mapping[str, ColumnType],
    images: Sequence[Image],
) -> set[int]:
    """Places of the images that pass all terms; one that lacks a column of them does not.

    Raises UnfilterableError, and psycopg.Error where a value is none of the column's type.
    """
    names = list(dict.fromkeys(term.column for term in terms))
    asked = [place for place, image in enumerate(images) if all(name in image for name in names)]
    if not asked:
        return set()
    rows = sql.SQL(", ").join(sql.SQL("%s::text[]") for _ in (*names, "place"))
    places = {name: sql.Identifier("r", f"c{place}") for place, name in enumerate(names)}
    as_names = sql.SQL(", ").join(
        sql.Identifier(name) for name in (*(f"c{place}" for place in range(len(names))), "place")
    )
    conditions = [condition(term, columns, places[term.column]) for term in terms]
    query = sql.SQL("select r.place::int from unnest({}) as r ({}) where {}").format(
        rows, as_names, sql.SQL(" and ").join(conditions)
    )
    texts = [[images[place][name] for place in asked] for name in names]
    values = [value for term in terms for value in values_of(term)]
    cursor = await conn.execute(query, [*texts, [str(place) for place in asked], *values])
    return {place for (place,) in await cursor.fetchall()}


def values_of(term: Term) -> tuple[str, ...]:
    """For the placeholders of its condition."""
    return () if term.operator == "is" else term.values


def condition(
    term: Term, columns: Mapping[str, ColumnType], text: sql.Composable
) -> sql.Composable:
    """The term as SQL over the column's text. Raises UnfilterableError."""
    column = columns.get(term.column)
    if column is None:
        raise UnfilterableError(f"the table has no column {term.column}")
    left = _cast(text, column)
    match term.operator:
        case "is":
            held: sql.Composable = sql.SQL("{} is {}").format(left, sql.SQL(_WORDS[term.values[0]]))
        case "isdistinct":
            held = sql.SQL("{} is distinct from {}").format(left, _value(column))
        case "in":
            parts = [_compared(left, "=", _value(column)) for _ in term.values]
            held = sql.SQL(" or ").join(parts) if parts else sql.SQL("false")
        case operator if operator in PATTERNS:
            held = _compared(left, PATTERNS[operator], sql.SQL("%s::text"))
        case operator:
            held = _compared(left, SIGNS[operator], _value(column))
    return sql.SQL("(not ({}))" if term.is_negated else "({})").format(held)


def _compared(left: sql.Composable, sign: str, right: sql.Composable) -> sql.Composable:
    operator = sql.SQL(f"operator(pg_catalog.{sign})")
    return sql.SQL("({} {} {})").format(left, operator, right)


def _value(column: ColumnType) -> sql.Composable:
    return sql.SQL("%s::text::{}").format(_type(column))


def _cast(text: sql.Composable, column: ColumnType) -> sql.Composable:
    value = sql.SQL("{}::{}").format(text, _type(column))
    if column.collation is None:
        return value
    # As regcollation writes it: quoted where it must be.
    return sql.SQL("({} collate {})").format(value, _spelled(column.collation))


def _type(column: ColumnType) -> sql.SQL:
    if column.sql_type is None or not (column.is_own or column.kind == _ENUM):
        name = column.sql_type or "of a type that is gone"
        raise UnfilterableError(
            f"column {column.name} is {name}: filters compare columns of Postgres's own types"
        )
    return _spelled(column.sql_type)


def _spelled(name: str) -> sql.SQL:
    """A name as Postgres writes it, in a statement that has placeholders."""
    return sql.SQL(name.replace("%", "%%"))
