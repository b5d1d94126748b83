"""Answers that came, on their way into this worker's memory and the database."""

import asyncio
import logging
from collections.abc import Callable, Coroutine
from typing import Any

from msgspec.structs import replace

from butterbase.ai.cache.exact import Entry, RecentAnswers
from butterbase.ai.cache.flights import Flights
from butterbase.ai.cache.lookups import Lead, Question
from butterbase.ai.cache.record import Record, encode_record, is_worth_keeping
from butterbase.ai.cache.semantic import MeaningSearch
from butterbase.ai.cache.store import Row, Store
from butterbase.ai.seams import Fresh
from butterbase.sql.errors import ButterbaseError

WRITE_COUNT_MAX = 200
"""Answers that wait to be written; those beyond it are for this worker alone."""

_log = logging.getLogger(__name__)


class Keeper:
    def __init__(
        self,
        store: Store,
        search: MeaningSearch,
        recent: RecentAnswers,
        *,
        is_hearing: Callable[[], bool],
        clock: Callable[[], float],
    ) -> None:
        """`is_hearing`: what other workers delete is heard of."""
        self.flights = Flights()
        self._store = store
        self._search = search
        self._recent = recent
        self._is_hearing = is_hearing
        self._clock = clock
        self._purged_s: dict[str, float] = {}
        self._unheard_s = float("-inf")
        """Until then deletions may not have been heard of."""
        self._tasks: set[asyncio.Task[None]] = set()

    def recent(self, question: Question) -> Entry | None:
        if not self._is_hearing():
            return None
        return self._recent.get(question.id, now_s=self._clock(), oldest_s=question.oldest_s)

    def remember(self, question: Question, entry: Entry) -> None:
        """What was found, or has come, after its question: deleted meanwhile it is not kept."""
        is_heard_of = self._is_hearing() and self._unheard_s < question.asked_s
        if is_heard_of and not self._is_purged(question):
            self._recent.put(question.id, entry)

    def remember_fresh(self, question: Question, fresh: Fresh) -> Entry | None:
        """What others get who wait for it; None where it is not worth keeping.

        Neither is what another model than the route's has answered: a fallback, or a cheaper one
        that a budget put in its place.
        """
        is_routes = (fresh.provider, fresh.model) in question.asking.targets
        is_kept = is_routes and is_worth_keeping(fresh.answer)
        data = encode_record(_record(fresh)) if is_kept else None
        if data is None:
            return None
        now_s = self._clock()
        entry = Entry(question.app_id, data, now_s, now_s + question.policy.ttl_s)
        is_answered = not question.may_renew and self.recent(question) is not None
        if not is_answered:
            self.remember(question, entry)
        return entry

    async def write(
        self, lead: Lead, fresh: Fresh, entry: Entry | None, *, is_shared: bool
    ) -> None:
        """Return once it is written and other workers are told."""
        question = lead.question
        if entry is None or self._is_purged(question) or len(self._tasks) >= WRITE_COUNT_MAX:
            if is_shared:
                self.tell_of_drop(question, "f")
            return

        async def write() -> None:
            meaning = lead.meaning or await self._search.read(question.named)
            if self._is_purged(question):  # while it was read
                if is_shared:
                    self.tell_of_drop(question, "f")
                return
            user_id = question.asking.user_id if question.is_of_user else None
            row = Row(
                app_id=question.app_id,
                id=question.id,
                user_id=user_id,
                prompt=question.asking.body,
                record=_record(fresh),
                created_s=entry.created_s,
                expires_s=entry.expires_s,
                meaning=meaning,
                replaced_before_s=question.asked_s if question.may_renew else question.oldest_s,
            )
            try:
                await self._store.keep(row)
            except ButterbaseError:
                if is_shared:
                    self.tell_of_drop(question, "f")
                raise
            if is_shared:
                await self._store.land(question.app_id, question.id, "k")

        await asyncio.shield(self.start(write()))

    async def look_or_lead(self, question: Question) -> Entry | bool:
        """As of the store. A caller that is cancelled leaves nothing that others would wait for.

        Raises DatabaseError, DatabaseUnavailableError.
        """
        look = asyncio.ensure_future(
            self._store.look_or_lead(question.app_id, question.id, oldest_s=question.oldest_s)
        )

        async def leave() -> None:
            # After it: a faster connection beside it would find nothing to end yet.
            if await look is True:
                await self._store.land(question.app_id, question.id, "l")

        try:
            return await asyncio.shield(look)
        except asyncio.CancelledError:
            self.start(leave())
            raise

    def tell_of_drop(self, question: Question, how: str) -> asyncio.Task[None]:
        """Other workers, as of butterbase.ai_cache_land."""
        return self.start(self._store.land(question.app_id, question.id, how))

    def start(self, step: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """A step of its own, for which nobody has to wait."""

        async def run() -> None:
            try:
                await step
            except ButterbaseError as error:
                _log.warning("the cache cannot be written: %s", error)

        task = asyncio.create_task(run())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def finish(self) -> None:
        """Wait for what was started."""
        while self._tasks:
            await asyncio.wait(self._tasks)

    def forget_all(self) -> None:
        """What other workers have deleted until now may not have been heard of."""
        self._recent.clear()
        self._unheard_s = self._clock()

    def forget_app(self, app_id: str) -> None:
        """Its answers were deleted; those that are under way are of before, and not kept."""
        self._recent.drop_app(app_id)
        self._purged_s[app_id] = self._clock()

    def _is_purged(self, question: Question) -> bool:
        return self._purged_s.get(question.app_id, float("-inf")) >= question.asked_s


def _record(fresh: Fresh) -> Record:
    answer = fresh.answer
    return Record(
        # A client that did not ask for the usage of its stream was not told; the next one may.
        answer if answer.usage is not None else replace(answer, usage=fresh.usage),
        fresh.provider,
        fresh.model,
        fresh.usage,
        fresh.cost_nanos,
        round(fresh.latency_s * 1000),
    )
