"""Indexes at work in the test's own loop, with a model that costs nothing."""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any

import numpy as np
import numpy.typing as npt
from psycopg import AsyncConnection, sql

from butterbase.ingest.slot import ensure_slot
from butterbase.projections.embedder import BatchLimits, EmbeddingModel, Wanted
from butterbase.projections.embeddings import Embeddings
from butterbase.projections.indexes.indexer import Indexer
from butterbase.projections.indexes.session import IndexerLimits
from butterbase.projections.runner import ProjectionRunner
from butterbase.projections.tokens import EstimatedTokens, Tokenizer
from butterbase.sql.cluster import LoginRole
from tests.installation import Installation
from tests.projections.following import log_of, reading
from tests.waiting import until

FAST = IndexerLimits(idle_s=0.05, retry_s=0.01, retry_longest_s=0.05, hold_up_s=0.05)


def vector_of(text: str, dimensions: int = 8) -> npt.NDArray[np.float32]:
    """Of unit length, and the same for the same text."""
    seed = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")
    vector = np.random.default_rng(seed).normal(size=dimensions)
    return np.asarray(vector / np.linalg.norm(vector), np.float32)


class Model:
    """Embedders of one, and that one."""

    limits = BatchLimits()

    def __init__(self, name: str = "test", dimensions: int = 8) -> None:
        self.model = EmbeddingModel(name, dimensions)
        self.asked: list[Sequence[str]] = []
        self.before: Callable[[Sequence[str]], Any] = lambda _: None
        """Called with each batch; what it returns is waited for, and may raise."""

    @property
    def name(self) -> str:
        return self.model.name

    def installed(self, name: str) -> EmbeddingModel | None:
        return self.model if name == self.model.name else None

    async def get(self, wanted: Wanted) -> "Model":
        return self

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        self.asked.append(texts)
        waited = self.before(texts)
        if waited is not None:
            await waited
        return np.stack([vector_of(text, self.model.dimensions) for text in texts])

    async def close(self) -> None: ...

    @property
    def texts(self) -> list[str]:
        return [text for texts in self.asked for text in texts]


async def estimated() -> Tokenizer:
    return EstimatedTokens()


@asynccontextmanager
async def indexing(
    installation: Installation, model: Model, limits: IndexerLimits = FAST
) -> AsyncIterator[None]:
    """The app's log is read and its marks are worked on."""
    database = installation.main.name
    async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn:
        await ensure_slot(conn, database)
    dsn = installation.cluster.dsn(LoginRole.STREAM, database)
    indexer = Indexer(model, estimated, dsn=dsn, owner_dsn=installation.owner_dsn, limits=limits)
    log = log_of(installation.cluster, database)
    runner = ProjectionRunner(Embeddings(), log, on_applied=indexer.wake)
    task = asyncio.create_task(indexer.run())
    try:
        async with reading(log, runner):
            yield
    finally:
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task


async def fetch(conn: AsyncConnection, query: str, *values: object) -> list[tuple[Any, ...]]:
    return await (await conn.execute(query.encode(), values or None)).fetchall()


async def until_settled(conn: AsyncConnection) -> None:
    """Until what is committed by now is told, and nothing is left to do."""
    ((lsn,),) = await fetch(conn, "select pg_current_wal_insert_lsn()")

    async def is_settled() -> bool:
        # A commit behind it, which the checkpoint comes to.
        await conn.execute(
            "select pg_logical_emit_message(true, 'butterbase.ddl', 'none, in fact')"
        )
        rows = await fetch(
            conn,
            "select (select lsn > %s from butterbase.checkpoints where projection = 'embeddings')"
            " and not exists (select from ai.index_versions"
            "   where not is_swept and state <> 'retired')"
            " and not exists (select from ai.index_rows where generation <> done_generation)",
            lsn,
        )
        return rows == [(True,)]

    await until(is_settled)


async def passages(conn: AsyncConnection, table: str, keys: str = "key_1") -> list[tuple[Any, ...]]:
    """What is published, without what differs by chance."""
    statement = sql.SQL(
        "select {}, field, ordinal, content, heading, start_offset, end_offset, content_hash,"
        " metadata, embedding::text from ai.{} order by {}, field, ordinal"
    ).format(sql.SQL(keys), sql.Identifier(table), sql.SQL(keys))
    return await (await conn.execute(statement)).fetchall()
