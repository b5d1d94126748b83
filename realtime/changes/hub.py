"""Commits → the subscribers who may see them: one app's reader of the log.

    deliver → window → queue → dispatcher: batches of changes → match → judge → encode once → write
                 └─ catch_up: the same for those who came back, until they are where the others are

A subscriber's messages keep the order of commits and, in a commit, of changes. DDL takes effect
between commits: its own is judged by what it comes to.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Iterator, Sequence

from butterbase.ingest.changes import Commit
from butterbase.ingest.lsn import LSN, ZERO
from butterbase.realtime.changes.bindings import bind
from butterbase.realtime.changes.dispatch import Dispatcher, Judges
from butterbase.realtime.changes.subscriber import WHOLE
from butterbase.realtime.changes.subscriber import Subscriber as Subscriber
from butterbase.realtime.changes.subscriptions import ChangeRequest
from butterbase.realtime.errors import LogNotReadyError, ResyncRequiredError
from butterbase.realtime.session.effects import Prepared
from butterbase.realtime.session.protocol import Closing
from butterbase.realtime.sessions import TABLE as SESSIONS
from butterbase.realtime.sessions import Sessions
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.catch_up import CatchUp
from butterbase.realtime.window.floors import Floors
from butterbase.realtime.window.position import (
    ChangePosition,
    CommonPast,
    Position,
    ReadPosition,
    read_position,
)
from butterbase.realtime.window.replay import ReplayWindow, WindowLimits
from butterbase.realtime.window.retention import Retention
from butterbase.sql.claims import Claims
from butterbase.sql.pipeline import Executor

logger = logging.getLogger(__name__)


class Hub:
    """A reader of the consumer's, and its retention; `run` it beside."""

    def __init__(
        self,
        executor: Executor,
        *,
        wait_log: Callable[[], Awaitable[None]],
        settings: RealtimeSettings | None = None,
        floors: Floors | None = None,
    ) -> None:
        """`wait_log` returns once no commit that follows is missed; see Consumer.wait_connected.

        Without `floors` the positions of reads cannot be resumed after a restart.
        """
        self._executor = executor
        self._wait_log = wait_log
        self._settings = settings or RealtimeSettings()
        self._sessions = Sessions(executor)
        self._judges = Judges(executor, self._settings)
        self._joined: set[Subscriber] = set()
        self._halls = self._judges.open_halls()
        self._dispatcher = Dispatcher(self._judges, self._halls)
        self._queue: deque[Commit] = deque()
        self._queued_change_count = 0
        self._queued_bytes = 0
        self._has_work = asyncio.Event()
        self._past = CommonPast()
        """Of those who are live."""
        self._begun = ZERO
        """All behind it is still to come for those who are live."""
        self._sent = ZERO
        """All up to there was sent to them."""
        self._is_sending = False
        limits = WindowLimits(
            age_s=self._settings.replay_age_s,
            log_bytes=self._settings.replay_log_bytes_max,
            memory_bytes=self._settings.replay_memory_bytes_max,
        )
        self._window = ReplayWindow(limits, self._settings.schemas)
        self._retention = Retention(self._window, executor, self._settings, floors)
        self._catch_up = CatchUp(
            self._window,
            self._judges,
            is_live=lambda lsn: lsn >= self._begun,
            arrive=self._arrive,
            give_up=self._drop,
        )

    # Subscribing

    async def prepare(
        self,
        claims: Claims,
        requests: Sequence[ChangeRequest],
        since: Position | None = None,
    ) -> Prepared:
        """Ask what the requests come to. `since` is where to go on; None: from now on.

        Raises SessionEndedError, LogNotReadyError, ResyncRequiredError, DatabaseUnavailableError.
        """
        await self._sessions.check(claims)
        if not requests:
            return Prepared((), (), ChangePosition(ZERO))
        try:
            async with asyncio.timeout(self._settings.log_wait_s):
                await self._wait_log()
        except TimeoutError as error:
            raise LogNotReadyError from error
        bindings = await bind(self._executor, self._judges.catalog, claims, requests)
        present = await read_position(self._executor)
        self._retention.note(present)
        if since is None:
            since = present
        elif _is_ahead(since, present):
            raise ResyncRequiredError("The position is not of this log", position=str(present))
        if self._window.place_of(since) is None:
            raise ResyncRequiredError(
                "What follows the position is not kept any more", position=str(present)
            )
        return Prepared(bindings.made, bindings.problems, since)

    async def check(self, claims: Claims) -> None:
        """Raises SessionEndedError, DatabaseUnavailableError."""
        await self._sessions.check(claims)

    def register(self, subscriber: Subscriber) -> None:
        """Every change behind its position goes to the subscriber, if it may see it: those that
        were committed before and those to come. None is sent before this returns.
        """
        if self._sessions.has_ended(subscriber.claims):  # since `prepare` has asked
            self._refuse(subscriber, Closing.SESSION_ENDED)
            return
        self._joined.add(subscriber)
        if not subscriber.bindings:
            return
        place = self._window.place_of(subscriber.since)
        if place is None:  # the window moved on since; it will be told so when it comes again
            self._refuse(subscriber, Closing.OVERLOADED)
            return
        done = self._window.lsn_before(place)
        subscriber.done = (done, WHOLE)
        if done >= self._begun:
            self._arrive(subscriber)
        else:
            self._catch_up.add(subscriber, place)

    def _refuse(self, subscriber: Subscriber, code: Closing) -> None:
        self.unregister(subscriber)
        asyncio.get_running_loop().call_soon(subscriber.close, code)

    def _arrive(self, subscriber: Subscriber) -> None:
        """From here on it is sent what happens as it happens."""
        if not self._halls:
            self._past = CommonPast()
        self._past.add(subscriber.since)
        self._halls.add(subscriber)
        subscriber.on_claims = self._halls.place_anew

    def unregister(self, subscriber: Subscriber) -> None:
        subscriber.is_open = False
        subscriber.on_claims = None
        self._joined.discard(subscriber)
        self._halls.remove(subscriber)
        self._catch_up.remove(subscriber)

    def _drop(self, subscriber: Subscriber, code: Closing) -> None:
        self.unregister(subscriber)
        subscriber.close(code)

    def progress_of(self, subscriber: Subscriber) -> Position | None:
        """A position for one who waits for its next change: all before it was sent. None where
        that cannot be said.
        """
        is_live = subscriber.on_claims == self._halls.place_anew
        return ChangePosition(self._sent) if is_live and self._sent >= subscriber.settled else None

    # Reading the log

    async def begin(self, lsn: LSN) -> None:
        """Raises DatabaseUnavailableError."""
        await self._retention.begin(lsn)
        late = [subscriber for subscriber in self._joined if subscriber.bindings]
        if late:  # channels without changes may be joined while nobody reads the log
            logger.error("the log was read by others meanwhile: subscribers are closed")
        for subscriber in late:
            self._drop(subscriber, Closing.FAILED)
        self._give_up(Closing.FAILED)
        self._sent = self._begun

    @property
    def tail(self) -> LSN:
        """Of the last commit that was delivered."""
        return self._window.tail

    def advance(self, lsn: LSN) -> None:
        self._retention.advance(lsn)
        if not self._queue and not self._is_sending:
            self._sent = max(self._sent, lsn)

    @property
    def held_at(self) -> LSN | None:
        """What the window has is told again after a restart."""
        return self._retention.held_at

    def position(self) -> LSN | None:
        """A subscriber that was not reached knows, its socket was closed."""
        return None

    async def deliver(self, commit: Commit) -> None:
        """Queue the commit. Past the limit the subscribers are closed, and may come back."""
        self._close_sessions(self._sessions.hear(commit.changes_of(SESSIONS)))
        self._window.add(commit, time.monotonic())
        has_ddl = commit.has_ddl
        if has_ddl:
            self._judges.catalog.announce(commit.xid)
        if not self._queue and not self._is_sending and not self._is_awaited(commit):
            self._begun = self._sent = commit.lsn
            if has_ddl:
                self._dispatcher.forget()
            return
        count = self._queued_change_count + len(commit.changes)
        size_bytes = self._queued_bytes + commit.held_bytes
        if self._queue and (
            count > self._settings.queued_change_count_max
            or size_bytes > self._settings.queued_bytes_max
        ):
            logger.error("realtime is %d changes behind: subscribers are closed", count)
            self._give_up(Closing.OVERLOADED)
            return
        self._queue.append(commit)
        self._queued_change_count, self._queued_bytes = count, size_bytes
        self._has_work.set()

    def _is_awaited(self, commit: Commit) -> bool:
        """Whether somebody who is live may be sent it. After a restart the log comes again, and who
        came back has had it.
        """
        return bool(self._halls) and not self._past.has(commit.lsn, commit.xid)

    def _close_sessions(self, ids: set[str]) -> None:
        """Close the sockets of sessions that have ended."""
        if ids:
            for subscriber in [s for s in self._joined if s.claims.session_id in ids]:
                self._drop(subscriber, Closing.SESSION_ENDED)

    @property
    def subscriber_count(self) -> int:
        return len(self._joined)

    @property
    def queued_change_count(self) -> int:
        """Changes that wait to be sent."""
        return self._queued_change_count

    async def run(self) -> None:
        """Send what is delivered, until cancelled; then every socket is closed."""
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._send_queued())
                group.create_task(self._catch_up.run())
                group.create_task(self._retention.run())
        finally:
            for subscriber in list(self._joined):
                self._drop(subscriber, Closing.RESTART)

    async def _send_queued(self) -> None:
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            self._is_sending = True
            try:
                await self._dispatcher.send(self._take_queued())
            except Exception:
                # Whatever it is, no subscriber may go on with a gap that it cannot see.
                logger.exception("a commit could not be sent: subscribers are closed")
                self._give_up(Closing.FAILED)
            self._is_sending = False
            self._sent = self._begun

    def _take_queued(self) -> Iterator[Commit]:
        while self._queue:
            commit = self._queue.popleft()
            self._queued_change_count -= len(commit.changes)
            self._queued_bytes -= commit.held_bytes
            self._begun = commit.lsn
            yield commit

    def _give_up(self, code: Closing) -> None:
        """Close those who are live."""
        self._queue.clear()
        self._queued_change_count = self._queued_bytes = 0
        self._begun = self._window.tail
        self._dispatcher.forget()  # an announcement may have been among what was dropped
        for subscriber in self._halls.subscribers():
            self._drop(subscriber, code)


def _is_ahead(since: Position, present: ReadPosition) -> bool:
    """Whether the log has never come to the position: it is another database's."""
    return since.lsn > present.lsn or (
        isinstance(since, ReadPosition) and not present.snapshot.includes(since.snapshot)
    )
