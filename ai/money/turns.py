"""Turns of the calls of one app: who would wait for the same rows waits here.

An app's admissions lock the rows of its budgets one after another. All at once they would hold
every connection of the worker, which other apps need, and have Postgres sort out who is next.
"""

import asyncio
from weakref import WeakValueDictionary

from butterbase.sql.errors import AcquisitionTimeoutError
from butterbase.sql.pipeline.waiting import Queue

AT_ONCE_COUNT = 2
"""While one has the rows, the next is on its way."""

WAIT_S_MAX = 10.0

WAITER_COUNT_MAX = 100_000
"""More than a worker has connections of clients."""


class Turns:
    def __init__(self) -> None:
        # An app that nobody calls has none.
        self._lines: WeakValueDictionary[str, _Line] = WeakValueDictionary()

    def of(self, app_id: str) -> "Turn":
        """To be held by `async with`, which raises AcquisitionTimeoutError."""
        line = self._lines.get(app_id)
        if line is None:
            line = self._lines[app_id] = _Line()
        return Turn(line)


class _Line:
    __slots__ = ("__weakref__", "free_count", "queue")

    def __init__(self) -> None:
        self.free_count = AT_ONCE_COUNT
        self.queue = Queue[None](count_max=WAITER_COUNT_MAX, timeout_s=WAIT_S_MAX)

    def pass_on(self) -> None:
        if not self.queue.wake(None):
            self.free_count += 1


class Turn:
    """A class of its own, since a generator's context takes longer than all that is done in it."""

    __slots__ = ("_line",)

    def __init__(self, line: _Line) -> None:
        self._line = line

    async def __aenter__(self) -> None:
        line = self._line
        if line.free_count:
            line.free_count -= 1
            return
        waiter = line.queue.join()
        try:
            await waiter[1]
        except AcquisitionTimeoutError as error:
            raise AcquisitionTimeoutError("too many calls of the app wait") from error
        except asyncio.CancelledError:
            if waiter[1].cancelled():
                line.queue.leave(waiter)
            elif waiter[1].exception() is None:
                line.pass_on()  # it had come in this moment
            raise

    async def __aexit__(self, *_raised: object) -> None:
        self._line.pass_on()
