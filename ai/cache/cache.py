"""The cache of one worker: before a call is made, is its answer there, or under way?

The gateway's seam `Cache`. What goes wrong here makes a call slower and dearer, and never fails it.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Coroutine
from functools import lru_cache
from typing import Any, Literal
from uuid import UUID, uuid4

import msgspec
from msgspec import Raw

from butterbase.ai.cache.canonical import Asker, Canonical, Uncacheable, canonical
from butterbase.ai.cache.counters import Counters
from butterbase.ai.cache.exact import Entry, RecentAnswers
from butterbase.ai.cache.flights import Flight, News
from butterbase.ai.cache.keeping import Keeper
from butterbase.ai.cache.lookups import BYPASS, Hit, Lead, Question
from butterbase.ai.cache.policy import CachePolicy, parse_cache_control
from butterbase.ai.cache.record import Vault
from butterbase.ai.cache.report import CacheAdmin
from butterbase.ai.cache.semantic import MeaningSearch, OpenEmbedder
from butterbase.ai.cache.store import CHANNEL, Meaning, Store
from butterbase.ai.calls.asked import Endpoint
from butterbase.ai.errors import AiConfigError
from butterbase.ai.seams import NO_LOOKUP, Asking, Lookup
from butterbase.ai.settings import AiSettings
from butterbase.ai.wire.form import NULL, ChatRequest
from butterbase.sql.errors import ButterbaseError
from butterbase.sql.listening import Listener
from butterbase.sql.pipeline import Executor
from butterbase.sql.secrets import MasterKey

WAIT_S_MAX = 120.0
"""For another's answer; then a call goes on its own."""
POLL_S = 2.0
"""How long news of another worker are waited for before the database is asked."""
LOOK_TIMEOUT_S = 2.0
FLUSH_S = 2.0
RENEW_S = 5.0
SWEEP_S = 60.0
SAMPLE_S = 1.0
"""An app's hits by meaning are written down for review no more often than this."""

_POLICY: "msgspec.json.Decoder[CachePolicy | None]" = msgspec.json.Decoder(CachePolicy | None)

_log = logging.getLogger(__name__)


