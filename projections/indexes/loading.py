"""Marked rows → works: reads the rows as they are now, cuts and compares them."""

import asyncio
import itertools
import logging
from collections.abc import Sequence
from operator import attrgetter
from typing import Final

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.projections.embedder import Embedders, EmbeddingModel, is_of_app
from butterbase.projections.indexes.errors import (
    ModelChangedError,
    RowTooLargeError,
    RowUnreadableError,
)
from butterbase.projections.indexes.passages import (
    Passage,
    SourceRow,
    compare,
    cut,
    source_hash,
)
from butterbase.projections.indexes.publishing import published, staged
from butterbase.projections.indexes.queue import Waiting
from butterbase.projections.indexes.sources import SourceError, Sources
from butterbase.projections.indexes.versions import Version, read_versions
from butterbase.projections.indexes.work import Work
from butterbase.projections.tokens import Tokenizer
from butterbase.sql.errors import ButterbaseError

logger = logging.getLogger(__name__)

ROW_BYTES_MAX: Final = 16 * 1024**2
"""Of the texts of a row that is indexed."""
SMALL_BYTES_MAX: Final = 256 * 1024
"""Of the texts of rows that are read together; of a larger one the size is read first."""


class Loaded(Struct):
    works: list[Work] = []
    settled: list[tuple[Waiting, str | None]] = []
    """As they are published; with `updated_at` of their sources."""
    failed: list[tuple[Waiting, ButterbaseError]] = []
    """For good, as long as they are as they are."""
    held_up: dict[int, ButterbaseError | None] = {}
    """Versions of which nothing can be done now, and why. None: they are cleared away."""

    @property
    def rows(self) -> list[Waiting]:
        """Those that something became of."""
        done = [row for row, _ in (*self.settled, *self.failed)]
        return [work.row for work in self.works] + done


class Loader:
    def __init__(
        self, conn: AsyncConnection, sources: Sources, embedders: Embedders, tokenizer: Tokenizer
    ) -> None:
        self._conn, self._sources = conn, sources
        self._embedders, self._tokenizer = embedders, tokenizer
        self._order = itertools.count()

    async def load(self, rows: Sequence[Waiting], bytes_max: int) -> Loaded:
        """Of the rows, as many as have `bytes_max` of text together, and at least one."""
        loaded = Loaded()
        of_version = attrgetter("version_id")
        versions = await read_versions(self._conn, {row.version_id for row in rows})
        bytes_left = bytes_max
        for id_, group in itertools.groupby(sorted(rows, key=of_version), of_version):
            version = versions.get(id_)
            if version is None:
                loaded.held_up[id_] = None
                continue
            try:
                bytes_left -= await self._load(version, list(group), bytes_left, loaded)
            except SourceError as error:
                loaded.held_up[id_] = error
            if bytes_left <= 0:
                break
        return loaded

    async def _load(
        self, version: Version, rows: Sequence[Waiting], bytes_max: int, loaded: Loaded
    ) -> int:
        """How many bytes of text were read."""
        there = await self._sources.rows(
            version, [row.key for row in rows], bytes_max=SMALL_BYTES_MAX
        )
        taken: list[Waiting] = []
        byte_count = 0
        for row in rows:
            source = there.get(row.key)
            size = 0 if source is None else source.byte_count
            if size > ROW_BYTES_MAX:
                error = RowTooLargeError(f"{size} bytes of text, of at most {ROW_BYTES_MAX}")
                loaded.failed.append((row, error))
                continue
            if (taken or loaded.works) and byte_count + size > bytes_max:
                break
            if size > SMALL_BYTES_MAX:
                there.pop(row.key)
                there |= await self._sources.rows(version, [row.key], bytes_max=ROW_BYTES_MAX)
            taken.append(row)
            byte_count += size
        changed = []
        for row in taken:
            source = there.get(row.key)
            hash_ = None if source is None else source_hash(source)
            is_published = hash_ == row.source_hash and row.passage_count is not None
            if source is not None and is_published:
                loaded.settled.append((row, source.updated_at))
            else:
                changed.append((row, source, hash_))
        pieces = await asyncio.to_thread(
            _cut_all, [source for _, source, _ in changed], version, self._tokenizer
        )
        for (row, source, hash_), passages in zip(changed, pieces, strict=True):
            if isinstance(passages, ButterbaseError):
                loaded.failed.append((row, passages))
            else:
                await self._compare(version, row, source, hash_, passages, loaded)
        return byte_count

    async def _compare(
        self,
        version: Version,
        row: Waiting,
        source: SourceRow | None,
        hash_: str | None,
        passages: Sequence[Passage],
        loaded: Loaded,
    ) -> None:
        known = {}
        if row.passage_count is not None:
            known = await published(self._conn, version, row.key)
        have = {stored.content_hash for stored in known.values()}
        if row.is_begun:
            have |= await staged(self._conn, version, row.key)
        work = Work(
            row,
            version,
            source_hash=hash_,
            source_updated_at=None if source is None else source.updated_at,
            metadata="{}" if source is None else source.metadata,
            difference=compare(passages, known),
            without=have,
            byte_count=0 if source is None else source.byte_count,
            order=next(self._order),
        )
        if work.missing and not self._has_model(version):
            loaded.held_up[version.id] = ModelChangedError(
                f"the index has vectors of {version.model}, and the model is"
                f" {self._embedders.model.name}"
            )
        else:
            loaded.works.append(work)

    def _has_model(self, version: Version) -> bool:
        """Whether the installation has it still. Of an app's that is seen when it is asked."""
        if version.model is None or version.dimensions is None:
            return True
        if is_of_app(self._embedders.installed, version.wanted):
            return True
        known = EmbeddingModel(version.model, version.dimensions)
        return self._embedders.installed(version.model) == known


def _cut_all(
    sources: Sequence[SourceRow | None], version: Version, tokenizer: Tokenizer
) -> list[list[Passage] | ButterbaseError]:
    return [[] if source is None else _cut(source, version, tokenizer) for source in sources]


def _cut(
    source: SourceRow, version: Version, tokenizer: Tokenizer
) -> list[Passage] | ButterbaseError:
    try:
        return cut(source, version, tokenizer)
    except msgspec.ValidationError as error:
        return RowUnreadableError(f"its layout cannot be read: {error}")
    except Exception:
        # One text that we cannot cut must not keep all others waiting.
        logger.exception("a row of index version %d cannot be cut", version.id)
        return RowUnreadableError("it cannot be cut into passages; the log of the server says why")
