"""Turns of the calls of one app: who would wait for the same rows waits here.

An app's admissions lock the rows of its budgets one after another. All at once they would hold
every connection of the worker, which other apps need, and have Postgres sort out who is next.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from weakref import WeakValueDictionary

from butterbase.sql.errors import AcquisitionTimeoutError

AT_ONCE_COUNT = 2
"""While one has the rows, the next is on its way."""

WAIT_S_MAX = 10.0


class Turns:
    def __init__(self) -> None:
        # An app that nobody calls has none.
        self._queues: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    @asynccontextmanager
    async def of(self, app_id: str) -> AsyncIterator[None]:
        """Raises AcquisitionTimeoutError."""
        queue = self._queues.get(app_id)
        if queue is None:
            queue = self._queues[app_id] = asyncio.Semaphore(AT_ONCE_COUNT)
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                await queue.acquire()
        except TimeoutError as error:
            raise AcquisitionTimeoutError("too many calls of the app wait") from error
        try:
            yield
        finally:
            queue.release()
