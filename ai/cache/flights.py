"""Calls under way whose answer others wait for, in this worker and heard of from others.

A call that fails has not asked for those who wait: they ask for themselves, all at once. Of one
whose client left another takes its place, and the rest goes on waiting.
"""

import asyncio
from typing import Literal, TypeAlias

from butterbase.ai.cache.exact import Entry

Landing: TypeAlias = Entry | Literal["failed", "left"]


class Flight:
    def __init__(self) -> None:
        self._landing: asyncio.Future[Landing] = asyncio.get_running_loop().create_future()

    async def wait(self) -> Landing:
        # Shielded: one of those who wait may leave.
        return await asyncio.shield(self._landing)

    def land(self, landing: Landing) -> None:
        if not self._landing.done():
            self._landing.set_result(landing)


class Flights:
    """Of one worker, by the entry's id."""

    def __init__(self) -> None:
        self._flights: dict[bytes, Flight] = {}

    def __len__(self) -> int:
        return len(self._flights)

    @property
    def ids(self) -> list[bytes]:
        return list(self._flights)

    def get(self, id_: bytes) -> Flight | None:
        return self._flights.get(id_)

    def start(self, id_: bytes) -> Flight:
        assert id_ not in self._flights
        flight = self._flights[id_] = Flight()
        return flight

    def land(self, id_: bytes, flight: Flight, landing: Landing) -> None:
        """No one joins it any more. Once."""
        if self._flights.get(id_) is flight:
            del self._flights[id_]
        flight.land(landing)


class News:
    """What other workers say of their flights."""

    def __init__(self) -> None:
        self._awaited: dict[bytes, asyncio.Future[str]] = {}

    def expect(self, id_: bytes) -> None:
        """From now on; to be followed by `wait` or `forget`. One for each id at a time."""
        self._awaited[id_] = asyncio.get_running_loop().create_future()

    async def wait(self, id_: bytes, within_s: float) -> str:
        """How it ended, as of butterbase.ai_cache_land; empty when nothing was heard in time."""
        done, _ = await asyncio.wait([self._awaited[id_]], timeout=within_s)
        return next(iter(done)).result() if done else ""

    def forget(self, id_: bytes) -> None:
        self._awaited.pop(id_, None)

    def tell(self, id_: bytes, how: str) -> None:
        awaited = self._awaited.get(id_)
        if awaited is not None and not awaited.done():
            awaited.set_result(how)