class AnswerCache:
    """`run` lets it hear of other workers; before that, and while the control database is away,
    answers in memory are not used."""

    def __init__(
        self,
        control: Executor,
        listen_dsn: str,
        master_key: MasterKey,
        open_embedder: OpenEmbedder,
        settings: AiSettings,
        *,
        clock: Callable[[], float] = time.time,
        worker: UUID | None = None,
    ) -> None:
        """`control` and `listen_dsn` are the control database's, as butterbase_service."""
        self._bytes_max = settings.ai_cache_bytes_max
        self._clock = clock
        self._vault = Vault(master_key)
        self._store = Store(control, self._vault, worker or uuid4())
        self._search = MeaningSearch(self._store, open_embedder)
        self._recent = RecentAnswers(bytes_max=settings.ai_cache_memory_bytes_max)
        self._keeper = Keeper(
            self._store,
            self._search,
            self._recent,
            is_hearing=lambda: self._listener.is_listening,
            clock=clock,
        )
        forget = self._keeper.forget_all
        self._listener = Listener(
            listen_dsn, CHANNEL, hear=self._hear, on_listening=forget, on_failure=forget
        )
        self.admin = CacheAdmin(control, self._vault)
        self._flights = self._keeper.flights
        self._counters = Counters()
        self._news = News()
        self._sampled_s: dict[str, float] = {}

    # The seam

    def check(self, rules: Raw) -> None:
        """Raises AiConfigError."""
        _policy(bytes(rules))

    async def find(self, asking: Asking, request: ChatRequest) -> Lookup:
        try:
            return await self._find(asking, request)
        except Exception:
            _log.exception("request %s: the cache failed", asking.request_id)
            return BYPASS

    # The worker's life

    async def run(self) -> None:
        """Until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._listener.run())
            group.create_task(_every(FLUSH_S, self.flush))
            group.create_task(_every(RENEW_S, self.renew))
            group.create_task(_every(SWEEP_S, self.sweep))

    async def close(self) -> None:
        """Write what waits to be written."""
        await self._keeper.finish()
        try:
            await self.flush()
        except ButterbaseError as error:
            _log.warning("the cache's last counts are lost: %s", error)

    # Each of the three raises DatabaseError and DatabaseUnavailableError.

    async def flush(self) -> None:
        """Write the counts."""
        taken = self._counters.take()
        try:
            await self._store.count(taken, now_s=self._clock())
        except ButterbaseError:
            self._counters.put_back(taken)
            raise

    async def renew(self) -> None:
        """Say that the calls under way still are."""
        if ids := self._flights.ids:
            await self._store.renew(ids)

    async def sweep(self) -> None:
        """Delete what has expired, and what is too much."""
        await self._store.sweep(bytes_max=self._bytes_max)

    def _hear(self, payload: str) -> None:
        how, app_id, id_ = payload.split(" ")
        if how == "p":
            self._keeper.forget_app(app_id)
        else:
            self._news.tell(bytes.fromhex(id_), how)

    # Looking

    async def _find(self, asking: Asking, request: ChatRequest) -> Lookup:
        policy = None if asking.cache_rules == NULL else _policy(bytes(asking.cache_rules))
        if policy is None or policy.scope == "off" or asking.endpoint == Endpoint.EMBEDDINGS:
            return NO_LOOKUP
        control = parse_cache_control(asking.cache_control)
        named = _name(asking, request, policy) if control.is_stored else None
        if not isinstance(named, Canonical):
            return self._bypass(asking)
        now_s = self._clock()
        oldest_s = now_s - min(policy.ttl_s, control.age_s_max)
        id_ = self._vault.id_of(asking.app_id, named.key)
        question = Question(asking, policy, named, id_, oldest_s, now_s)
        if not control.is_read:
            self._counters.note(asking.app_id, asking.model, "bypass")
            return Lead(self._keeper, question, state="bypass") if question.may_renew else BYPASS
        if (entry := self._keeper.recent(question)) is not None:
            return self._hit(question, entry)
        if control.age_s_max < policy.ttl_s:
            if (entry := await self._look(question)) is not None:
                return self._hit(question, entry)
            return self._miss(question) if question.may_renew else self._bypass(asking)
        return await self._join_or_lead(question)

    async def _join_or_lead(self, question: Question) -> Lookup:
        flight = None
        try:
            async with asyncio.timeout(WAIT_S_MAX):
                while (others := self._flights.get(question.id)) is not None:
                    landing = await others.wait()
                    if isinstance(landing, Entry):
                        return self._hit(question, landing)
                    if landing == "failed":
                        return self._miss(question)
                flight = self._flights.start(question.id)
                found = await self._look_or_lead(question, flight)
        except TimeoutError:
            found = None
        except BaseException:
            if flight is not None:
                self._flights.land(question.id, flight, "left")
            raise
        if isinstance(found, Lead):
            self._counters.note(question.app_id, question.asking.model, "miss")
            return found
        if flight is not None:
            self._flights.land(question.id, flight, found or "failed")
        return self._miss(question) if found is None else self._hit(question, found)

    async def _look_or_lead(self, question: Question, flight: Flight) -> Entry | Lead | None:
        """None: another worker's call failed, and each goes on its own."""
        try:
            found = await self._look_until_known(question)
            return await self._look_further(question, flight) if found is True else found
        except ButterbaseError as error:
            _log.warning("the cache cannot be read: %s", error)
            return Lead(self._keeper, question, flight)

    async def _look_further(self, question: Question, flight: Flight) -> Entry | Lead:
        """For a call that other workers wait for.

        Raises DatabaseError, DatabaseUnavailableError.
        """
        try:
            meaning = await self._search.read(question.named)
            if meaning is not None:
                entry = await self._find_by_meaning(question, meaning)
                if entry is not None:
                    self._keeper.tell_of_drop(question, "l")
                    return entry
        except asyncio.CancelledError:
            self._keeper.tell_of_drop(question, "l")
            raise
        return Lead(self._keeper, question, flight, meaning=meaning, is_shared=True)

    async def _look_until_known(self, question: Question) -> Entry | Literal[True] | None:
        """The answer; True: it is this call that gets one; None: another's has failed.

        Raises DatabaseError, DatabaseUnavailableError.
        """
        try:
            while True:
                self._news.expect(question.id)
                found = await self._keeper.look_or_lead(question)
                if isinstance(found, Entry):
                    self._keeper.remember(question, found)
                if found is not False:
                    return found
                if await self._news.wait(question.id, POLL_S) == "f":
                    return None
        finally:
            self._news.forget(question.id)

    async def _find_by_meaning(self, question: Question, meaning: Meaning) -> Entry | None:
        threshold, app_id = question.policy.threshold, question.app_id
        assert threshold is not None
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                near = await self._search.find(
                    app_id, meaning, threshold=threshold, oldest_s=question.oldest_s
                )
        except (ButterbaseError, TimeoutError) as error:
            _log.warning("the cache cannot be searched: %s", error)
            return None
        if near is None:
            return None
        self._counters.use(near.id)
        now_s = self._clock()
        if now_s - self._sampled_s.get(app_id, 0) < SAMPLE_S:
            return near.entry
        self._sampled_s[app_id] = now_s
        user_id = question.asking.user_id if question.is_of_user else None
        sample = self._store.add_sample(app_id, near, asked=meaning.question, user_id=user_id)
        self._keeper.start(sample)
        return near.entry

    async def _look(self, question: Question) -> Entry | None:
        try:
            return await self._store.look(question.app_id, question.id, oldest_s=question.oldest_s)
        except ButterbaseError as error:
            _log.warning("the cache cannot be read: %s", error)
            return None

    def _bypass(self, asking: Asking) -> Lookup:
        self._counters.note(asking.app_id, asking.model, "bypass")
        return BYPASS

    def _miss(self, question: Question) -> Lookup:
        """A call on its own, for which nobody waits."""
        self._counters.note(question.app_id, question.asking.model, "miss")
        return Lead(self._keeper, question)

    def _hit(self, question: Question, entry: Entry) -> Lookup:
        hit = Hit(entry)
        if entry.similarity is None:
            self._counters.use(question.id)
        self._counters.note(
            question.app_id,
            question.asking.model,
            "hit" if entry.similarity is None else "semantic",
            nanos=hit.saved_nanos,
            ms=hit.latency_ms,
        )
        return hit


@lru_cache(1000)
def _policy(rules: bytes) -> CachePolicy | None:
    """Raises AiConfigError."""
    try:
        return _POLICY.decode(rules)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise AiConfigError(f"cache: {error}", param="cache") from error


def _name(asking: Asking, request: ChatRequest, policy: CachePolicy) -> Canonical | Uncacheable:
    asker = Asker(asking.app_id, asking.role, asking.user_id, asking.key_id, asking.beta)
    wire = Endpoint(asking.endpoint).wire
    return canonical(asker, wire, asking.body, request, asking.targets, policy)


async def _every(pause_s: float, step: Callable[[], Coroutine[Any, Any, None]]) -> None:
    while True:
        await asyncio.sleep(pause_s)
        try:
            await step()
        except ButterbaseError as error:
            _log.warning("the cache's %s waits: %s", step.__name__, error)
