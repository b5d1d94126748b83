"""Publishes rows: the passages of their new states replace those of the old, in one transaction.

So a reader sees a row's passages of one state, all of them and all with vectors, or none. What was
published by somebody else meanwhile, of a state that is as new or newer, stays.
"""

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Final, LiteralString, TypeAlias

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct
from psycopg import AsyncConnection, sql

from butterbase.projections.embedder import EmbeddingModel
from butterbase.projections.indexes.marks import Key
from butterbase.projections.indexes.passages import Difference, Stored
from butterbase.projections.indexes.versions import Version

Vector: TypeAlias = npt.NDArray[np.float32]

# Versions before rows, and rows by their keys: nobody waits in a circle.
_LOCK_VERSIONS: Final = """
select id from ai.index_versions where id = any(%(versions)s) and state <> 'retired'
order by id for no key update
"""
_LOCK_ROWS: Final = """
select r.version_id, r.key, r.done_generation, r.passage_count
from jsonb_array_elements(%(rows)s::jsonb) e
join ai.index_rows r
  on r.key = array(select jsonb_array_elements_text(e -> 1)) and r.version_id = (e ->> 0)::bigint
where r.version_id = any(%(versions)s)
order by r.key, r.version_id for update of r
"""
_PUBLISHED: Final = """
select field, ordinal, content_hash, start_offset, end_offset, page from {table} where {of_key}
"""
_STAGED: Final = """
select content_hash from ai.staged_vectors where version_id = %(version)s and key = %(key)s
"""
_STAGE: Final = """
insert into ai.staged_vectors (version_id, key, content_hash, embedding)
values (%(version)s, %(key)s, %(hash)s, %(embedding)s)
on conflict do nothing
"""
_PROGRESS: Final = """
update ai.index_rows
set passages_total = %(total)s, passages_embedded = %(embedded)s
where version_id = %(version)s and key = %(key)s and generation <> done_generation
"""
_UNSTAGE: Final = """
delete from ai.staged_vectors where version_id = %(version)s and key = %(key)s
returning content_hash, embedding
"""
_REMOVE: Final = """
delete from {table} where {of_key} and not ((field, ordinal) in (
  select e ->> 0, (e ->> 1)::int from jsonb_array_elements(%(places)s::jsonb) e))
returning content_hash, embedding, tokens
"""
_VECTORS: Final = """
select content_hash, embedding from {table} where {of_key} and content_hash = any(%(hashes)s)
"""
_MOVE: Final = """
update {table} set start_offset = %(start)s, end_offset = %(end)s, page = %(page)s
where {of_key} and field = %(field)s and ordinal = %(ordinal)s
"""
_RELABEL: Final = """
update {table} set metadata = %(metadata)s
where {of_key} and metadata is distinct from %(metadata)s::jsonb
"""
_INSERT: Final = """
insert into {table} (version_id, {keys}, field, ordinal, content, heading, page, start_offset,
  end_offset, content_hash, tokens, metadata, terms, embedding)
values ({version}, {values}, %(field)s, %(ordinal)s, %(content)s, %(heading)s, %(page)s, %(start)s,
  %(end)s, %(hash)s, %(tokens)s, %(metadata)s,
  ai.terms({version}, {language}, %(label)s, %(content)s), %(embedding)s)
"""
_DONE: Final = """
update ai.index_rows
set done_generation = %(generation)s, passage_count = %(passages)s, source_hash = %(hash)s,
  source_updated_at = %(updated_at)s, passages_total = null, passages_embedded = null,
  attempts = 0, retry_at = null, error_code = null, error = null
where version_id = %(version)s and key = %(key)s
"""
_FORGET: Final = """
delete from ai.index_rows
where version_id = %(version)s and key = %(key)s and generation = %(generation)s
"""
_COUNT: Final = """
update ai.index_versions
set passage_count = passage_count + %(passages)s, token_count = token_count + %(tokens)s,
  row_count = row_count + %(rows)s
where id = %(version)s
"""
_SET_MODEL: Final = """
update ai.index_versions set model = %(model)s, dimensions = %(dimensions)s
where id = %(version)s and model is null
"""
_MODEL: Final = "select model, dimensions from ai.index_versions where id = %(version)s"


