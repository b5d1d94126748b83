"""Marks: which rows of which versions are to be looked at again, because the log told of them.

A mark says that a row has changed and not how. Whoever works on it reads the row as it is by then.
So marks may come twice or out of order, and for rows that did not change at all.
"""

from collections.abc import Collection, Iterable, Sequence
from typing import Final

import msgspec
from psycopg import AsyncConnection, sql

from butterbase.ingest.changes import QualifiedName

Key = tuple[str, ...]
"""Values of the key columns in Postgres's text format."""

_RENEWED: Final = sql.SQL("""
  generation = nextval('ai.generations'), priority = 0, attempts = 0, retry_at = null,
  marked_at = case when index_rows.generation = index_rows.done_generation
    then clock_timestamp() else index_rows.marked_at end
""")

# In the order of the key, as everywhere: who locks rows in one order never waits in a circle.
_MARK_ROWS: Final = sql.SQL("""
insert into ai.index_rows as index_rows (version_id, key)
select v.id, k.key
from (
  select distinct array(select jsonb_array_elements_text(e)) as key
  from jsonb_array_elements(%(keys)s::jsonb) e
) k
join ai.index_versions v on v.index_id = %(index)s and v.state <> 'retired'
order by k.key, v.id
on conflict (key, version_id) do update set {renewed}
""").format(renewed=_RENEWED)
_MARK_DOCUMENTS: Final = sql.SQL("""
insert into ai.index_rows as index_rows (version_id, key, document_id)
select v.id, array[d.id], d.id::uuid
from (
  select distinct e ->> 0 as id, (e ->> 1)::uuid as collection_id
  from jsonb_array_elements(%(documents)s::jsonb) e
) d
join ai.indexes i on i.collection_id = d.collection_id and i.dropped_at is null
join ai.index_versions v on v.index_id = i.id and v.state <> 'retired'
order by array[d.id], v.id
on conflict (key, version_id) do update set {renewed}
""").format(renewed=_RENEWED)
_MARK_KNOWN_DOCUMENTS: Final = sql.SQL("""
with known as materialized (
  select key, version_id from ai.index_rows where document_id = any(%(documents)s::uuid[])
  order by key, version_id for update
)
update ai.index_rows set {renewed}
from known where index_rows.key = known.key and index_rows.version_id = known.version_id
""").format(renewed=_RENEWED)
_MARK_INDEX: Final = sql.SQL("""
update ai.index_rows set {renewed}
where version_id in (select id from ai.index_versions where index_id = any(%(indexes)s))
""").format(renewed=_RENEWED)
_MARK_ALL_DOCUMENTS: Final = sql.SQL("""
update ai.index_rows set {renewed} where document_id is not null
""").format(renewed=_RENEWED)
_SWEEP: Final = """
update ai.index_versions set swept_key = null, is_swept = false
where state <> 'retired' and (%(indexes)s::bigint[] is null or index_id = any(%(indexes)s))
"""
# By the texts: what is the same keeps its vectors.
_MARK_ALL: Final = """
update ai.index_rows
set generation = nextval('ai.generations'), priority = 1, attempts = 0, retry_at = null,
  source_hash = case when %(anew)s then null else source_hash end
"""
_SOURCES: Final = """
select i.id, n.nspname, c.relname, i.key_columns
from ai.indexes i
join pg_class c on c.oid = i.source
join pg_namespace n on n.oid = c.relnamespace
where i.dropped_at is null
"""


class Source(msgspec.Struct, frozen=True):
    """A table with an index over some of its columns."""

    index_id: int
    table: QualifiedName
    key_columns: Sequence[str]


async def read_sources(conn: AsyncConnection) -> list[Source]:
    rows = await (await conn.execute(_SOURCES)).fetchall()
    return [Source(id_, (schema, name), keys) for id_, schema, name, keys in rows]


async def mark_rows(conn: AsyncConnection, index_id: int, keys: Collection[Key]) -> None:
    values = {"index": index_id, "keys": msgspec.json.encode(list(keys)).decode()}
    await conn.execute(_MARK_ROWS, values)


async def mark_documents(conn: AsyncConnection, documents: Iterable[tuple[str, str]]) -> None:
    """Ids of documents and of their collections."""
    values = {"documents": msgspec.json.encode(list(documents)).decode()}
    await conn.execute(_MARK_DOCUMENTS, values)


async def mark_known_documents(conn: AsyncConnection, documents: Iterable[str]) -> None:
    """Those that are gone, of which no more than the id is known."""
    await conn.execute(_MARK_KNOWN_DOCUMENTS, {"documents": list(documents)})


async def mark_indexes(conn: AsyncConnection, indexes: Collection[int], *, sweep: bool) -> None:
    """All rows that are known; with `sweep` others are looked for as well."""
    values = {"indexes": list(indexes)}
    await conn.execute(_MARK_INDEX, values)
    if sweep:
        await conn.execute(_SWEEP, values)


async def mark_all_documents(conn: AsyncConnection) -> None:
    await conn.execute(_MARK_ALL_DOCUMENTS)


async def mark_all(conn: AsyncConnection, *, anew: bool) -> None:
    """Whatever is known, and look for what is not; `anew`: without trust in what is known."""
    await conn.execute(_MARK_ALL, {"anew": anew})
    await conn.execute(_SWEEP, {"indexes": None})
