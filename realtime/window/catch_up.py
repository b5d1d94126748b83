"""Takes those who came back, and those who join, from their place in the window to its end.

    waiting → a tour: whoever stands at its place or further on goes with it → live

A tour goes through the window once for all who are on it, with halls of its own, so that a thousand
clients who come back together cost little more than one. Whoever joins at the end of the log has
but the last commits to see, if any.
"""

import asyncio
import logging
from collections.abc import Callable, Iterator
from functools import partial
from typing import Final

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN
from butterbase.realtime.changes.delivery import Entry
from butterbase.realtime.changes.dispatch import Dispatcher, Judges
from butterbase.realtime.changes.halls import Halls
from butterbase.realtime.changes.subscriber import WHOLE, Subscriber
from butterbase.realtime.session.protocol import Closing
from butterbase.realtime.window.position import ChangePosition
from butterbase.realtime.window.replay import ReplayWindow

logger = logging.getLogger(__name__)

TOUR_COUNT_MAX: Final = 4
"""Under way at a time, for those who came when the others had passed their places."""

LEG_COMMIT_COUNT: Final = 500
"""A tour looks whether it has arrived after so many."""

FULL_PAUSE_S: Final = 0.05
"""Between two looks whether a subscriber has taken what it was sent."""


class _Tour:
    def __init__(self, place: int, done: LSN, halls: Halls) -> None:
        self.place = place
        """Of the next commit to be looked at."""
        self.done = done
        """All up to there was sent."""
        self.halls = halls


class CatchUp:
    def __init__(
        self,
        window: ReplayWindow,
        judges: Judges,
        *,
        is_live: Callable[[LSN], bool],
        arrive: Callable[[Subscriber], None],
        give_up: Callable[[Subscriber, Closing], None],
    ) -> None:
        """`is_live` tells whether all behind the LSN is still to come for those who are live."""
        self._window = window
        self._judges = judges
        self._is_live = is_live
        self._arrive = arrive
        self._give_up = give_up
        self._waiting: dict[Subscriber, int] = {}
        """With their places."""
        self._has_waiting = asyncio.Event()
        self._tours: list[_Tour] = []

    def add(self, subscriber: Subscriber, place: int) -> None:
        """Take it along from the place."""
        for tour in self._tours:
            if tour.place <= place:
                _board(tour, subscriber)
                return
        self._waiting[subscriber] = place
        self._has_waiting.set()

    def remove(self, subscriber: Subscriber) -> None:
        self._waiting.pop(subscriber, None)
        for tour in self._tours:
            tour.halls.remove(subscriber)

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            for _ in range(TOUR_COUNT_MAX):
                group.create_task(self._guide())

    async def _guide(self) -> None:
        while True:
            await self._has_waiting.wait()
            ready = {s: place for s, place in self._waiting.items() if not s.is_full()}
            for subscriber in ready:
                del self._waiting[subscriber]
            if not self._waiting:
                self._has_waiting.clear()
            if ready:
                await self._lead(ready)
            else:
                await asyncio.sleep(FULL_PAUSE_S)

    async def _lead(self, members: dict[Subscriber, int]) -> None:
        for subscriber in [s for s, place in members.items() if place < self._window.start]:
            del members[subscriber]
            self._give_up(subscriber, Closing.OVERLOADED)
        if not members:
            return
        place = min(members.values())
        tour = _Tour(place, self._window.lsn_before(place), self._judges.open_halls())
        dispatcher = Dispatcher(
            self._judges,
            tour.halls,
            on_sent=partial(self._let_off, tour),
            # So that whoever is full is let off before its socket is given up.
            batch_bytes_max=self._judges.settings.write_buffer_bytes_max // 8,
        )
        self._tours.append(tour)
        for subscriber in members:
            _board(tour, subscriber)
        try:
            while tour.halls and not self._is_over(tour):
                await dispatcher.send(self._leg(tour))
        except Exception:
            logger.exception("what was missed could not be sent: subscribers are closed")
            self._leave(tour, Closing.FAILED)
        finally:
            self._tours.remove(tour)

    def _leg(self, tour: _Tour) -> Iterator[Commit]:
        done = tour.done
        for _ in range(LEG_COMMIT_COUNT):
            commit = self._window.commit_at(tour.place)
            if commit is None:
                break
            tour.place += 1
            done = commit.lsn
            yield commit
        tour.done = done

    def _is_over(self, tour: _Tour) -> bool:
        """Nothing waits between this and what follows from it."""
        if tour.place < self._window.start:
            self._leave(tour, Closing.OVERLOADED)  # the window was faster
            return True
        if not self._is_live(tour.done):
            return False
        for subscriber in tour.halls.subscribers():
            tour.halls.remove(subscriber)
            subscriber.done = (tour.done, WHOLE)
            self._arrive(subscriber)
        return True

    def _leave(self, tour: _Tour, code: Closing) -> None:
        for subscriber in tour.halls.subscribers():
            self._give_up(subscriber, code)

    def _let_off(self, tour: _Tour, last: Entry) -> None:
        """Those who have not taken what they were sent go on later, with another tour."""
        for subscriber in [s for s in tour.halls.subscribers() if s.is_full()]:
            tour.halls.remove(subscriber)
            subscriber.on_claims = None
            subscriber.done = (last.lsn, last.ordinal)
            place = self._window.place_of(ChangePosition(last.lsn, last.ordinal))
            if place is None:
                self._give_up(subscriber, Closing.OVERLOADED)
            else:
                self._waiting[subscriber] = place
                self._has_waiting.set()


def _board(tour: _Tour, subscriber: Subscriber) -> None:
    tour.halls.add(subscriber)
    subscriber.on_claims = tour.halls.place_anew
