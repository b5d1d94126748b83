"""What indexes need besides their rows: versions, swaps, indexes over vectors, clearing away.

A version is swapped in when it has all rows that the one in use has, by one statement: who asks
before it is answered from the one, and who asks after it from the other.
"""

import asyncio
import logging
import math
from typing import Final

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection, sql
from psycopg.rows import class_row

from butterbase.projections.embedder import EmbeddingModel

logger = logging.getLogger(__name__)


VECTOR_INDEX_MIN: Final = 2_000
"""Passages of a version that are worth one. Fewer are compared one by one, which is exact."""
INDEXED_DIMENSIONS_MAX: Final = 4_000
"""Of half-precision vectors: https://github.com/pgvector/pgvector#half-precision-indexing"""
BUILD_BYTES_MAX: Final = 1024**3
CLEARED_COUNT: Final = 5_000
"""Rows that are deleted at once."""
INTERVAL_S: Final = 1.0
RETRY_S: Final = 5.0
SAMPLE_S: Final = 10

_RETIRE_DROPPED: Final = """
update ai.index_versions v set state = 'retired'
from ai.indexes i
where i.id = v.index_id and v.state <> 'retired'
  and (i.dropped_at is not null or i.source is not null and i.kind = 'columns'
    and not exists (select from pg_class c where c.oid = i.source))
"""
_COMPLETE: Final = """
update ai.index_versions v
set state = 'ready', completed_at = now(), sampled_at = null, sampled_count = null
from ai.indexes i
where i.active_version = v.id and v.state = 'building' and v.is_swept
  and not exists (
    select from ai.index_rows r
    where r.version_id = v.id and r.generation <> r.done_generation and r.priority > 0)
"""
# What is published in the version in use must be published in the next, or found to be unfit for
# it; where that is more than a few, something is wrong with the next.
_SWAP: Final = """
with complete as (
  select v.id, v.index_id, i.active_version
  from ai.index_versions v join ai.indexes i on i.building_version = v.id
  where v.state = 'building' and v.is_swept and i.dropped_at is null
    and (v.has_vector_index or v.passage_count < %(vector_index_min)s
      or v.dimensions > %(dimensions_max)s)
    and not exists (
      select from ai.index_rows b
      where b.version_id = v.id and b.generation <> b.done_generation
        and (b.priority > 0 or b.passage_count is null and exists (
          select from ai.index_rows a
          where a.key = b.key and a.version_id = i.active_version and a.passage_count > 0)))
    and 20 * (
      select count(*) from ai.index_rows b
      where b.version_id = v.id and b.generation = b.done_generation and b.passage_count is null
        and exists (
          select from ai.index_rows a
          where a.key = b.key and a.version_id = i.active_version and a.passage_count > 0)
    ) <= v.row_count
  for update of i skip locked
), swapped as (
  update ai.indexes i set active_version = c.id, building_version = null
  from complete c where i.id = c.index_id
  returning c.id as new, c.active_version as old
), retired as (
  update ai.index_versions v set state = 'retired' from swapped where v.id = swapped.old
)
update ai.index_versions v
set state = 'ready', completed_at = now(), sampled_at = null, sampled_count = null
from swapped where v.id = swapped.new
returning v.id, v.index_id
"""
_BUILDING: Final = "select from ai.index_versions where state = 'building' limit 1"
_SAMPLE: Final = """
update ai.index_versions set sampled_at = now(), sampled_count = row_count
where state = 'building'
  and (sampled_at is null or sampled_at < now() - make_interval(secs => %s))
"""
# An index whose model is the installation's gets a version of the new one, whatever it had.
_OF_OTHER_MODELS: Final = """
select i.id from ai.indexes i join ai.index_versions v on v.id = i.active_version
where i.model is null and i.dropped_at is null and v.model is not null
  and (v.model, v.dimensions) is distinct from (%(model)s, %(dimensions)s)
  and not exists (
    select from ai.index_versions b where b.id = i.building_version
      and (b.model is null or (b.model, b.dimensions) = (%(model)s, %(dimensions)s)))
"""
_LARGE: Final = """
select id, passages, dimensions, passage_count from ai.index_versions
where state <> 'retired' and not has_vector_index and is_swept
  and passage_count >= %(count)s and dimensions <= %(dimensions_max)s
order by passage_count limit 1
"""
_HAS_VECTOR_INDEX: Final = "update ai.index_versions set has_vector_index = true where id = %s"
_RETIRED: Final = "select id, passages from ai.index_versions where state = 'retired' limit 1"
_CLEAR_CHUNKS: Final = """
delete from ai.chunks where ctid = any(array(
  select ctid from ai.chunks where version_id = %(version)s limit %(count)s))
"""
_CLEAR_ROWS: Final = """
delete from ai.index_rows where ctid = any(array(
  select ctid from ai.index_rows where version_id = %(version)s limit %(count)s))
"""
_CLEAR_STAGED: Final = "delete from ai.staged_vectors where version_id = %(version)s"
_CLEAR_VERSION: Final = "delete from ai.index_versions where id = %(version)s"
_CLEAR_INDEXES: Final = """
delete from ai.indexes i
where i.dropped_at is not null
  and not exists (select from ai.index_versions v where v.index_id = i.id)
"""
_DROPPED: Final = "select from ai.indexes where dropped_at is not null limit 1"
_UNANALYZED: Final = """
select id from ai.index_versions
where state <> 'retired' and passage_count > 0
  and abs(passage_count - coalesce(analyzed_count, 0)) > 0.2 * greatest(analyzed_count, 1)
order by analyzed_count nulls first, id limit 1
"""


