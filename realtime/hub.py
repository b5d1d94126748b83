"""Commits → the subscribers who may see them: one app's reader of the log.

    deliver → queue → batches of changes → match → judge → encode once → write

A subscriber's messages keep the order of commits and, in a commit, of changes. A DDL announcement
takes effect between the changes it stands between.
"""

import asyncio
import logging
import time
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable, Iterable, Sequence
from datetime import datetime
from typing import TypeAlias

from msgspec import Struct

from butterbase.ingest.changes import Commit, is_ddl
from butterbase.ingest.lsn import LSN, parse_lsn
from butterbase.realtime.access import Access, Catalog
from butterbase.realtime.bindings import bind
from butterbase.realtime.errors import LogNotReadyError
from butterbase.realtime.fanout import encode_data, encode_message
from butterbase.realtime.matching import (
    ALL,
    Binding,
    Image,
    RowChange,
    image_of,
    matches,
    row_change,
)
from butterbase.realtime.policies import Policies, Verdict
from butterbase.realtime.protocol import Closing, Version
from butterbase.realtime.session import Prepared, is_expired
from butterbase.realtime.sessions import Sessions
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.subscriptions import ChangeRequest
from butterbase.sql.claims import Claims
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor, Statement

logger = logging.getLogger(__name__)


class Subscriber:
    """A joined channel, as the hub sees it."""

    def __init__(
        self,
        *,
        topic: str,
        version: Version,
        claims: Claims,
        bindings: Sequence[Binding],
        since: LSN,
        send: Callable[[bytes], None],
        close: Callable[[Closing], None],
    ) -> None:
        self.topic = topic
        self.version = version
        self.claims = claims
        self.bindings = tuple(bindings)
        self.since = since
        self.send = send
        self.close = close
        self.is_open = True


class _Entry(Struct, frozen=True):
    """One change on its way."""

    lsn: LSN
    at: datetime
    change: RowChange
    image: Image


_Matched: TypeAlias = dict[Subscriber, list[tuple[int, tuple[Binding, ...]]]]
"""Per subscriber the indexes of a batch's entries, rising, and the bindings they match."""

