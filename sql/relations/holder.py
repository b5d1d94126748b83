"""The schema cache that requests are planned with, and its replacement when the schema changes.

Who listens for changes asks for a reload; requests take `current` once and keep what they took.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from butterbase.sql.errors import ButterbaseError
from butterbase.sql.relations.model import SchemaCache

logger = logging.getLogger(__name__)

RETRY_MIN_S = 0.25
RETRY_MAX_S = 32.0


class SchemaCacheHolder:
    """Loads at most one cache at a time, and serves the one before until it is there.

    A load that fails is tried again until one succeeds, whether or not anybody waits for it.
    """

    def __init__(
        self,
        load: Callable[[], Awaitable[SchemaCache]],
        *,
        read_version: Callable[[], Awaitable[bytes]] | None = None,
        retry_min_s: float = RETRY_MIN_S,
        retry_max_s: float = RETRY_MAX_S,
    ) -> None:
        """`read_version`: what differs once the schema has changed, where the database tells."""
        self._load = load
        self._read_version = read_version
        self._loaded_version: bytes | None = None
        self._retry_min_s = retry_min_s
        self._retry_max_s = retry_max_s
        self._asked: asyncio.Future[None] | None = None
        """Of the next load, once somebody asked for it."""
        self._is_asked = asyncio.Event()
        self._loading: asyncio.Task[None] | None = None
        self.current: SchemaCache | None = None
        """None until the first load."""
        self.version = 0
        """How many caches there have been."""

    def ask(self) -> None:
        """Have it loaded anew, soon."""
        self._next()

    async def reload(self) -> None:
        """Return once a load that began after this call has succeeded. Raises what it raises.

        A caller that is cancelled leaves the load under way.
        """
        await asyncio.shield(self._next())

    async def catch_up(self) -> bool:
        """Reload if the database's schema is another than ours; whether it was.

        Raises what `reload` raises, DatabaseError and DatabaseUnavailableError above all.
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
        if self._asked is not None:  # of a load that had not begun
            self._asked.cancel()
            self._asked = self._loading = None

    def _next(self) -> "asyncio.Future[None]":
        """The end of the next load."""
        if self._asked is None:
            self._asked = asyncio.get_running_loop().create_future()
            self._is_asked.set()  # no pause before a load that somebody asked for
        if self._loading is None:
            self._loading = asyncio.create_task(self._work())
        return self._asked

    async def _work(self) -> None:
        asked: asyncio.Future[None] | None = None
        pause_s = self._retry_min_s
        is_loaded = False
        try:
            while self._asked is not None or not is_loaded:
                asked, self._asked = self._asked, None
                self._is_asked.clear()
                error = await self._try()
                is_loaded = error is None
                _tell(asked, error)
                if not is_loaded:
                    await self._pause(pause_s)
                    pause_s = min(pause_s * 2, self._retry_max_s)
        finally:
            for unanswered in (asked, self._asked):
                if unanswered is not None:
                    unanswered.cancel()
            self._asked = self._loading = None

    async def _try(self) -> Exception | None:
        """What kept a load from succeeding."""
        try:
            # Read first: what changes from here on makes another version.
            version = None if self._read_version is None else await self._read_version()
            self.current = await self._load()
        except ButterbaseError as error:
            logger.warning("loading the schema cache failed: %s", error.message)
            return error
        except Exception as error:
            logger.exception("loading the schema cache failed")
            return error
        self._loaded_version = version
        self.version += 1
        return None

    async def _pause(self, pause_s: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(pause_s):
                await self._is_asked.wait()


def _tell(asked: "asyncio.Future[None] | None", error: Exception | None) -> None:
    if asked is None:
        return
    if error is None:
        asked.set_result(None)
    else:
        asked.set_exception(error)
        asked.exception()  # perhaps nobody waits, and it was logged
