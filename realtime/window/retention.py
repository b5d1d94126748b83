"""Holds back the acknowledgement, so that the log keeps what the window has.

    begin → … notes what is visible, lets go of what is old, keeps the floor, then releases the log

After a restart the log is told again from where it was released, and the window is as it was.
"""

import asyncio
import logging
import time
from typing import Final

from butterbase.ingest.lsn import LSN, ZERO
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.floors import Floors, Kept
from butterbase.realtime.window.position import ReadPosition, read_position
from butterbase.realtime.window.replay import Floor, ReplayWindow
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.pipeline import Executor

logger = logging.getLogger(__name__)

IDLE_BYTES: Final = 16 * 1024**2
"""Log without a commit of ours is released in such steps: each is a write."""

PRESSED_PAUSE_S: Final = 1.0
"""Between two releases when much is written."""


class Retention:
    """Of one slot's log; see ingest/consumer.py for what the consumer is told."""

    def __init__(
        self,
        window: ReplayWindow,
        executor: Executor,
        settings: RealtimeSettings,
        floors: Floors | None = None,
    ) -> None:
        """Without `floors` a restart forgets what positions of reads need."""
        self._window = window
        self._executor = executor
        self._settings = settings
        self._floors = floors
        self._kept: Kept | None = None
        self._read_to = ZERO
        self._is_pressed = asyncio.Event()

    @property
    def held_at(self) -> LSN | None:
        """What follows must come again after a restart. None before anything was read."""
        return None if self._kept is None else self._kept.until

    async def begin(self, lsn: LSN) -> None:
        """The log will be told from here on. Raises DatabaseUnavailableError."""
        present = await read_position(self._executor)
        kept = None if self._floors is None else await self._floors.read()
        if kept is None or not lsn <= kept.until <= present.lsn:
            # Of what was acknowledged nothing is known: the slot is new, or another version of us
            # has read it, or the database was restored on another server.
            kept = Kept(Floor(lsn, None, present.snapshot), lsn)
            if self._floors is not None:
                await self._floors.keep(kept)
        elif lsn < kept.floor.lsn:
            kept = Kept(Floor(lsn, None, kept.floor.snapshot), lsn)
        self._window.begin(kept.floor, time.monotonic())
        self._kept = kept
        self._read_to = lsn

    def advance(self, lsn: LSN) -> None:
        """The log was read up to here, and all commits of it delivered."""
        self._read_to = max(self._read_to, lsn)
        if (
            self._kept is not None
            and lsn - self._kept.until > 1.25 * self._settings.replay_log_bytes_max
        ):
            self._is_pressed.set()

    def note(self, position: ReadPosition) -> None:
        """A read was made just now."""
        self._window.note(position.snapshot, time.monotonic())

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with asyncio.timeout(self._settings.replay_interval_s):
                    await self._is_pressed.wait()
                self._is_pressed.clear()
                await asyncio.sleep(min(PRESSED_PAUSE_S, self._settings.replay_interval_s))
            except TimeoutError:
                pass
            try:
                await self.release()
            except ButterbaseError as error:
                logger.warning("the log is kept for longer: %s", error)

    async def release(self) -> None:
        """Release what is too old. Raises ButterbaseError."""
        if self._kept is None:
            return
        self._window.trim(time.monotonic())
        if not self._window.is_noted:
            self.note(await read_position(self._executor))
        # Nothing waits between these.
        floor = self._window.released(time.monotonic(), self._read_to)
        if floor is None:
            return
        until = max(floor.lsn, self._kept.until)
        if floor.lsn == self._window.tail:
            until = max(until, self._read_to)
        if floor.lsn == self._kept.floor.lsn and until - self._kept.until < IDLE_BYTES:
            return
        kept = Kept(floor, until)
        if self._floors is not None:
            await self._floors.keep(kept)
        self._kept = kept
