"""What is not to be asked again for a while."""

import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

COUNT_MAX: Final = 10_000
"""Beyond it those that were paused first are asked again."""

K = TypeVar("K", bound=Hashable)


class Pauses(Generic[K]):
    def __init__(self, pause_s: float, *, now_s: Callable[[], float] = time.monotonic) -> None:
        self._pause_s = pause_s
        self._now_s = now_s
        self._until_s: dict[K, float] = {}
        """In the order of their ends."""

    def __contains__(self, key: K) -> bool:
        until_s = self._until_s.get(key)
        return until_s is not None and self._now_s() < until_s

    def add(self, key: K) -> None:
        self._until_s.pop(key, None)
        self._until_s[key] = self._now_s() + self._pause_s
        if len(self._until_s) > COUNT_MAX:
            del self._until_s[next(iter(self._until_s))]
