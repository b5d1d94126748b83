"""Rows at work: which passages wait for vectors, and which go to the model next. Without IO."""

from collections import deque
from collections.abc import Collection, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from butterbase.projections.indexes.passages import Difference, Passage
from butterbase.projections.indexes.publishing import Publication, Vector
from butterbase.projections.indexes.queue import Waiting
from butterbase.projections.indexes.versions import Version


class Work:
    """A row, from when it is cut until it is published."""

    def __init__(
        self,
        row: Waiting,
        version: Version,
        *,
        source_hash: str | None = None,
        source_updated_at: str | None = None,
        metadata: str = "{}",
        difference: Difference | None = None,
        without: Collection[str] = (),
        byte_count: int = 0,
        order: int = 0,
    ) -> None:
        """`without`: hashes of passages that need no vector. `order` grows with each."""
        self.row, self.version = row, version
        self.source_hash, self.source_updated_at = source_hash, source_updated_at
        self.metadata = metadata
        self.difference = difference or Difference((), (), ())
        self.byte_count, self.order = byte_count, order
        needed = {passage.content_hash: passage for passage in self.difference.new}
        self.missing = deque(p for hash_, p in needed.items() if hash_ not in without)
        self.total = len(needed)
        self.waiting = len(self.missing)
        """Passages without vectors, at the model or before it."""
        self.vectors: dict[str, Vector] = {}
        self.unsaved: dict[str, Vector] = {}
        """Those of `vectors` that a crash would lose."""
        self.is_staged = row.is_begun
        self.failure_count = row.attempts
        """How often a batch failed with a text of it, since one succeeded."""

    @property
    def is_complete(self) -> bool:
        return not self.waiting

    @property
    def at_model_count(self) -> int:
        """Passages that are at the model now."""
        return self.waiting - len(self.missing)

    def take(self) -> Passage:
        return self.missing.popleft()

    def give_back(self, passage: Passage) -> None:
        self.missing.appendleft(passage)

    def receive(self, passage: Passage, vector: npt.NDArray[np.float32]) -> None:
        self.waiting -= 1
        self.vectors[passage.content_hash] = self.unsaved[passage.content_hash] = vector

    def saved(self) -> None:
        """What is not saved now is: it need not be held."""
        self.vectors.clear()
        self.unsaved = {}
        self.is_staged = True

    @property
    def publication(self) -> Publication:
        return Publication(
            version=self.version,
            key=self.row.key,
            generation=self.row.generation,
            done_generation=self.row.done_generation,
            source_hash=self.source_hash,
            source_updated_at=self.source_updated_at,
            metadata=self.metadata,
            difference=self.difference,
            vectors=self.vectors,
            is_known=self.row.passage_count is not None,
            is_staged=self.is_staged,
        )


Batch = list[tuple[Work, Passage]]


def next_batch(works: Iterable[Work], *, count_max: int, chars_max: int) -> Batch:
    """The texts that go to the model together, [] where none waits.

    Rows that the log told of come first, and of those the ones that are soonest done; a quarter
    belongs to the row that waits longest, so that a long one ends as well. A text of a row that
    failed goes alone: one text may be at fault.
    """
    waiting = [work for work in works if work.missing]
    if not waiting:
        return []
    sound = [work for work in waiting if not work.failure_count]
    if not sound:
        work = min(waiting, key=lambda work: (work.failure_count, work.order))
        return [(work, work.take())]
    batch: Batch = []
    room = _Room(count_max, chars_max)
    oldest = min(sound, key=lambda work: work.order)
    room.fill(batch, [oldest], count_max // 4)
    by_length = sorted(sound, key=lambda work: (work.row.priority, work.waiting, work.order))
    room.fill(batch, by_length, count_max)
    return batch


class _Room:
    def __init__(self, count_max: int, chars_max: int) -> None:
        self._count_max, self._chars = count_max, chars_max

    def fill(self, batch: Batch, works: Sequence[Work], count_max: int) -> None:
        for work in works:
            while work.missing and len(batch) < min(count_max, self._count_max):
                length = len(work.missing[0].text)
                if batch and length > self._chars:
                    return
                self._chars -= length
                batch.append((work, work.take()))
