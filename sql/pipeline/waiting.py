"""Callers who wait for a connection: in their order, and for a bounded time."""

import asyncio
from collections import deque
from contextlib import suppress
from typing import Generic, TypeAlias, TypeVar

from butterbase.sql.errors import AcquisitionTimeoutError, DatabaseUnavailableError

T = TypeVar("T")

Waiter: TypeAlias = tuple[float, asyncio.Future[T | None]]
"""A deadline on the loop's clock, and what is to come."""


class Queue(Generic[T]):
    """What is waited for is a T, or None: the chance to open one."""

    def __init__(self, *, count_max: int, timeout_s: float) -> None:
        self._count_max = count_max
        self._timeout_s = timeout_s
        self._waiters: deque[Waiter[T]] = deque()  # by deadline
        self._timer: asyncio.TimerHandle | None = None

    def join(self) -> Waiter[T]:
        """What comes may be AcquisitionTimeoutError. A caller who is cancelled meanwhile leaves.

        Raises DatabaseUnavailableError where too many wait.
        """
        if len(self._waiters) >= self._count_max:
            raise DatabaseUnavailableError("too many requests wait for a database connection")
        loop = asyncio.get_running_loop()
        waiter = (loop.time() + self._timeout_s, loop.create_future())
        self._waiters.append(waiter)
        if self._timer is None:
            self._timer = loop.call_at(waiter[0], self._expire)
        return waiter

    def rejoin(self, waiter: Waiter[T]) -> Waiter[T]:
        """What came was taken by another, and it is still this caller's turn."""
        loop = asyncio.get_running_loop()
        waiter = (waiter[0], loop.create_future())
        self._waiters.appendleft(waiter)
        if self._timer is None:
            self._timer = loop.call_at(waiter[0], self._expire)
        return waiter

    def leave(self, waiter: Waiter[T]) -> None:
        """Make room for another who would wait."""
        with suppress(ValueError):  # its time was over
            self._waiters.remove(waiter)

    def wake(self, found: T | None) -> bool:
        """Whether there was one to wake."""
        while self._waiters:
            _, coming = self._waiters.popleft()
            if not coming.done():
                coming.set_result(found)
                return True
        return False

    def close(self, error: DatabaseUnavailableError) -> None:
        """Turn all away."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        while self._waiters:
            self._refuse(error)

    def _expire(self) -> None:
        # One timer for all: a timer for each costs as much as the wait of most.
        loop = asyncio.get_running_loop()
        self._timer = None
        while self._waiters and self._waiters[0][0] <= loop.time():
            self._refuse(AcquisitionTimeoutError())
        if self._waiters:
            self._timer = loop.call_at(self._waiters[0][0], self._expire)

    def _refuse(self, error: DatabaseUnavailableError) -> None:
        _, coming = self._waiters.popleft()
        if not coming.done():
            coming.set_exception(error)
