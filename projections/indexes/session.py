"""The indexer's turns: what is open, and what becomes of it. See indexer.py."""

import asyncio
import logging
from collections.abc import Iterable, Sequence
from typing import Final

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.projections.embedder import EmbedderError, EmbeddingModel
from butterbase.projections.indexes.backfill import mark_page, unswept
from butterbase.projections.indexes.errors import MixedModelsError, RowError
from butterbase.projections.indexes.gone import gone_rows
from butterbase.projections.indexes.lanes import Finished, Lane, Lanes
from butterbase.projections.indexes.loading import Loaded, Loader
from butterbase.projections.indexes.marks import Key
from butterbase.projections.indexes.publishing import publish, set_model, stage
from butterbase.projections.indexes.queue import blame, fail, settle, waiting_rows
from butterbase.projections.indexes.sources import SourceError, Sources
from butterbase.projections.indexes.upkeep import VECTOR_INDEX_MIN
from butterbase.projections.indexes.versions import Version, read_versions
from butterbase.projections.indexes.work import Work
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


class Session:
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
        self._models: dict[int, EmbeddingModel] = {}
        """Whose vectors the versions have."""
        self._suspects: dict[tuple[int, Key], int] = {}
        """Rows that were put down, of which a text may be at fault: how often they failed."""
        self._sweep_due_s = 0.0
        self._is_sweep_put_off = False
        self._may_wait = True
        """Whether there may be marked rows that are not at work."""
        self._look_due_s = 0.0
        """When to look for such in any case: not all that marks rows wakes us."""
        self._paused: set[int] = set()
        """Versions that were held up since their model cannot be used."""
        self._may_be_gone = False
        self._gone_due_s = 0.0

    async def turn(self, *, is_woken: bool) -> bool:
        """Do what can be done now; whether there may be more. What is nearest to its end goes
        first.
        """
        self._may_wait |= is_woken
        self._may_be_gone |= is_woken
        finished = self._lanes.finished()
        self._lanes.launch(_now_s())
        for batch in finished:
            await self._receive(batch)
        await self._take_gone()
        await self._publish()
        has_more = await self._load()
        self._lanes.launch(_now_s())
        has_more |= await self._sweep()
        return has_more or bool(finished)

    def due_in_s(self) -> float:
        """How long there is nothing to do, at most."""
        now_s = _now_s()
        waits = [lane.due_in_s(now_s) for lane in self._lanes]
        waits += [until_s - now_s for until_s in self._held_up_until_s.values()]
        waits.append(self._sweep_due_s - now_s if self._is_sweep_put_off else None)
        waits.append(self._gone_due_s - now_s if self._paused and self._may_be_gone else None)
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
        self._may_wait |= bool(ids)
        for version in (await read_versions(self._conn, ids)).values() if ids else ():
            try:
                has_more |= await mark_page(self._conn, self._sources, version)
            except SourceError as error:
                await self._hold_up(version.id, error)
        # Where rows wait there is time: they are a page ahead of the work.
        self._sweep_due_s = now_s if has_more else now_s + self._limits.sweep_s
        return has_more or bool(ids)

    async def _load(self) -> bool:
        limits, works, now_s = self._limits, self._lanes.works, _now_s()
        held_up = self._held_up()
        if not self._may_wait and now_s < self._look_due_s:
            return False
        live_count = sum(work.row.priority == LIVE for work in works)
        room = limits.open_rows_max - (len(works) - live_count)
        live_room = limits.open_rows_max - live_count
        bytes_left = limits.open_bytes_max - sum(work.byte_count for work in works)
        if max(room, live_room) <= 0 or (works and bytes_left <= 0):
            return False
        opened = {work.row.id: work.row.generation for work in works}
        count_max = len(opened) + limits.open_rows_max
        found = await waiting_rows(
            self._conn,
            without=held_up,
            limit=count_max,
            priority=LIVE if room <= 0 else 1,
        )
        rows = [row for row in found if row.id not in opened]
        rows = [row for row in rows if row.priority == LIVE][: max(0, live_room)] + [
            row for row in rows if row.priority != LIVE
        ][: max(0, room)]
        loaded = await self._loader.load(rows, bytes_left) if rows else Loaded()
        # What is at work and has changed again is looked at when it is published.
        known = opened | {row.id: row.generation for row in loaded.rows}
        self._may_wait = (
            room <= 0
            or len(found) == count_max
            or any(known.get(row.id) != row.generation for row in found)
        )
        self._look_due_s = now_s + limits.idle_s
        await self._take(loaded)
        return bool(rows)

    async def _take_gone(self) -> None:
        """Rows that were deleted need no model: they do not stay until it can be used again."""
        paused = self._paused = self._paused.intersection(self._held_up())
        began_s = _now_s()
        if not paused or not self._may_be_gone or began_s < self._gone_due_s:
            return
        self._may_be_gone = False
        opened = {work.row.id for work in self._lanes.works}
        for version in (await read_versions(self._conn, paused)).values():
            try:
                async for rows in gone_rows(self._conn, self._sources, version):
                    taken = [row for row in rows if row.id not in opened]
                    await self._take(await self._loader.load(taken, self._limits.open_bytes_max))
                    await self._publish()
            except SourceError as error:
                await self._hold_up(version.id, error)
        # All that wait are looked at each time: a tenth of the time, however many there are.
        self._gone_due_s = _now_s() + self._limits.sweep_s + 10 * (_now_s() - began_s)

    async def _take(self, loaded: Loaded) -> None:
        if loaded.settled:
            await settle(self._conn, loaded.settled)
        for row, error in loaded.failed:
            await fail(self._conn, row, error, delay_s=0, attempts_max=1)
        for version, held_up_by in loaded.held_up.items():
            await self._hold_up(version, held_up_by)
        for work in loaded.works:
            work.failure_count = max(work.failure_count, self._suspects.pop(work.row.id, 0))
            if work.version.is_blamed:
                self._blamed.add(work.version.id)  # by a process before us, perhaps
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
        still = {v: until_s for v, until_s in self._held_up_until_s.items() if until_s > now_s}
        self._may_wait |= len(still) < len(self._held_up_until_s)
        self._held_up_until_s = still
        return list(still)

    # From the model

    async def _receive(self, finished: Finished) -> None:
        if finished.error is not None:
            await self._fail(finished, finished.error)
            return
        assert finished.vectors is not None
        assert finished.model is not None
        versions = {work.version.id: work.version for work, _ in finished.batch}
        for version in versions.values():
            known = await self._know_model(version, finished.model)
            if known != finished.model:
                await self._fail(finished, _of_other_model(known, finished.model))
                return
        finished.lane.succeed()
        finished.lane.learn(finished.model)
        for (work, passage), vector in zip(finished.batch, finished.vectors, strict=True):
            work.failure_count = 0
            work.receive(passage, vector)
        await self._forgive(versions)
        for work in {id(work): work for work, _ in finished.batch}.values():
            # What was paid for is not paid for twice.
            unsaved_max = 1 if finished.lane.is_of_app else self._limits.unsaved_max
            if not work.is_complete and len(work.unsaved) >= unsaved_max:
                await self._stage(work)

    async def _know_model(self, version: Version, model: EmbeddingModel) -> EmbeddingModel | None:
        """Whose vectors the version has, now at the latest; None: it is cleared away."""
        known = self._models.get(version.id)
        if known is None:
            known = await set_model(self._conn, version.id, model)
            if known is not None:
                self._models[version.id] = known
        return known

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
        is_texts = not error.concerns_all and not error.retry_after_s
        for work, passage in reversed(finished.batch):
            work.give_back(passage)
            work.failure_count += is_texts
        ((first, _), *others) = finished.batch
        if not finished.is_texts_fault:
            await self._pause(finished.lane, error)
        elif not others:
            self._lanes.remove([first])
            await self._fail_row(first, error.reason or error)

    async def _pause(self, lane: Lane, error: EmbedderError) -> None:
        """Leave the model alone, and what waits for it where it is: others take its room."""
        until_s = lane.pause(error, _now_s())
        versions = sorted({work.version.id for work in lane.works})
        for work in lane.put_down():
            if work.unsaved:
                await self._stage(work)
            if work.failure_count > work.row.attempts:
                self._suspects[work.row.id] = work.failure_count
        for version in versions:
            self._held_up_until_s[version] = until_s
        self._paused.update(versions)
        self._may_be_gone = True
        await self._blame(versions, error.reason or error)

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
            count = await publish(self._conn, [work.publication for work in complete])
            self._may_wait |= count < len(complete)
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


def _of_other_model(known: EmbeddingModel | None, got: EmbeddingModel) -> EmbedderError:
    if known is None:
        return EmbedderError("the version of the index was cleared away")
    return MixedModelsError(
        f"the index has vectors of {known.name} with {known.dimensions} dimensions, and what came"
        f" are {got.dimensions} of {got.name}",
        hint="vectors of two models are never mixed; ai.alter_index makes a new version",
    )


def _now_s() -> float:
    return asyncio.get_running_loop().time()
