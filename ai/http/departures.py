"""Clients that leave before their answer: what runs for them is cancelled.

Most answers are sent within a few milliseconds, so that asking for each whether its client is
still there would cost more than it saves. One timer looks for those that take longer.

It lies in the lower of the two folders that answer requests; api/ uses it as well.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

Receive: TypeAlias = Callable[[], Awaitable[dict[str, Any]]]

SWEEP_S = 0.02


class Stay:
    """A request under way."""

    __slots__ = ("has_left", "is_old", "receive", "task", "watcher")

    def __init__(self, task: "asyncio.Task[Any]", receive: Receive) -> None:
        self.task = task
        self.receive = receive
        self.is_old = False
        self.watcher: asyncio.Task[None] | None = None
        self.has_left = False
        """Whether it was cancelled for that."""


class Departures:
    """`begin` and `end` stand around what may be cancelled, after the body has been received."""

    def __init__(self) -> None:
        self._stays: set[Stay] = set()
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, receive: Receive) -> Stay:
        task = asyncio.current_task()
        assert task is not None
        stay = Stay(task, receive)
        self._stays.add(stay)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)
        return stay

    def watch(self, stay: Stay) -> None:
        """From now on, since its answer takes long."""
        if stay.watcher is None:
            stay.watcher = asyncio.create_task(_watch(stay))

    def end(self, stay: Stay) -> None:
        self._stays.discard(stay)
        if stay.watcher is not None:
            stay.watcher.cancel()
            stay.watcher = None  # it holds the stay: both would wait for the garbage collector

    def _sweep(self) -> None:
        self._timer = None
        for stay in self._stays:
            if not stay.is_old:
                stay.is_old = True
            else:
                self.watch(stay)
        if self._stays:
            self._timer = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)


async def _watch(stay: Stay) -> None:
    while (await stay.receive())["type"] != "http.disconnect":
        pass
    if not stay.task.done():
        stay.has_left = True
        stay.task.cancel()