class Publication(Struct, frozen=True):
    """A row, ready to be published."""

    version: Version
    key: Key
    generation: int
    """Of the mark that was there before the row was read."""
    done_generation: int
    """What was published when it was compared with the row."""
    source_hash: str | None
    """None: the row is gone."""
    source_updated_at: str | None
    metadata: str
    difference: Difference
    vectors: Mapping[str, Vector]
    """By content hash, as far as they are not in the database."""
    is_known: bool
    """Whether there may be passages of a state before it."""
    is_staged: bool

    @property
    def passage_count(self) -> int:
        difference = self.difference
        return len(difference.kept) + len(difference.moved) + len(difference.new)


class _OutdatedError(Exception):
    """The passages are not those that the row was compared with."""


class _State(Struct, frozen=True):
    done_generation: int
    passage_count: int | None
    """None: never published."""


class _Counts(Struct):
    passages: int = 0
    tokens: int = 0
    rows: int = 0


async def published(
    conn: AsyncConnection, version: Version, key: Key
) -> dict[tuple[str, int], Stored]:
    statement = _render(_PUBLISHED, version)
    rows = await (await conn.execute(statement, Version.key_values(key))).fetchall()
    return {
        (field, ordinal): Stored(hash_, start, end, page)
        for field, ordinal, hash_, start, end, page in rows
    }


async def staged(conn: AsyncConnection, version: Version, key: Key) -> set[str]:
    """Hashes of passages that have their vectors already."""
    cursor = await conn.execute(_STAGED, {"version": version.id, "key": list(key)})
    return {hash_ for (hash_,) in await cursor.fetchall()}


async def stage(
    conn: AsyncConnection,
    version: Version,
    key: Key,
    vectors: Mapping[str, Vector],
    *,
    embedded: int,
    total: int,
) -> None:
    """Keep vectors of a row that has not all of them yet."""
    row = {"version": version.id, "key": list(key)}
    async with conn.transaction(), conn.cursor() as cursor:
        if vectors:
            await cursor.executemany(
                _STAGE, [{**row, "hash": hash_, "embedding": v} for hash_, v in vectors.items()]
            )
        await cursor.execute(_PROGRESS, {**row, "embedded": embedded, "total": total})


async def set_model(
    conn: AsyncConnection, version: int, model: EmbeddingModel
) -> EmbeddingModel | None:
    """Where it is not known yet; what it is. None: the version is cleared away."""
    values = {"version": version, "model": model.name, "dimensions": model.dimensions}
    await conn.execute(_SET_MODEL, values)
    row = await (await conn.execute(_MODEL, values)).fetchone()
    return None if row is None else EmbeddingModel(*row)


async def publish(conn: AsyncConnection, rows: Sequence[Publication]) -> int:
    """All in one transaction; how many. Rows that have changed in between are left as they are."""
    published_count = 0
    async with conn.transaction():
        locked = await _lock(conn, rows)
        counts: dict[int, _Counts] = {}
        fresh: list[Publication] = []
        for row in sorted(rows, key=lambda row: (row.key, row.version.id)):
            state = locked.get((row.version.id, row.key))
            if state is None or state.done_generation != row.done_generation:
                continue
            with contextlib.suppress(_OutdatedError):
                if row.is_known or row.is_staged:
                    tokens = await _replace(conn, row)
                else:
                    tokens = sum(passage.tokens for passage in row.difference.new)
                    fresh.append(row)
                count = counts.setdefault(row.version.id, _Counts())
                count.passages += row.passage_count - (state.passage_count or 0)
                count.tokens += tokens
                count.rows += (row.source_hash is not None) - (state.passage_count is not None)
                published_count += 1
        # At once, since nothing is asked: each answer that is waited for delays the readers.
        async with conn.pipeline():
            await _insert(conn, fresh)
            for version, count in sorted(counts.items()):
                values = {"passages": count.passages, "tokens": count.tokens, "rows": count.rows}
                await conn.execute(_COUNT, {"version": version, **values})
    return published_count


async def _lock(
    conn: AsyncConnection, rows: Sequence[Publication]
) -> dict[tuple[int, Key], _State]:
    ids = sorted({row.version.id for row in rows})
    wanted = msgspec.json.encode([(row.version.id, row.key) for row in rows]).decode()
    async with conn.pipeline():
        versions = await conn.execute(_LOCK_VERSIONS, {"versions": ids})
        states = await conn.execute(_LOCK_ROWS, {"rows": wanted, "versions": ids})
        alive = {id_ for (id_,) in await versions.fetchall()}
        return {
            (version, tuple(key)): _State(done_generation, count)
            for version, key, done_generation, count in await states.fetchall()
            if version in alive
        }


