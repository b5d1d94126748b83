"""Lanes: a model each, with what waits for it. One that cannot be used keeps no other waiting.

The installation's models have a lane each. Of an app's, each version of an index has its own: it
may have a budget of its own, and what a call costs is told of one index.
"""

import asyncio
from collections.abc import Collection, Iterator
from typing import Final

import msgspec
import numpy as np
import numpy.typing as npt
from msgspec import Struct

from butterbase.projections.embedder import (
    BatchLimits,
    Embedder,
    EmbedderError,
    Embedders,
    EmbeddingModel,
    Wanted,
    is_of_app,
)
from butterbase.projections.indexes.work import Batch, Work, next_batch

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
    def __init__(self, embedders: Embedders, wanted: Wanted, retry_s: float, longest_s: float):
        self._embedders, self._wanted = embedders, wanted
        self.is_of_app = is_of_app(embedders.installed, wanted)
        self._retry_s, self._retry_longest_s = retry_s, longest_s
        self._failure_count = 0
        self._paused_until_s = 0.0
        self._limits = BatchLimits()  # until the model is open
        self.works: list[Work] = []
        self.tasks: set[asyncio.Task[Finished]] = set()

    def launch(self, now_s: float) -> None:
        """Send what waits to the model, as far as it takes it."""
        while len(self.tasks) < CONCURRENCY and now_s >= self._paused_until_s:
            limits = self._limits
            batch = next_batch(self.works, count_max=limits.texts_max, chars_max=limits.chars_max)
            if not batch:
                return
            self.tasks.add(asyncio.create_task(self._embed(batch)))

    def succeed(self) -> None:
        self._failure_count = 0

    def learn(self, model: EmbeddingModel) -> None:
        """Its version has vectors of that model now, and is to get no others."""
        if self.is_of_app:
            self._wanted = msgspec.structs.replace(self._wanted, known=model.name)

    def pause(self, error: EmbedderError, now_s: float) -> float:
        """Leave the model alone for a while, longer each time; until when."""
        self._failure_count += 1
        backoff_s = self._retry_s * 2 ** min(30, self._failure_count - 1)
        delay_s = max(error.retry_after_s, min(self._retry_longest_s, backoff_s))
        self._paused_until_s = max(self._paused_until_s, now_s + delay_s)
        return self._paused_until_s

    def put_down(self) -> list[Work]:
        """What waits for the model goes; it would keep others from being taken up."""
        idle = [w for w in self.works if not w.at_model_count and not w.is_complete]
        self.works = [w for w in self.works if w.at_model_count or w.is_complete]
        return idle

    def is_idle(self, now_s: float) -> bool:
        """Whether nothing would be forgotten with it."""
        return not self._failure_count or now_s > self._paused_until_s + self._retry_longest_s

    def due_in_s(self, now_s: float) -> float | None:
        """When it can go on; None where nothing is held up by a pause."""
        if self._paused_until_s <= now_s or not any(work.missing for work in self.works):
            return None
        return self._paused_until_s - now_s

    async def _embed(self, batch: Batch) -> Finished:
        try:
            embedder: Embedder = await self._embedders.get(self._wanted)
            self._limits = embedder.limits
            vectors = await embedder.embed([passage.text for _, passage in batch])
        except EmbedderError as error:
            may_be_text = not error.retry_after_s and not error.concerns_all
            is_texts_fault = error.blames_texts or (
                len(batch) == 1 and may_be_text and await self._is_well()
            )
            return Finished(self, batch, None, None, error, is_texts_fault)
        model = EmbeddingModel(embedder.name, vectors.shape[1])
        return Finished(self, batch, model, vectors, None)

    async def _is_well(self) -> bool:
        try:
            await (await self._embedders.get(self._wanted)).embed([HARMLESS])
        except EmbedderError:
            return False
        return True


class Lanes:
    """Of one app."""

    def __init__(self, embedders: Embedders, retry_s: float, retry_longest_s: float) -> None:
        self._embedders = embedders
        self._retry_s, self._retry_longest_s = retry_s, retry_longest_s
        self._lanes: dict[str | int, Lane] = {}
        """By the name of the installation's model, or the version's id."""

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def add(self, work: Work) -> None:
        wanted = work.version.wanted
        key: str | int = work.version.id
        if not is_of_app(self._embedders.installed, wanted):
            # Two indexes may ask for it in two ways.
            key = wanted.known or wanted.model or self._embedders.model.name
            wanted = Wanted(key)
        if key not in self._lanes:
            self._forget_empty()
            self._lanes[key] = Lane(self._embedders, wanted, self._retry_s, self._retry_longest_s)
        self._lanes[key].works.append(work)

    def _forget_empty(self) -> None:
        """Versions come and go; a lane that is paused remembers how often it failed."""
        now_s = asyncio.get_running_loop().time()
        self._lanes = {
            key: lane
            for key, lane in self._lanes.items()
            if lane.works or lane.tasks or not lane.is_idle(now_s)
        }

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
