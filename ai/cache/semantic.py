"""Answers to questions that mean the same."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from butterbase.ai.cache.canonical import Canonical
from butterbase.ai.cache.likeness import contradiction
from butterbase.ai.cache.store import Meaning, Near, Store, write_vector
from butterbase.projections.embedder import Embedder, EmbedderError

EMBED_TIMEOUT_S = 2.0
"""A call is not held up for longer by an embedder that is slow, or not there yet."""
COMPLAINED_EVERY_S = 60.0

OpenEmbedder: TypeAlias = Callable[[], Awaitable[Embedder]]

_log = logging.getLogger(__name__)


class MeaningSearch:
    def __init__(self, store: Store, open_embedder: OpenEmbedder) -> None:
        self._store = store
        self._open_embedder = open_embedder
        self._complained_s = float("-inf")

    async def read(self, named: Canonical) -> Meaning | None:
        """None where it cannot be compared, or there is no embedder now."""
        if named.space is None:
            return None
        try:
            async with asyncio.timeout(EMBED_TIMEOUT_S):
                embedder = await self._open_embedder()
                (vector,) = await embedder.embed([named.question])
        except EmbedderError as error:
            self._complain(error.message)
            return None
        except TimeoutError:
            self._complain("the embedder is slow")
            return None
        return Meaning(named.space, named.question, embedder.name, write_vector(vector))

    async def find(
        self, app_id: str, meaning: Meaning, *, threshold: float, oldest_s: float
    ) -> Near | None:
        """Raises DatabaseError, DatabaseUnavailableError."""
        # Similarities are sums of rounded products: equal ones may differ in the last digits.
        found = await self._store.near(
            app_id, meaning, oldest_s=oldest_s, similarity=threshold - 1e-6
        )
        return next(
            (near for near in found if not contradiction(meaning.question, near.question)), None
        )

    def _complain(self, reason: str) -> None:
        now_s = time.monotonic()
        if now_s - self._complained_s >= COMPLAINED_EVERY_S:
            self._complained_s = now_s
            _log.warning("questions are not compared by meaning: %s", reason)
