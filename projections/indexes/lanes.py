"""Lanes: a model each, with what waits for it. One that cannot be used keeps no other waiting."""

import asyncio
from collections.abc import Collection, Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
from msgspec import Struct

from butterbase.projections.embedder import Embedder, EmbedderError, Embedders, EmbeddingModel
from butterbase.projections.indexes.work import Batch, Work, next_batch

BATCH_COUNT_MAX: Final = 32
BATCH_CHARS_MAX: Final = 100_000
"""Unless one text alone has more. Providers limit the tokens of a request."""
CONCURRENCY: Final = 2
"""One batch at the model, and the next one ready."""
HARMLESS: Final = "text"
"""Asked for after a text has failed: where that fails too, it is not the text's fault."""


class Finished(Struct, frozen=True):
    """What became of a batch."""

    lane: "Lane"
    batch: Batch
    model: EmbeddingModel | None
    vectors: npt.NDArray[np.float32] | None
    error: EmbedderError | None
    is_texts_fault: bool = False
    """Whether the model took another text right after it."""


class Lane:
    def __init__(self, embedders: Embedders, model: str | None, retry_s: float, longest_s: float):
        self._embedders, self._model = embedders, model
        self._retry_s, self._retry_longest_s = retry_s, longest_s
        self._failure_count = 0
        self._paused_until_s = 0.0
        self.works: list[Work] = []
        self.tasks: set[asyncio.Task[Finished]] = set()

    def launch(self, now_s: float) -> None:
        """Send what waits to the model, as far as it takes it."""
        while len(self.tasks) < CONCURRENCY and now_s >= self._paused_until_s:
            batch = next_batch(self.works, count_max=BATCH_COUNT_MAX, chars_max=BATCH_CHARS_MAX)
            if not batch:
                return
            self.tasks.add(asyncio.create_task(self._embed(batch)))

    def succeed(self) -> None:
        self._failure_count = 0

    def pause(self, error: EmbedderError, now_s: float) -> None:
        """Leave the model alone for a while, longer each time."""
        self._failure_count += 1
        backoff_s = self._retry_s * 2 ** (self._failure_count - 1)
        delay_s = max(error.retry_after_s, min(self._retry_longest_s, backoff_s))
        self._paused_until_s = max(self._paused_until_s, now_s + delay_s)

    def due_in_s(self, now_s: float) -> float | None:
        """When it can go on; None where nothing is held up by a pause."""
        if self._paused_until_s <= now_s or not any(work.missing for work in self.works):
            return None
        return self._paused_until_s - now_s

    async def _embed(self, batch: Batch) -> Finished:
        try:
            embedder: Embedder = await self._embedders.get(self._model)
            vectors = await embedder.embed([passage.text for _, passage in batch])
        except EmbedderError as error:
            is_texts_fault = error.blames_texts or (
                len(batch) == 1 and not error.retry_after_s and await self._is_well()
            )
            return Finished(self, batch, None, None, error, is_texts_fault)
        return Finished(self, batch, embedder.model, vectors, None)

    async def _is_well(self) -> bool:
        try:
            await (await self._embedders.get(self._model)).embed([HARMLESS])
        except EmbedderError:
            return False
        return True


class Lanes:
    """Of one app."""

    def __init__(self, embedders: Embedders, retry_s: float, retry_longest_s: float) -> None:
        self._embedders = embedders
        self._retry_s, self._retry_longest_s = retry_s, retry_longest_s
        self._lanes: dict[str | None, Lane] = {}

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def add(self, work: Work) -> None:
        model = work.version.wanted_model
        if model not in self._lanes:
            self._lanes[model] = Lane(self._embedders, model, self._retry_s, self._retry_longest_s)
        self._lanes[model].works.append(work)

    def remove(self, works: Collection[Work]) -> None:
        gone = set(map(id, works))
        for lane in self:
            lane.works = [work for work in lane.works if id(work) not in gone]

    @property
    def works(self) -> list[Work]:
        return [work for lane in self for work in lane.works]

    @property
    def tasks(self) -> set[asyncio.Task[Finished]]:
        return {task for lane in self for task in lane.tasks}

    def finished(self) -> list[Finished]:
        """What has ended since the last call. Raises what a batch should not have."""
        ended = []
        for lane in self:
            for task in [task for task in lane.tasks if task.done()]:
                lane.tasks.remove(task)
                ended.append(task.result())
        return ended

    def launch(self, now_s: float) -> None:
        for lane in self:
            lane.launch(now_s)

    def cancel(self) -> None:
        for task in self.tasks:
            task.cancel()
