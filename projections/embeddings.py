"""Projection `embeddings`: documents → chunks. Vectors are filled in beside it.

The projection itself only cuts text, in a thread, which cannot fail; what can be slow or away, the
model, works on the rows without a vector (projections/vectors.py). A chunk whose text is the same
as before keeps its vector.
"""

import asyncio
from collections.abc import Sequence
from typing import LiteralString
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, sql

from butterbase.ingest.changes import (
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Relation,
    Row,
    Toast,
    Truncate,
    Update,
)
from butterbase.projections.chunking import Chunk, chunk, content_hash

DOCUMENTS = ("ai", "documents")

WRITE_COUNT_MAX = 1_000
"""Chunks of one statement."""
READ_COUNT_MAX = 1_000
"""Documents that are listed at once when all are gone through."""

_FORGET = "delete from ai.chunks where document_id = %(document)s"
_FORGET_INDEX = "delete from ai.document_index where document_id = %(document)s"
_FORGET_ALL = "truncate ai.chunks, ai.document_index"

# The old chunks step aside, below zero, while the new ones take over their vectors.
_STEP_ASIDE = "update ai.chunks set ordinal = -1 - ordinal where document_id = %(document)s"
_WRITE = """
insert into ai.chunks
  (document_id, ordinal, content, heading, start_offset, end_offset, content_hash, model, embedding)
select %(document)s, n.ordinal, n.content, n.heading, n.start_offset, n.end_offset, n.content_hash,
  o.model, o.embedding
from unnest(
  %(ordinals)s::int[], %(contents)s::text[], %(headings)s::text[],
  %(starts)s::int[], %(ends)s::int[], %(hashes)s::text[]
) as n (ordinal, content, heading, start_offset, end_offset, content_hash)
left join (
  select content_hash, min(ordinal) as ordinal from ai.chunks
  where document_id = %(document)s and ordinal < 0 and embedding is not null
  group by content_hash
) kept using (content_hash)
left join ai.chunks o on o.document_id = %(document)s and o.ordinal = kept.ordinal
"""
_DROP_OLD = "delete from ai.chunks where document_id = %(document)s and ordinal < 0"
_STORED = """
select ordinal, start_offset, end_offset, content_hash from ai.chunks
where document_id = %s order by ordinal
"""
_FORGET_GONE = """
delete from {table} where not exists (select from ai.documents where id = document_id)
"""
# A part after the other, in the order of the ids.
_ALL = """
select id, version from ai.documents
where %(after)s::uuid is null or id > %(after)s order by id limit %(count)s
"""
# A document of that id may have been deleted and made again.
_STALE = """
select d.id, d.version from ai.documents d left join ai.document_index i on i.document_id = d.id
where (%(after)s::uuid is null or d.id > %(after)s)
  and (i.version is distinct from d.version or i.indexed_at <= d.created_at)
order by d.id limit %(count)s
"""
_WRITE_INDEX = """
insert into ai.document_index (document_id, version, chunk_count)
values (%(document)s, %(version)s, %(count)s)
on conflict (document_id) do update
set version = excluded.version, chunk_count = excluded.chunk_count, indexed_at = now()
"""


class _Document(Struct, frozen=True):
    id: UUID
    version: int
    content: str | None
    """None: an update that did not touch it."""


class Embeddings:
    """See projections/projection.py."""

    name = "embeddings"
    tables = (("ai", "chunks"), ("ai", "document_index"))

    def wants(self, commit: Commit) -> bool:
        return any(commit.changes_of(DOCUMENTS))

    async def apply(self, conn: AsyncConnection, commits: Sequence[Commit]) -> None:
        for commit in commits:
            for change in commit.changes_of(DOCUMENTS):
                match change:
                    case Insert(relation, new) | Update(relation, new, _):
                        await _index(conn, _document(relation, new))
                    case Delete(relation, old):
                        await _forget(conn, _id(relation, old))
                    case Truncate():
                        await conn.execute(_FORGET_ALL)
                    case LogicalMessage():
                        pass

    async def resync(self, conn: AsyncConnection) -> None:
        """By the documents' versions."""
        await _index_all(conn, _STALE)

    async def rebuild(self, conn: AsyncConnection) -> None:
        """By their texts. Where the chunks are as before, they stay, with their vectors."""
        await _index_all(conn, _ALL)


async def _index_all(conn: AsyncConnection, which: LiteralString) -> None:
    for table in (sql.Identifier("ai", "chunks"), sql.Identifier("ai", "document_index")):
        await conn.execute(sql.SQL(_FORGET_GONE).format(table=table))
    after: UUID | None = None
    while True:
        cursor = await conn.execute(which, {"after": after, "count": READ_COUNT_MAX})
        found = await cursor.fetchall()
        if not found:
            return
        for id_, version in found:
            # One text at a time: each may have megabytes.
            cursor = await conn.execute("select content from ai.documents where id = %s", [id_])
            row = await cursor.fetchone()
            assert row is not None, "all is read of one snapshot"
            await _index(conn, _Document(id_, version, row[0]), is_kept_if_equal=True)
        after = found[-1][0]


async def _index(
    conn: AsyncConnection, document: _Document, *, is_kept_if_equal: bool = False
) -> None:
    if document.content is not None:
        # In a thread, and written in parts: the largest texts take seconds to cut and would hold
        # up all else in this loop.
        chunks = await asyncio.to_thread(chunk, document.content)
        if not (is_kept_if_equal and await _are_stored(conn, document.id, chunks)):
            await _write_chunks(conn, document.id, chunks)
    cursor = await conn.execute(
        "select count(*) from ai.chunks where document_id = %s", [document.id]
    )
    row = await cursor.fetchone()
    assert row is not None
    values = {"document": document.id, "version": document.version, "count": row[0]}
    await conn.execute(_WRITE_INDEX, values)


async def _are_stored(conn: AsyncConnection, document: UUID, chunks: Sequence[Chunk]) -> bool:
    stored = await (await conn.execute(_STORED, [document])).fetchall()
    return stored == [(c.ordinal, c.start, c.end, content_hash(c)) for c in chunks]


async def _write_chunks(conn: AsyncConnection, document: UUID, chunks: Sequence[Chunk]) -> None:
    await conn.execute(_STEP_ASIDE, {"document": document})
    for first in range(0, len(chunks), WRITE_COUNT_MAX):
        part = chunks[first : first + WRITE_COUNT_MAX]
        await conn.execute(_WRITE, {"document": document, **_columns(part)})
    await conn.execute(_DROP_OLD, {"document": document})


def _columns(chunks: Sequence[Chunk]) -> dict[str, list[int] | list[str]]:
    return {
        "ordinals": [c.ordinal for c in chunks],
        "contents": [c.text for c in chunks],
        "headings": [c.heading for c in chunks],
        "starts": [c.start for c in chunks],
        "ends": [c.end for c in chunks],
        "hashes": [content_hash(c) for c in chunks],
    }


async def _forget(conn: AsyncConnection, document: UUID) -> None:
    for statement in (_FORGET, _FORGET_INDEX):
        await conn.execute(statement, {"document": document})


def _document(relation: Relation, row: Row) -> _Document:
    values = {column.name: value for column, value in relation.pairs(row)}
    content = values["content"]
    return _Document(
        id=_id(relation, row),
        version=int(str(values["version"])),
        content=None if content is Toast.UNCHANGED else str(content),
    )


def _id(relation: Relation, row: Row) -> UUID:
    return next(UUID(str(v)) for column, v in relation.pairs(row) if column.name == "id")
