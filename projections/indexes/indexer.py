"""The indexer: marked rows → passages → vectors → published. One of each app.

                 ┌ sweep: marks rows of before (backfill.py)
marks (queue.py) ┴→ read (sources.py) → cut, compare (passages.py) → model → publish (publishing.py)

Nothing is held that the database does not have: a process that is killed leaves marks, and at most
some vectors to be made again. What is open is bounded in rows and in bytes. While the model works
on a batch, the one before it is published and the next one read.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Final

import psycopg
from msgspec import Struct
from pgvector.psycopg import register_vector_async
from psycopg import AsyncConnection

from butterbase.projections.embedder import EmbedderError, Embedders
from butterbase.projections.indexes.backfill import mark_page, unswept
from butterbase.projections.indexes.errors import RowError
from butterbase.projections.indexes.lanes import Finished, Lanes
from butterbase.projections.indexes.loading import Loaded, Loader
from butterbase.projections.indexes.publishing import publish, set_model, stage
from butterbase.projections.indexes.queue import blame, fail, settle, waiting_rows
from butterbase.projections.indexes.sources import SourceError, Sources
from butterbase.projections.indexes.upkeep import VECTOR_INDEX_MIN, Upkeep
from butterbase.projections.indexes.versions import read_versions
from butterbase.projections.indexes.work import Work
from butterbase.projections.tokens import Tokenizer
from butterbase.sql.errors import ButterbaseError

logger = logging.getLogger(__name__)

LIVE: Final = 0
"""The priority of what the log told; what a sweep found has 1."""


class IndexerLimits(Struct, frozen=True):
    open_rows_max: int = 64
    """At work at once; as many again that the log told of."""
    open_bytes_max: int = 32 * 1024**2
    """Of their texts, unless one alone has more."""
    unsaved_max: int = 64
    """Vectors of one row that a crash may lose."""
    sweep_s: float = 0.25
    """How often to look for rows of before, while there are others to work on."""
    idle_s: float = 5.0
    """How often to look when nothing wakes us."""
    retry_s: float = 1.0
    retry_longest_s: float = 60.0
    attempts_max: int = 5
    """After which a row is given up, until it changes or somebody asks for it."""
    vector_index_min: int = VECTOR_INDEX_MIN
    hold_up_s: float = 10.0
    """How long an index is left alone whose rows cannot be read."""


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
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, self._limits.retry_longest_s)

    async def _work(self, conn: AsyncConnection) -> None:
        sources = Sources(conn, self._owner_dsn)
        tokenizer = await self._open_tokenizer()
        lanes = Lanes(self._embedders, self._limits.retry_s, self._limits.retry_longest_s)
        loader = Loader(conn, sources, self._embedders.model, tokenizer)
        session = _Session(conn, sources, loader, lanes, self._limits)
        upkeep = Upkeep(
            self._dsn, self._embedders.model, vector_index_min=self._limits.vector_index_min
        )
        try:
            while True:
                self._awake.clear()
                await upkeep.keep(conn)
                if not await session.turn():
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


class _Session:
    """Over one connection, which none but its turns use."""

    def __init__(
        self,
        conn: AsyncConnection,
        sources: Sources,
        loader: Loader,
        lanes: Lanes,
        limits: IndexerLimits,
    ) -> None:
        self._conn, self._sources, self._loader = conn, sources, loader
        self._lanes, self._limits = lanes, limits
        self._held_up_until_s: dict[int, float] = {}
        self._blamed: set[int] = set()
        self._sweep_due_s = 0.0
        self._is_sweep_put_off = False

    async def turn(self) -> bool:
        """Do what can be done now; whether there may be more."""
        has_more = await self._sweep()
        has_more |= await self._load()
        self._lanes.launch(_now_s())
        finished = self._lanes.finished()
        for batch in finished:
            await self._receive(batch)
        await self._publish()
        self._lanes.launch(_now_s())
        return has_more or bool(finished)

    def due_in_s(self) -> float:
        """How long there is nothing to do, at most."""
        now_s = _now_s()
        waits = [lane.due_in_s(now_s) for lane in self._lanes]
        waits += [until_s - now_s for until_s in self._held_up_until_s.values()]
        waits.append(self._sweep_due_s - now_s if self._is_sweep_put_off else None)
        known = (wait for wait in waits if wait is not None)
        return max(0.0, min([self._limits.idle_s, *known]))

    # From the table

    async def _sweep(self) -> bool:
        now_s = _now_s()
        self._is_sweep_put_off = now_s < self._sweep_due_s
        if self._is_sweep_put_off:
            return False
        has_more = False
        ids = await unswept(self._conn, without=self._held_up())
        for version in (await read_versions(self._conn, ids)).values() if ids else ():
            try:
                has_more |= await mark_page(self._conn, self._sources, version)
            except SourceError as error:
                await self._hold_up(version.id, error)
        # Where rows wait there is time: they are a page ahead of the work.
        self._sweep_due_s = now_s if has_more else now_s + self._limits.sweep_s
        return has_more

    async def _load(self) -> bool:
        limits, works = self._limits, self._lanes.works
        live_count = sum(work.row.priority == LIVE for work in works)
        room = limits.open_rows_max - (len(works) - live_count)
        live_room = limits.open_rows_max - live_count
        bytes_left = limits.open_bytes_max - sum(work.byte_count for work in works)
        if max(room, live_room) <= 0 or (works and bytes_left <= 0):
            return False
        opened = {work.row.id for work in works}
        rows = await waiting_rows(
            self._conn,
            without=self._held_up(),
            limit=len(opened) + limits.open_rows_max,
            priority=LIVE if room <= 0 else 1,
        )
        rows = [row for row in rows if row.id not in opened]
        rows = [row for row in rows if row.priority == LIVE][: max(0, live_room)] + [
            row for row in rows if row.priority != LIVE
        ][: max(0, room)]
        if not rows:
            return False
        loaded = await self._loader.load(rows, bytes_left)
        await self._take(loaded)
        return True

    async def _take(self, loaded: Loaded) -> None:
        if loaded.settled:
            await settle(self._conn, loaded.settled)
        for row, error in loaded.failed:
            await fail(self._conn, row, error, delay_s=0, attempts_max=1)
        for version, held_up_by in loaded.held_up.items():
            await self._hold_up(version, held_up_by)
        for work in loaded.works:
            self._lanes.add(work)
            if work.waiting > self._limits.unsaved_max:
                await self._stage(work)

    async def _hold_up(self, version: int, error: ButterbaseError | None) -> None:
        """Leave the version alone for a while."""
        self._held_up_until_s[version] = _now_s() + self._limits.hold_up_s
        if error is not None:
            logger.warning("index version %d waits: %s", version, error)
            await self._blame([version], error)

    def _held_up(self) -> list[int]:
        now_s = _now_s()
        self._held_up_until_s = {v: s for v, s in self._held_up_until_s.items() if s > now_s}
        return list(self._held_up_until_s)

    # From the model

    async def _receive(self, finished: Finished) -> None:
        if finished.error is not None:
            await self._fail(finished, finished.error)
            return
        assert finished.vectors is not None
        assert finished.model is not None
        finished.lane.succeed()
        model = finished.model
        for (work, passage), vector in zip(finished.batch, finished.vectors, strict=True):
            work.failure_count = 0
            work.receive(passage, vector)
        works = {id(work): work for work, _ in finished.batch}.values()
        versions = {work.version.id: work.version for work in works}
        for version in versions.values():
            if version.model is None:
                await set_model(self._conn, version.id, model.name, model.dimensions)
        await self._forgive(versions)
        for work in works:
            if not work.is_complete and len(work.unsaved) >= self._limits.unsaved_max:
                await self._stage(work)

    async def _stage(self, work: Work) -> None:
        embedded = work.total - work.waiting
        key, vectors = work.row.key, work.unsaved
        await stage(self._conn, work.version, key, vectors, embedded=embedded, total=work.total)
        work.saved()

    async def _fail(self, finished: Finished, error: EmbedderError) -> None:
        """A text that fails alone, while the model takes others, has failed. Whatever else fails is
        tried again: texts one by one, and a model that is away after a while.
        """
        logger.warning("embedding of %d texts failed: %s", len(finished.batch), error)
        for work, passage in reversed(finished.batch):
            work.give_back(passage)
            work.failure_count += 1
        ((first, _), *others) = finished.batch
        if not finished.is_texts_fault:
            finished.lane.pause(error, _now_s())
            await self._blame(sorted({w.version.id for w in finished.lane.works}), error)
        elif not others:
            self._lanes.remove([first])
            await self._fail_row(first, error)

    async def _fail_row(self, work: Work, error: ButterbaseError) -> None:
        limits = self._limits
        await fail(
            self._conn, work.row, error, delay_s=limits.retry_s, attempts_max=limits.attempts_max
        )

    # To the index

    async def _publish(self) -> None:
        complete = [work for work in self._lanes.works if work.is_complete]
        if not complete:
            return
        self._lanes.remove(complete)
        try:
            await publish(self._conn, [work.publication for work in complete])
        except psycopg.Error as error:
            if self._conn.broken:
                raise
            logger.warning("publishing %d rows failed: %s; each alone", len(complete), error)
            for work in complete:
                await self._publish_alone(work)

    async def _publish_alone(self, work: Work) -> None:
        try:
            await publish(self._conn, [work.publication])
        except psycopg.Error as error:
            if self._conn.broken:
                raise
            reason = error.diag.message_primary or type(error).__name__
            await self._fail_row(work, RowError(reason, hint=error.diag.message_hint))

    async def _blame(self, versions: Sequence[int], error: ButterbaseError) -> None:
        self._blamed.update(versions)
        await blame(self._conn, versions, error)

    async def _forgive(self, versions: Iterable[int]) -> None:
        if forgiven := self._blamed.intersection(versions):
            self._blamed -= forgiven
            await blame(self._conn, sorted(forgiven), None)


def _now_s() -> float:
    return asyncio.get_running_loop().time()
