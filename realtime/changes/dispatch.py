"""Commits → messages for those in some halls: batches of changes, matched, judged and sent.

The subscribers of one Dispatcher all stand at the same place of the log: live ones at its end, and
those who came back somewhere before it (catch_up.py). A commit that changes the schema is judged
by what it comes to: its rows and its policies become visible at once.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final

from butterbase.ingest.changes import Commit
from butterbase.realtime.changes.access import Access, Catalog
from butterbase.realtime.changes.comparing import Comparer, Job
from butterbase.realtime.changes.conditions import Comparison, Told
from butterbase.realtime.changes.delivery import Answers, Entry, Matched, Question, match, send
from butterbase.realtime.changes.fanout import format_timestamp
from butterbase.realtime.changes.halls import Hall, Halls
from butterbase.realtime.changes.matching import RowChange, event_of, row_change
from butterbase.realtime.changes.policies import NOTHING, Policies, Verdict
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.errors import DatabaseUnavailableError
from butterbase.sql.pipeline import Executor

logger = logging.getLogger(__name__)

_SLICE_S: Final = 0.005
_PASSED_COUNT: Final = 1_000


class Judges:
    """Whom an app's dispatchers ask: Postgres, by way of what is known of it."""

    def __init__(self, executor: Executor, settings: RealtimeSettings) -> None:
        self.settings = settings
        self.catalog = Catalog(executor, age_s_max=settings.catalog_age_s_max)
        self.policies = Policies(executor, self.catalog, pause_s=settings.policy_pause_s)
        self.comparer = Comparer(executor, pause_s=settings.policy_pause_s)
        self.statements = asyncio.Semaphore(settings.statement_count_max)
        self.yielded_at_s = 0.0

    def open_halls(self) -> Halls:
        return Halls(bytes_max=self.settings.change_bytes_max)


class Dispatcher:
    def __init__(
        self,
        judges: Judges,
        halls: Halls,
        *,
        on_sent: Callable[[Entry], None] | None = None,
        batch_bytes_max: int | None = None,
    ) -> None:
        """`on_sent` is called after each batch, with its last change. `batch_bytes_max` is another
        than that of the settings.
        """
        self.halls = halls
        self._judges = judges
        self._settings = judges.settings
        self._on_sent = on_sent
        self._batch_bytes_max = batch_bytes_max or judges.settings.batch_bytes_max

    def forget(self) -> None:
        """What was read of the schema is read anew."""
        self._judges.catalog.forget()
        self.halls.forget()

    async def send(self, commits: Iterable[Commit]) -> None:
        """Send them in order; small commits that come one after the other are one batch."""
        batch: list[Entry] = []
        value_bytes = 0
        for commit in commits:
            if not self._concerns(commit):
                await self._give_way()
                continue
            if commit.has_ddl:
                await self._send_batch(batch)
                batch, value_bytes = [], 0
                # What is read from here on has it: the catalog waits until it is visible.
                self.forget()
            timestamp = format_timestamp(commit.at).encode()
            for ordinal, change in enumerate(commit.changes, 1):
                if ordinal % _PASSED_COUNT == 0:  # of a large commit perhaps nothing is sent
                    await self._give_way()
                row = row_change(change)
                if row is not None and row.relation.schema in self._settings.schemas:
                    hall = self.halls.find(row.relation)
                    if hall is None:
                        # Before it takes the place of the table's former hall.
                        await self._send_batch(batch)
                        batch, hall = [], self.halls.open(row.relation)
                    if not hall.is_empty:
                        entry = _entry(commit, ordinal, timestamp, row, hall)
                        batch.append(entry)
                        value_bytes += sum(map(len, filter(None, entry.image.values())))
                if self._is_enough(len(batch), value_bytes):
                    await self._send_batch(batch)
                    batch, value_bytes = [], 0
        await self._send_batch(batch)

    def _is_enough(self, count: int, value_bytes: int) -> bool:
        return (
            count >= self._settings.batch_change_count_max or value_bytes >= self._batch_bytes_max
        )

    def _concerns(self, commit: Commit) -> bool:
        """Whether anything may come of it: most commits need not even be decoded."""
        return commit.has_ddl or any(map(self.halls.has_interest, commit.tables))

    async def _send_batch(self, batch: Sequence[Entry]) -> None:
        answers = Answers()
        while batch:
            await self._admit({id(entry.hall): entry.hall for entry in batch}.values())
            # From here to the sending nothing waits. Claims that changed before it are found in
            # their new place, and what Postgres has not said of them it is asked.
            matched = match(batch, answers)
            if matched.is_settled:
                send(matched.deliveries, time.time())
                if self._on_sent is not None:
                    self._on_sent(batch[-1])
                break
            await self._ask(batch, matched, answers)
        await self._give_way()

    async def _give_way(self) -> None:
        """Where nothing was asked, sockets have not had their turn."""
        if time.monotonic() - self._judges.yielded_at_s > _SLICE_S:
            await asyncio.sleep(0)
            self._judges.yielded_at_s = time.monotonic()

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
                return await self._judges.policies.access(oid, role)
            except DatabaseUnavailableError as error:
                if not self.halls:
                    return None
                await self._wait_for_database(error)

    async def _ask(
        self,
        batch: Sequence[Entry],
        matched: Matched,
        answers: Answers,
    ) -> None:
        """A statement for each distinct claims and table, and one for each column and operator."""
        async with asyncio.TaskGroup() as group:
            verdicts = {
                question: group.create_task(self._judge(batch, question, sorted(indexes)))
                for question, indexes in matched.questions.items()
            }
            comparisons = [
                group.create_task(self._compare(job))
                for job in self._judges.comparer.jobs(matched.comparisons)
            ]
        for question, verdict in verdicts.items():
            answers.add(question, matched.questions[question], verdict.result())
        for told in comparisons:
            answers.comparisons.learn(told.result())

    async def _judge(
        self, batch: Sequence[Entry], question: Question, indexes: Sequence[int]
    ) -> Verdict:
        claims, oid = question
        images = [batch[index].image for index in indexes]
        while True:
            try:
                async with self._judges.statements:
                    verdict = await self._judges.policies.judge(oid, claims, images)
            except DatabaseUnavailableError as error:
                if not self.halls:
                    return NOTHING
                await self._wait_for_database(error)
                continue
            return Verdict(verdict.access, frozenset(indexes[i] for i in verdict.visible))

    async def _compare(self, job: Job) -> Mapping[Comparison, Told]:
        while True:
            try:
                async with self._judges.statements:
                    return await self._judges.comparer.perform(job)
            except DatabaseUnavailableError as error:
                if not self.halls:
                    return job.nothing
                await self._wait_for_database(error)

    async def _wait_for_database(self, error: Exception) -> None:
        logger.warning("policies cannot be asked, commits wait: %s", error)
        await asyncio.sleep(self._settings.database_retry_s)


def _entry(commit: Commit, ordinal: int, timestamp: bytes, row: RowChange, hall: Hall) -> Entry:
    event, image = event_of(row), hall.image(row)
    return Entry(commit.lsn, commit.xid, ordinal, timestamp, row, event, image, hall)