async def _replace(conn: AsyncConnection, row: Publication) -> int:
    """How many more tokens there are. Raises _OutdatedError, with nothing changed."""
    # A savepoint: what is outdated is found out on the way.
    async with conn.transaction():
        vectors = dict(row.vectors)
        if row.is_staged:
            values = {"version": row.version.id, "key": list(row.key)}
            vectors |= dict(await (await conn.execute(_UNSTAGE, values)).fetchall())
        removed = await _remove(conn, row)
        vectors |= {hash_: vector for hash_, vector, _ in removed}
        await _move(conn, row)
        missing = {p.content_hash for p in row.difference.new} - vectors.keys()
        if missing:
            values = {**Version.key_values(row.key), "hashes": list(missing)}
            cursor = await conn.execute(_render(_VECTORS, row.version), values)
            vectors |= dict(await cursor.fetchall())
        if missing - vectors.keys():
            raise _OutdatedError
        await _insert(conn, [msgspec.structs.replace(row, vectors=vectors)])
    return sum(p.tokens for p in row.difference.new) - sum(tokens for *_, tokens in removed)


async def _remove(conn: AsyncConnection, row: Publication) -> list[tuple[str, Vector, int]]:
    difference = row.difference
    places = [passage.place for passage in (*difference.kept, *difference.moved)]
    values = {
        **Version.key_values(row.key),
        "places": msgspec.json.encode(places).decode(),
    }
    return await (await conn.execute(_render(_REMOVE, row.version), values)).fetchall()


async def _move(conn: AsyncConnection, row: Publication) -> None:
    key, difference = Version.key_values(row.key), row.difference
    async with conn.cursor() as cursor:
        if difference.moved:
            values = [
                {
                    **key,
                    "field": p.field,
                    "ordinal": p.ordinal,
                    "start": p.start,
                    "end": p.end,
                    "page": p.page,
                }
                for p in difference.moved
            ]
            await cursor.executemany(_render(_MOVE, row.version), values)
        if difference.kept or difference.moved:
            statement = _render(_RELABEL, row.version)
            await cursor.execute(statement, {**key, "metadata": row.metadata})


async def _insert(conn: AsyncConnection, rows: Sequence[Publication]) -> None:
    """The new passages, of which all vectors are known; and that the rows are published."""
    of_versions: dict[int, list[Publication]] = {}
    for row in rows:
        of_versions.setdefault(row.version.id, []).append(row)
    async with conn.cursor() as cursor:
        for of_version in of_versions.values():
            values = [values for row in of_version for values in _passages(row)]
            if values:
                await cursor.executemany(_insertion(of_version[0].version), values)
        done = [_done(row) for row in rows if row.source_hash is not None]
        if done:
            await cursor.executemany(_DONE, done)
    for row in rows:
        if row.source_hash is None:
            await _forget(conn, row)


def _insertion(version: Version) -> sql.Composed:
    columns: list[sql.Composable] = [sql.Identifier(name) for name in version.key_names]
    places: list[sql.Composable] = [
        sql.Placeholder(f"key_{number}") for number, _ in enumerate(version.key_names, 1)
    ]
    if version.collection_id is not None:
        columns.append(sql.Identifier("collection_id"))
        places.append(sql.Literal(version.collection_id))
    return sql.SQL(_INSERT).format(
        table=version.table,
        version=sql.Literal(version.id),
        keys=sql.SQL(", ").join(columns),
        values=sql.SQL(", ").join(places),
        language=sql.Literal(version.language),
    )


def _passages(row: Publication) -> Iterator[dict[str, object]]:
    for passage in row.difference.new:
        yield {
            **Version.key_values(row.key),
            "field": passage.field,
            "ordinal": passage.ordinal,
            "content": passage.content,
            "heading": passage.heading,
            "label": passage.label,
            "page": passage.page,
            "start": passage.start,
            "end": passage.end,
            "hash": passage.content_hash,
            "tokens": passage.tokens,
            "metadata": row.metadata,
            "embedding": row.vectors[passage.content_hash],
        }


def _done(row: Publication) -> dict[str, object]:
    return {
        "version": row.version.id,
        "key": list(row.key),
        "generation": row.generation,
        "passages": None if row.source_hash is None else row.passage_count,
        "hash": row.source_hash,
        "updated_at": row.source_updated_at,
    }


async def _forget(conn: AsyncConnection, row: Publication) -> None:
    cursor = await conn.execute(_FORGET, _done(row))
    if not cursor.rowcount:
        # A mark came meanwhile: the row may be back.
        await conn.execute(_DONE, _done(row))


def _render(statement: LiteralString, version: Version) -> sql.Composed:
    return sql.SQL(statement).format(table=version.table, of_key=version.of_key())
