"""Documents in, chunks out, and whose turn it is; on a real Postgres."""

import asyncio
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from uuid import UUID

import numpy as np
import numpy.typing as npt
import pytest
from psycopg import AsyncConnection

from butterbase.ingest.changes import Column, Commit, Insert, Relation, ReplicaIdentity
from butterbase.ingest.lsn import LSN
from butterbase.projections import embeddings
from butterbase.projections.chunking import Chunk, chunk
from butterbase.projections.embedder import EmbeddingModel
from butterbase.projections.embeddings import Embeddings
from butterbase.projections.vectors import BATCH_COUNT, VectorWorker
from tests.installation import Installation

LONG, SHORT = UUID(int=1), UUID(int=2)
COLUMNS = tuple(Column(name, 25, -1, is_key=name == "id") for name in ("id", "version", "content"))
DOCUMENTS = Relation(1, "ai", "documents", ReplicaIdentity.DEFAULT, COLUMNS)


@pytest.fixture
async def conn(installation: Installation) -> AsyncIterator[AsyncConnection]:
    async with await AsyncConnection.connect(installation.main.dsn, autocommit=True) as conn:
        yield conn


async def index(conn: AsyncConnection, document: UUID, text: str) -> None:
    change = Insert(DOCUMENTS, (str(document), "1", text))
    commit = Commit(LSN(1), datetime(2026, 1, 1, tzinfo=UTC), 1, (change,))
    async with conn.transaction():
        await Embeddings().apply(conn, [commit])


async def test_the_loop_goes_on_while_a_text_is_cut(
    conn: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    began, may_end = threading.Event(), threading.Event()

    def cut(text: str) -> list[Chunk]:
        began.set()
        assert may_end.wait(5), "the loop stands still"
        return chunk(text)

    monkeypatch.setattr(embeddings, "chunk", cut)
    indexing = asyncio.create_task(index(conn, LONG, "Some text."))
    assert await asyncio.to_thread(began.wait, 5)
    may_end.set()
    await indexing


async def test_all_chunks_of_a_long_text_are_written(
    conn: AsyncConnection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(embeddings, "WRITE_COUNT_MAX", 3)
    text = "One sentence after another. " * 200
    await index(conn, LONG, text)
    cursor = await conn.execute("select ordinal, content from ai.chunks order by ordinal")
    assert await cursor.fetchall() == [(piece.ordinal, piece.text) for piece in chunk(text)]
    cursor = await conn.execute("select document_id, chunk_count from ai.document_index")
    assert await cursor.fetchall() == [(LONG, len(chunk(text)))]


class Recorder:
    """An embedder that keeps what it was asked."""

    model = EmbeddingModel("test", 2)

    def __init__(self) -> None:
        self.first: asyncio.Future[Sequence[str]] = asyncio.get_running_loop().create_future()

    async def embed(self, texts: Sequence[str]) -> npt.NDArray[np.float32]:
        if not self.first.done():
            self.first.set_result(texts)
        return np.tile(np.array([1, 0], np.float32), (len(texts), 1))

    async def close(self) -> None: ...


async def test_a_short_text_does_not_wait_for_the_end_of_a_long_one(
    conn: AsyncConnection, installation: Installation
) -> None:
    await index(conn, LONG, "One sentence after another. " * 2000)
    await index(conn, SHORT, "Short.")
    embedder = Recorder()

    async def open_embedder() -> Recorder:
        return embedder

    working = asyncio.create_task(VectorWorker(open_embedder, installation.main.dsn).run())
    async with asyncio.timeout(10):
        texts = await embedder.first
    assert len(texts) == BATCH_COUNT
    assert "Short." in texts
    working.cancel()
    with suppress(asyncio.CancelledError):
        await working
