"""The calls of a worker that run, and the end of each: its event, and who else is told of it.

An answer does not wait for its event to be on the disk. It was admitted before, and so is in the
books: an event that cannot be written now is written when the control database is back, and of a
worker that is killed in between the sweeper tells that the call was lost.
"""

import asyncio
import logging

from butterbase.ai.calls.call import Call, Status
from butterbase.ai.money.journal import Settlement
from butterbase.ai.money.ledger import Ledger
from butterbase.ai.telemetry.protocols import Observer
from butterbase.sql.errors import ButterbaseError

_log = logging.getLogger(__name__)


class Recorder:
    def __init__(self, ledger: Ledger, observers: tuple[Observer, ...] = ()) -> None:
        self._ledger = ledger
        self._observers = observers
        self._running: dict[Call, asyncio.Task[object] | None] = {}

    @property
    def call_count(self) -> int:
        """Calls that run, or whose event is being written."""
        return len(self._running) + self._ledger.posted_count

    def begin(self, call: Call) -> None:
        """In the task of the call."""
        self._running[call] = asyncio.current_task()

    def end(self, call: Call, status: Status, error: ButterbaseError | None) -> None:
        """Write the event. Of a call that has ended nothing more is written."""
        if call in self._running:
            del self._running[call]
            settlement = call.settlement(status, error)
            self._ledger.post(settlement)
            if call.trace is not None or self._observers:
                self._tell(call, settlement, error)

    def _tell(self, call: Call, settlement: Settlement, error: ButterbaseError | None) -> None:
        """Whoever looks on cannot fail the call."""
        try:
            if call.trace is not None:
                call.trace.end(settlement, error)
            for observer in self._observers:
                observer.ended(settlement, None if call.trace is None else call.trace.id)
        except Exception:
            _log.exception("request %s: its end could not be told", settlement.request_id)

    async def close(self) -> None:
        """Cancel the calls that run, and wait until each is recorded."""
        tasks = [task for task in self._running.values() if task is not None]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)
        await self._ledger.drain()
        for observer in self._observers:
            observer.flush()