class _Large(Struct, frozen=True):
    id: int
    passages: str
    dimensions: int
    passage_count: int


class Upkeep:
    """Of one app."""

    def __init__(
        self, dsn: str, model: EmbeddingModel, *, vector_index_min: int = VECTOR_INDEX_MIN
    ):
        """`dsn` is the stream role's; `model` the installation's."""
        self._dsn = dsn
        self._model = model
        self._vector_index_min = vector_index_min
        self._due_s = 0.0
        self._is_put_off = False
        self._long: asyncio.Task[None] | None = None

    async def keep(self, conn: AsyncConnection) -> None:
        """Called as often as one likes. What may take long goes on by itself, over a connection of
        its own.
        """
        loop = asyncio.get_running_loop()
        self._is_put_off = loop.time() < self._due_s
        if self._is_put_off:
            return
        self._due_s = loop.time() + INTERVAL_S
        self._is_put_off = await self.turn(conn)
        if (self._long is None or self._long.done()) and await self._has_long_work(conn):
            self._long = asyncio.create_task(self._run_long())

    def due_in_s(self) -> float:
        """When it should be called again, at the latest."""
        left_s = self._due_s - asyncio.get_running_loop().time()
        return max(0.0, left_s) if self._is_put_off else math.inf

    async def close(self) -> None:
        if self._long is not None:
            self._long.cancel()
            await asyncio.wait({self._long})

    async def _run_long(self) -> None:
        try:
            async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                while await self.long_turn(conn):
                    pass
        except psycopg.Error as error:
            logger.warning("the upkeep of indexes waits: %s", error)
            self._due_s = asyncio.get_running_loop().time() + RETRY_S

    async def _has_long_work(self, conn: AsyncConnection) -> bool:
        values = {"count": self._vector_index_min, "dimensions_max": INDEXED_DIMENSIONS_MAX}
        for statement in (_RETIRED, _DROPPED, _LARGE, _UNANALYZED):
            if (await conn.execute(statement, values)).rowcount:
                return True
        return False

    async def turn(self, conn: AsyncConnection) -> bool:
        """What takes a moment; whether something is being built that will want more of it."""
        await conn.execute(_RETIRE_DROPPED)
        await self._begin_versions(conn)
        await conn.execute(_COMPLETE)
        limits = {
            "vector_index_min": self._vector_index_min,
            "dimensions_max": INDEXED_DIMENSIONS_MAX,
        }
        for version, index in await (await conn.execute(_SWAP, limits)).fetchall():
            logger.info("index %d: version %d is complete and in use", index, version)
        await conn.execute(_SAMPLE, [SAMPLE_S])
        return bool((await conn.execute(_BUILDING)).rowcount)

    async def long_turn(self, conn: AsyncConnection) -> bool:
        """What may take long; whether there may be more."""
        return (
            await self._clear(conn)
            or await self._analyze(conn)
            or await self._build_vector_index(conn)
        )

    async def _begin_versions(self, conn: AsyncConnection) -> None:
        values = {"model": self._model.name, "dimensions": self._model.dimensions}
        for (index,) in await (await conn.execute(_OF_OTHER_MODELS, values)).fetchall():
            logger.info("index %d: a version with the model %s begins", index, self._model.name)
            await conn.execute("select ai.begin_version(%s)", [index])

    async def _build_vector_index(self, conn: AsyncConnection) -> bool:
        values = {"count": self._vector_index_min, "dimensions_max": INDEXED_DIMENSIONS_MAX}
        async with conn.cursor(row_factory=class_row(_Large)) as cursor:
            large = await (await cursor.execute(_LARGE, values)).fetchone()
        if large is None:
            return False
        logger.info("index version %d: an index over its vectors is made", large.id)
        # The graph of all vectors should fit, or making it takes many times as long.
        memory = large.passage_count * (2 * large.dimensions + 512) * 3 // 2
        memory_kb = min(BUILD_BYTES_MAX, max(64 * 1024**2, memory)) // 1024
        await conn.execute(
            sql.SQL("set maintenance_work_mem = {}").format(sql.Literal(f"{memory_kb}kB"))
        )
        # Workers would need as much shared memory, which containers have little of.
        await conn.execute("set max_parallel_maintenance_workers = 0")
        for name, method in _indexes(large):
            # What a process that was killed has left is not valid.
            await conn.execute(sql.SQL("drop index concurrently if exists ai.{}").format(name))
            await conn.execute(
                sql.SQL(
                    "create index concurrently {} on ai.{} using {} where version_id = {}"
                ).format(name, sql.Identifier(large.passages), method, sql.Literal(large.id))
            )
        await conn.execute(sql.SQL("analyze ai.{}").format(sql.Identifier(large.passages)))
        await conn.execute(_HAS_VECTOR_INDEX, [large.id])
        return True

    async def _analyze(self, conn: AsyncConnection) -> bool:
        row = await (await conn.execute(_UNANALYZED)).fetchone()
        if row is None:
            return False
        await conn.execute("select ai.analyze_index(%s)", [row[0]])
        return True

    async def _clear(self, conn: AsyncConnection) -> bool:
        """Clear away a part of what nobody uses."""
        row = await (await conn.execute(_RETIRED)).fetchone()
        if row is None:
            await conn.execute(_CLEAR_INDEXES)
            return False
        version, passages = row
        values = {"version": version, "count": CLEARED_COUNT}
        if passages != "chunks":
            await conn.execute("set lock_timeout = '5s'")
            await conn.execute(
                sql.SQL("drop table if exists ai.{}").format(sql.Identifier(passages))
            )
        elif (await conn.execute(_CLEAR_CHUNKS, values)).rowcount:
            return True
        if (await conn.execute(_CLEAR_ROWS, values)).rowcount:
            return True
        await conn.execute(_CLEAR_STAGED, values)
        for name in (_vector_index(version), _metadata_index(version)):
            await conn.execute(sql.SQL("drop index concurrently if exists ai.{}").format(name))
        await conn.execute(_CLEAR_VERSION, values)
        return True


def _vector_index(version: int) -> sql.Identifier:
    return sql.Identifier(f"passages_vectors_{version}")


def _metadata_index(version: int) -> sql.Identifier:
    return sql.Identifier(f"passages_metadata_{version}")


def _indexes(large: _Large) -> list[tuple[sql.Identifier, sql.Composable]]:
    vectors = sql.SQL(
        "hnsw ((embedding::extensions.halfvec({})) extensions.halfvec_cosine_ops)"
    ).format(sql.Literal(large.dimensions))
    metadata = sql.SQL("gin (metadata ai.jsonb_path_ops)")
    return [(_vector_index(large.id), vectors), (_metadata_index(large.id), metadata)]
