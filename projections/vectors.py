"""Fills in the vectors that chunks wait for: text → model → `ai.chunks.embedding`.

A chunk is found by its key and hash, so a vector never lands on text that has changed meanwhile.
A model that cannot be used holds up its chunks, with an error to read and a growing delay, and
nothing else. Documents take turns: all first chunks come before all second ones, so that a short
document does not wait for the end of a long one.
"""

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import LiteralString
from uuid import UUID

import psycopg
from msgspec import Struct
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection
from psycopg.rows import class_row

from butterbase.projections.embedder import Embedder, EmbedderError

logger = logging.getLogger(__name__)

BATCH_COUNT = 32
IDLE_S = 30.0
"""How often to look for chunks whose delay has passed, when nothing wakes us."""

RETRY_S = 1.0

_PENDING = """
select document_id, ordinal, heading, content, content_hash, attempts
from ai.chunks
where embedding is null and ordinal >= 0 and (retry_at is null or retry_at <= now())
order by attempts, ordinal, document_id
limit %(limit)s
"""
# Vectors of another model stay until they are replaced. They are looked for at the start alone,
# since no index helps: the model of a process does not change.
_OF_OTHER_MODELS = """
select document_id, ordinal, heading, content, content_hash, attempts
from ai.chunks
where model <> %(model)s and ordinal >= 0 and (retry_at is null or retry_at <= now())
order by attempts, ordinal, document_id
limit %(limit)s
"""
_FILL = """
update ai.chunks c
set embedding = %(embedding)s, model = %(model)s, attempts = 0, error = null, retry_at = null
where document_id = %(document_id)s and ordinal = %(ordinal)s and content_hash = %(content_hash)s
"""
_DELAY = """
update ai.chunks
set attempts = attempts + 1, error = %(error)s,
  retry_at = now() + interval '1 second' * least(600, 2 ^ least(attempts, 10))
where document_id = %(document_id)s and ordinal = %(ordinal)s and content_hash = %(content_hash)s
"""


class _Chunk(Struct, frozen=True):
    document_id: UUID
    ordinal: int
    heading: str
    content: str
    content_hash: str
    attempts: int

    @property
    def text(self) -> str:
        return f"{self.heading}\n{self.content}" if self.heading else self.content

    @property
    def key(self) -> dict[str, object]:
        return {
            "document_id": self.document_id,
            "ordinal": self.ordinal,
            "content_hash": self.content_hash,
        }


class VectorWorker:
    """One app's worker; `wake` it after chunks were written."""

    def __init__(self, open_embedder: Callable[[], Awaitable[Embedder]], dsn: str) -> None:
        """`open_embedder` is called when there is something to embed, and may be called again."""
        self._open_embedder = open_embedder
        self._dsn = dsn
        self._awake = asyncio.Event()

    def wake(self) -> None:
        self._awake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        delay_s = RETRY_S
        while True:
            try:
                async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                    await register_vector_async(conn)
                    delay_s = RETRY_S
                    await self._work(conn)
            except (psycopg.Error, EmbedderError) as error:
                hint = getattr(error, "hint", None)
                logger.warning("embedding waits: %s%s", error, f" ({hint})" if hint else "")
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, IDLE_S)

    async def _work(self, conn: AsyncConnection) -> None:
        while not await _has_chunks(conn):
            await self._idle()
        embedder = await self._open_embedder()
        await self._fill_all(conn, embedder, _OF_OTHER_MODELS)
        while True:
            await self._fill_all(conn, embedder, _PENDING)
            await self._idle()

    async def _idle(self) -> None:
        """Wait until woken, or until a delayed chunk may be due. A wake in between counts."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IDLE_S):
                await self._awake.wait()
        self._awake.clear()

    async def _fill_all(
        self, conn: AsyncConnection, embedder: Embedder, which: LiteralString
    ) -> None:
        values = {"model": embedder.model.name, "limit": BATCH_COUNT}
        while True:
            async with conn.cursor(row_factory=class_row(_Chunk)) as cursor:
                await cursor.execute(which, values)
                found = await cursor.fetchall()
            if not found:
                return
            # What failed in company is tried alone: one text may be at fault.
            batch = found[:1] if found[0].attempts else _untried(found)
            await self._fill(conn, embedder, batch)

    async def _fill(
        self, conn: AsyncConnection, embedder: Embedder, batch: Sequence[_Chunk]
    ) -> None:
        try:
            vectors = await embedder.embed([chunk.text for chunk in batch])
        except EmbedderError as error:
            logger.warning("embedding of %d chunks failed: %s", len(batch), error)
            async with conn.cursor() as cursor:
                await cursor.executemany(
                    _DELAY, [{**chunk.key, "error": str(error)} for chunk in batch]
                )
            return
        model = embedder.model.name
        async with conn.transaction(), conn.cursor() as cursor:
            await cursor.executemany(
                _FILL,
                [
                    {**chunk.key, "embedding": vector, "model": model}
                    for chunk, vector in zip(batch, vectors, strict=True)
                ],
            )


async def _has_chunks(conn: AsyncConnection) -> bool:
    cursor = await conn.execute("select exists (select from ai.chunks)")
    return await cursor.fetchone() == (True,)


def _untried(chunks: Sequence[_Chunk]) -> list[_Chunk]:
    return [chunk for chunk in chunks if not chunk.attempts]