_Verdicts: TypeAlias = dict[tuple[Claims, int], Verdict]
"""By claims and table; `visible` are indexes of the batch."""


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
        self._subscribers: defaultdict[tuple[str, str], set[Subscriber]] = defaultdict(set)
        self._queue: deque[Commit] = deque()
        self._queued_change_count = 0
        self._has_work = asyncio.Event()

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
        for binding in subscriber.bindings:
            self._subscribers[binding.schema, binding.table].add(subscriber)

    def unregister(self, subscriber: Subscriber) -> None:
        subscriber.is_open = False
        self._joined.discard(subscriber)
        for binding in subscriber.bindings:
            key = binding.schema, binding.table
            if key in self._subscribers:
                self._subscribers[key].discard(subscriber)
                if not self._subscribers[key]:
                    del self._subscribers[key]

    # Reading the log

    async def deliver(self, commit: Commit) -> None:
        """Queue the commit. Past the limit the subscribers are closed, and may come back."""
        self._close_sessions(self._sessions.hear(commit.changes))
        if not self._subscribers and not self._queue:
            if any(map(is_ddl, commit.changes)):
                self._catalog.forget()
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
                commit = self._queue.popleft()
                self._queued_change_count -= len(commit.changes)
                try:
                    await self._fan_out(commit)
                except Exception:
                    # Whatever it is, no subscriber may go on with a gap that it cannot see.
                    logger.exception("a commit could not be sent: subscribers are closed")
                    self._give_up(Closing.FAILED)

    def _give_up(self, code: Closing) -> None:
        self._queue.clear()
        self._queued_change_count = 0
        self._catalog.forget()  # an announcement may have been among what was dropped
        for subscriber in {s for group in self._subscribers.values() for s in group}:
            self.unregister(subscriber)
            subscriber.close(code)

    async def _fan_out(self, commit: Commit) -> None:
        batch: list[_Entry] = []
        for change in commit.changes:
            row = row_change(change)
            if row is not None and row.relation.schema in self._settings.schemas:
                batch.append(_Entry(commit.lsn, commit.at, row, image_of(row)))
            if is_ddl(change) or len(batch) >= self._settings.batch_change_count_max:
                await self._send_batch(batch)
                batch = []
            if is_ddl(change):
                self._catalog.forget()
        await self._send_batch(batch)

    async def _send_batch(self, batch: Sequence[_Entry]) -> None:
        matched = self._match(batch)
        while matched:
            judged_as = {subscriber: subscriber.claims for subscriber in matched}
            verdicts = await self._judge(batch, matched)
            # Those whose claims changed in the meantime are judged again.
            again = {s: found for s, found in matched.items() if s.claims != judged_as[s]}
            self._send(batch, {s: f for s, f in matched.items() if s not in again}, verdicts)
            matched = again

    def _match(self, batch: Sequence[_Entry]) -> _Matched:
        matched: defaultdict[Subscriber, list[tuple[int, tuple[Binding, ...]]]] = defaultdict(list)
        for index, entry in enumerate(batch):
            for subscriber in self._interested(entry.change):
                bindings = tuple(
                    binding
                    for binding in subscriber.bindings
                    if matches(binding, entry.change, entry.image)
                )
                if bindings and entry.lsn > subscriber.since:
                    matched[subscriber].append((index, bindings))
        return matched

    def _interested(self, change: RowChange) -> Iterable[Subscriber]:
        relation = change.relation
        found: set[Subscriber] = set()
        for schema in (relation.schema, ALL):
            for table in (relation.name, ALL):
                found |= self._subscribers.get((schema, table), set())
        return found

    # Judging

    async def _judge(self, batch: Sequence[_Entry], matched: _Matched) -> _Verdicts:
        """A statement for each distinct claims and table."""
        wanted: defaultdict[tuple[Claims, int], set[int]] = defaultdict(set)
        for subscriber, found in matched.items():
            for index, _ in found:
                oid = batch[index].change.relation.oid
                wanted[subscriber.claims, oid].add(index)
        async with asyncio.TaskGroup() as group:
            tasks = {
                key: group.create_task(self._judge_one(batch, *key, sorted(indexes)))
                for key, indexes in wanted.items()
            }
        return {key: task.result() for key, task in tasks.items()}

    async def _judge_one(
        self, batch: Sequence[_Entry], claims: Claims, oid: int, indexes: Sequence[int]
    ) -> Verdict:
        images = [batch[index].image for index in indexes]
        while True:
            try:
                async with self._statements:
                    verdict = await self._policies.judge(oid, claims, images)
            except DatabaseUnavailableError as error:
                if not self._subscribers:
                    return Verdict(None, frozenset())
                logger.warning("policies cannot be asked, commits wait: %s", error)
                await asyncio.sleep(self._settings.database_retry_s)
                continue
            return Verdict(verdict.access, frozenset(indexes[i] for i in verdict.visible))

    # Sending

    def _send(self, batch: Sequence[_Entry], matched: _Matched, verdicts: _Verdicts) -> None:
        frames = _Frames(batch)
        now_s = time.time()
        for subscriber, found in matched.items():
            if not subscriber.is_open or is_expired(subscriber.claims, now_s):
                continue
            for index, bindings in found:
                verdict = verdicts[subscriber.claims, batch[index].change.relation.oid]
                if index in verdict.visible and verdict.access is not None:
                    frames.send(subscriber, index, bindings, verdict.access)


class _Frames:
    """The frames of a batch, each encoded once. Accesses are told apart by being the same object:
    the batch's verdicts hold them.
    """

    def __init__(self, batch: Sequence[_Entry]) -> None:
        self._batch = batch
        self._data: dict[tuple[int, int], bytes] = {}
        self._frames: dict[tuple[int, int, Version, str, tuple[int, ...]], bytes] = {}

    def send(
        self, subscriber: Subscriber, index: int, bindings: Sequence[Binding], access: Access
    ) -> None:
        # A filter on a column that the role may not read would tell what is in it.
        ids = tuple(
            binding.id
            for binding in bindings
            if binding.filter is None or binding.filter.column in access.readable
        )
        if not ids:
            return
        key = index, id(access), subscriber.version, subscriber.topic, ids
        frame = self._frames.get(key)
        if frame is None:
            data = self._encode(index, access)
            frame = encode_message(subscriber.topic, ids, data, subscriber.version)
            self._frames[key] = frame
        subscriber.send(frame)

    def _encode(self, index: int, access: Access) -> bytes:
        key = index, id(access)
        data = self._data.get(key)
        if data is None:
            entry = self._batch[index]
            data = self._data[key] = encode_data(entry.change, entry.at, access)
        return data
