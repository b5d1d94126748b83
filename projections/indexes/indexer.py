"""The indexer: marked rows → passages → vectors → published. One of each app.

                 ┌ sweep: marks rows of before (backfill.py)
marks (queue.py) ┴→ read (sources.py) → cut, compare (passages.py) → model → publish (publishing.py)

Nothing is held that the database does not have: a process that is killed leaves marks, and at most
some vectors to be made again. What is open is bounded in rows and in bytes. While the model works
on a batch, the one before it is published and the next one read.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

import psycopg
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection

from butterbase.projections.embedder import Embedders
from butterbase.projections.indexes.lanes import Lanes
from butterbase.projections.indexes.loading import Loader
from butterbase.projections.indexes.session import IndexerLimits, Session
from butterbase.projections.indexes.sources import Sources
from butterbase.projections.indexes.upkeep import Upkeep
from butterbase.projections.tokens import Tokenizer
from butterbase.sql.cancelling import check_cancelled

logger = logging.getLogger(__name__)


class Indexer:
    """One app's; `wake` it after rows were marked."""

    def __init__(
        self,
        embedders: Embedders,
        open_tokenizer: Callable[[], Awaitable[Tokenizer]],
        *,
        dsn: str,
        owner_dsn: str,
        limits: IndexerLimits | None = None,
    ) -> None:
        """`dsn` is the stream role's, `owner_dsn` the developer's, of the app's database."""
        self._embedders = embedders
        self._open_tokenizer = open_tokenizer
        self._dsn, self._owner_dsn = dsn, owner_dsn
        self._limits = limits or IndexerLimits()
        self._awake = asyncio.Event()

    def wake(self) -> None:
        self._awake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        delay_s = self._limits.retry_s
        while True:
            try:
                async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                    await register_vector_async(conn)
                    delay_s = self._limits.retry_s
                    await self._work(conn)
            except psycopg.Error as error:
                logger.warning("indexing waits: %s", error)
            except Exception:
                logger.exception("indexing failed; trying again")
            check_cancelled()
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, self._limits.retry_longest_s)

    async def _work(self, conn: AsyncConnection) -> None:
        sources = Sources(conn, self._owner_dsn)
        tokenizer = await self._open_tokenizer()
        lanes = Lanes(self._embedders, self._limits.retry_s, self._limits.retry_longest_s)
        loader = Loader(conn, sources, self._embedders, tokenizer)
        # Lost by a crash of the server, what was published is marked still, and is made again.
        await conn.execute("set synchronous_commit = off")
        session = Session(conn, sources, loader, lanes, self._limits)
        upkeep = Upkeep(
            self._dsn, self._embedders.model, vector_index_min=self._limits.vector_index_min
        )
        try:
            while True:
                is_woken = self._awake.is_set()
                self._awake.clear()
                has_more = await session.turn(is_woken=is_woken)
                # Who waits for a row waits for what comes before it and for nothing else.
                await upkeep.keep(conn)
                if not has_more:
                    await self._wait(lanes, min(session.due_in_s(), upkeep.due_in_s()))
        finally:
            lanes.cancel()
            await upkeep.close()
            await sources.close()

    async def _wait(self, lanes: Lanes, timeout_s: float) -> None:
        """Until woken, or a batch has ended, or something held up may go on."""
        awake = asyncio.create_task(self._awake.wait())
        try:
            await asyncio.wait(
                {awake, *lanes.tasks}, timeout=timeout_s, return_when=asyncio.FIRST_COMPLETED
            )
        finally:
            awake.cancel()
