"""Commits → the subscribers who may see them: one app's reader of the log.

    deliver → queue → batches of changes → match → judge → encode once → write

A subscriber's messages keep the order of commits and, in a commit, of changes. A DDL announcement
takes effect between the changes it stands between.
"""

import asyncio
import logging
import time
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from typing import Final

from butterbase.ingest.changes import Commit, is_ddl
from butterbase.ingest.lsn import LSN, parse_lsn
from butterbase.realtime.access import Access, Catalog
from butterbase.realtime.bindings import bind
from butterbase.realtime.delivery import NO_ANSWER, Answer, Entry, Question, match, send
from butterbase.realtime.errors import LogNotReadyError
from butterbase.realtime.fanout import format_timestamp
from butterbase.realtime.halls import Hall, Halls
from butterbase.realtime.matching import event_of, row_change
from butterbase.realtime.policies import NOTHING, Policies, Verdict
from butterbase.realtime.protocol import Closing
from butterbase.realtime.session import Prepared
from butterbase.realtime.sessions import TABLE as SESSIONS
from butterbase.realtime.sessions import Sessions
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.subscriber import Subscriber as Subscriber
from butterbase.realtime.subscriptions import ChangeRequest
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)

_SLICE_S: Final = 0.005


class Hub:
    """`run` it beside the consumer that delivers to it."""

    def __init__(
        self,
        executor: Executor,
        *,
        wait_log: Callable[[], Awaitable[None]],
        settings: RealtimeSettings | None = None,
    ) -> None:
        """`wait_log` returns once no commit that follows is missed; see Consumer.wait_connected."""
        self._executor = executor
        self._wait_log = wait_log
        self._settings = settings or RealtimeSettings()
        self._catalog = Catalog(executor, age_s_max=self._settings.catalog_age_s_max)
        self._policies = Policies(executor, self._catalog, pause_s=self._settings.policy_pause_s)
        self._sessions = Sessions(executor)
        self._statements = asyncio.Semaphore(self._settings.statement_count_max)
        self._joined: set[Subscriber] = set()
        self._halls = Halls()
        self._queue: deque[Commit] = deque()
        self._queued_change_count = 0
        self._has_work = asyncio.Event()
        self._yielded_at_s = 0.0

    # Subscribing

    async def prepare(self, claims: Claims, requests: Sequence[ChangeRequest]) -> Prepared:
        """Ask what the requests come to.

        Raises SessionEndedError, LogNotReadyError, DatabaseUnavailableError.
        """
        await self._sessions.check(claims)
        if not requests:
            return Prepared((), (), LSN(0))
        try:
            async with asyncio.timeout(self._settings.log_wait_s):
                await self._wait_log()
        except TimeoutError as error:
            raise LogNotReadyError from error
        bindings = await bind(self._executor, self._catalog, claims, requests)
        (result,) = await self._executor.run(Statement(b"select pg_current_wal_insert_lsn()"))
        position = result.value()
        assert position is not None
        return Prepared(bindings.made, bindings.problems, parse_lsn(position.decode()))

    async def check(self, claims: Claims) -> None:
        """Raises SessionEndedError, DatabaseUnavailableError."""
        await self._sessions.check(claims)

    def register(self, subscriber: Subscriber) -> None:
        """Every commit that is delivered from now on goes to the subscriber, if it may see it."""
        if self._sessions.has_ended(subscriber.claims):  # since `prepare` has asked
            subscriber.is_open = False
            asyncio.get_running_loop().call_soon(subscriber.close, Closing.SESSION_ENDED)
            return
        self._joined.add(subscriber)
        self._halls.add(subscriber)
        subscriber.on_claims = self._halls.place_anew

    def unregister(self, subscriber: Subscriber) -> None:
        subscriber.is_open = False
        subscriber.on_claims = None
        self._joined.discard(subscriber)
        self._halls.remove(subscriber)

    def _forget(self) -> None:
        """What was read of the schema is read anew."""
        self._catalog.forget()
        self._halls.forget()

    # Reading the log

    async def deliver(self, commit: Commit) -> None:
        """Queue the commit. Past the limit the subscribers are closed, and may come back."""
        self._close_sessions(self._sessions.hear(commit.changes_of(SESSIONS)))
        if not self._halls and not self._queue:
            if commit.has_ddl:
                self._forget()
            return
        count = self._queued_change_count + len(commit.changes)
        if self._queue and count > self._settings.queued_change_count_max:
            logger.error("realtime is %d changes behind: subscribers are closed", count)
            self._give_up(Closing.OVERLOADED)
            return
        self._queue.append(commit)
        self._queued_change_count = count
        self._has_work.set()

    def _close_sessions(self, ids: set[str]) -> None:
        """Close the sockets of sessions that have ended."""
        if ids:
            for subscriber in [s for s in self._joined if s.claims.session_id in ids]:
                self.unregister(subscriber)
                subscriber.close(Closing.SESSION_ENDED)

    def position(self) -> LSN | None:
        """Nothing is kept: a subscriber that was not reached knows, its socket was closed."""
        return None

    async def run(self) -> None:
        """Send what is delivered, until cancelled."""
        while True:
            await self._has_work.wait()
            self._has_work.clear()
            while self._queue:
                try:
                    await self._fan_out()
                except Exception:
                    # Whatever it is, no subscriber may go on with a gap that it cannot see.
                    logger.exception("a commit could not be sent: subscribers are closed")
                    self._give_up(Closing.FAILED)

    def _give_up(self, code: Closing) -> None:
        self._queue.clear()
        self._queued_change_count = 0
        self._forget()  # an announcement may have been among what was dropped
        for subscriber in self._halls.subscribers():
            self.unregister(subscriber)
            subscriber.close(code)

    async def _fan_out(self) -> None:
        """Send what is queued; small commits that wait together are one batch."""
        batch: list[Entry] = []
        while self._queue:
            commit = self._queue.popleft()
            self._queued_change_count -= len(commit.changes)
            timestamp = format_timestamp(commit.at).encode()
            for change in commit.changes:
                row = row_change(change)
                if row is not None and row.relation.schema in self._settings.schemas:
                    hall = self._halls.find(row.relation)
                    if hall is None:
                        # Before it takes the place of the table's former hall.
                        await self._send_batch(batch)
                        batch, hall = [], self._halls.open(row.relation)
                    if not hall.is_empty:
                        event, image = event_of(row), hall.image(row)
                        batch.append(Entry(commit.lsn, timestamp, row, event, image, hall))
                is_announcement = is_ddl(change)
                if is_announcement or len(batch) >= self._settings.batch_change_count_max:
                    await self._send_batch(batch)
                    batch = []
                if is_announcement:
                    self._forget()
        await self._send_batch(batch)

    async def _send_batch(self, batch: Sequence[Entry]) -> None:
        answers: dict[Question, Answer] = {}
        while batch:
            await self._admit({id(entry.hall): entry.hall for entry in batch}.values())
            # From here to the sending nothing waits. Claims that changed before it are found in
            # their new place, and what Postgres has not said of them it is asked.
            matched = match(batch, answers)
            if not matched.questions:
                send(matched.deliveries, time.time())
                break
            await self._ask(batch, matched.questions, answers)
        if time.monotonic() - self._yielded_at_s > _SLICE_S:
            await asyncio.sleep(0)  # where nothing was asked, sockets have not had their turn
            self._yielded_at_s = time.monotonic()

    async def _admit(self, halls: Collection[Hall]) -> None:
        """Bring what the roles may read up to date, also of those who join meanwhile."""
        admitted: set[tuple[int, str]] = set()
        while missing := [
            (hall, role)
            for hall in halls
            for role in hall.roles
            if (id(hall), role) not in admitted
        ]:
            for hall, role in missing:
                hall.admit(role, await self._access(hall.relation.oid, role))
                admitted.add((id(hall), role))

    # Asking Postgres

    async def _access(self, oid: int, role: str) -> Access | None:
        while True:
            try:
                return await self._policies.access(oid, role)
            except DatabaseUnavailableError as error:
                if not self._halls:
                    return None
                await self._wait_for_database(error)

    async def _ask(
        self,
        batch: Sequence[Entry],
        questions: Mapping[Question, set[int]],
        answers: dict[Question, Answer],
    ) -> None:
        """A statement for each distinct claims and table."""
        async with asyncio.TaskGroup() as group:
            tasks = {
                question: group.create_task(self._judge(batch, *question, sorted(indexes)))
                for question, indexes in questions.items()
            }
        for question, task in tasks.items():
            known = answers.get(question, NO_ANSWER)
            answers[question] = known.with_more(questions[question], task.result())

    async def _judge(
        self, batch: Sequence[Entry], claims: Claims, oid: int, indexes: Sequence[int]
    ) -> Verdict:
        images = [batch[index].image for index in indexes]
        while True:
            try:
                async with self._statements:
                    verdict = await self._policies.judge(oid, claims, images)
            except DatabaseUnavailableError as error:
                if not self._halls:
                    return NOTHING
                await self._wait_for_database(error)
                continue
            return Verdict(verdict.access, frozenset(indexes[i] for i in verdict.visible))

    async def _wait_for_database(self, error: Exception) -> None:
        logger.warning("policies cannot be asked, commits wait: %s", error)
        await asyncio.sleep(self._settings.database_retry_s)
