"""The schema cache that requests are planned with, and its replacement when the schema changes.

Who listens for changes asks for a reload; requests take `current` once and keep what they took.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from butterbase.sql.errors import DatabaseError, DatabaseUnavailableError
from butterbase.sql.relations.model import SchemaCache

logger = logging.getLogger(__name__)

RETRY_MIN_S = 0.25
RETRY_MAX_S = 32.0


class SchemaCacheHolder:
    """Loads at most one cache at a time, and serves the one before until it is there."""

    def __init__(
        self,
        load: Callable[[], Awaitable[SchemaCache]],
        *,
        read_version: Callable[[], Awaitable[int]] | None = None,
        retry_min_s: float = RETRY_MIN_S,
        retry_max_s: float = RETRY_MAX_S,
    ) -> None:
        """`read_version`: how often the database's schema has changed, where it counts that."""
        self._load = load
        self._read_version = read_version
        self._loaded_version: int | None = None
        self._retry_min_s = retry_min_s
        self._retry_max_s = retry_max_s
        self._asked: asyncio.Future[None] | None = None
        """Of the next load, once somebody asked for it."""
        self._loading: asyncio.Task[None] | None = None
        self.current: SchemaCache | None = None
        """None until the first load."""
        self.version = 0
        """How many caches there have been."""

    async def reload(self) -> None:
        """Return once a load that began after this call has succeeded.

        A caller that is cancelled leaves the load under way. Raises what `load` raises, but for
        DatabaseError and DatabaseUnavailableError, after which it is tried again.
        """
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
        asked = self._asked
        if self._loading is None:
            self._loading = asyncio.create_task(self._work())
        await asyncio.shield(asked)

    async def catch_up(self) -> bool:
        """Reload if the database's schema is newer than ours; whether it was.

        Raises DatabaseError, DatabaseUnavailableError.
        """
        if self._read_version is None or await self._read_version() == self._loaded_version:
            return False
        await self.reload()
        return True

    async def close(self) -> None:
        """Stop loading; reloads that wait are cancelled."""
        if self._loading is not None:
            self._loading.cancel()
            await asyncio.wait([self._loading])

    async def _work(self) -> None:
        asked = None
        try:
            while self._asked is not None:
                asked, self._asked = self._asked, None
                try:
                    self.current = await self._load_at_last()
                except Exception as error:
                    asked.set_exception(error)
                else:
                    self.version += 1
                    asked.set_result(None)
        finally:
            for unanswered in (asked, self._asked):
                if unanswered is not None:
                    unanswered.cancel()
            self._asked = self._loading = None

    async def _load_at_last(self) -> SchemaCache:
        pause_s = self._retry_min_s
        while True:
            try:
                # Read first: what changes from here on makes a later version.
                version = None if self._read_version is None else await self._read_version()
                cache = await self._load()
                self._loaded_version = version
                return cache
            except (DatabaseError, DatabaseUnavailableError) as error:
                logger.warning("loading the schema cache failed: %s", error.message)
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, self._retry_max_s)
