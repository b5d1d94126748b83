"""What the gateway is given for a call: an answer, or what takes the one that it gets."""

from typing import TYPE_CHECKING

from msgspec import Struct

from butterbase.ai.cache.canonical import Canonical
from butterbase.ai.cache.exact import Entry
from butterbase.ai.cache.flights import Flight, Landing
from butterbase.ai.cache.policy import CachePolicy
from butterbase.ai.cache.record import decode_record, renamed
from butterbase.ai.cache.store import Meaning
from butterbase.ai.seams import Asking, CacheState, Fresh, Kept
from butterbase.sql.claims import SERVICE_ROLE

if TYPE_CHECKING:
    from butterbase.ai.cache.keeping import Keeper


class Question(Struct, frozen=True):
    asking: Asking
    policy: CachePolicy
    named: Canonical
    id: bytes
    """Of the entry."""
    oldest_s: float
    """Of an answer that will do, in Unix time."""
    asked_s: float

    @property
    def app_id(self) -> str:
        return self.asking.app_id

    @property
    def is_of_user(self) -> bool:
        return self.policy.scope == "user"

    @property
    def may_renew(self) -> bool:
        """Put another answer in the place of a good one. Not what users ask of an app's answers:
        who asks until one suits them would choose it for everybody."""
        return self.is_of_user or self.asking.role == SERVICE_ROLE


class Hit:
    def __init__(self, entry: Entry) -> None:
        record, similarity = decode_record(entry.record), entry.similarity
        self.latency_ms = record.latency_ms
        """Of the call that got the answer."""
        self.kept: Kept | None = Kept(
            renamed(record.answer),
            record.provider,
            record.model,
            record.usage,
            record.cost_nanos,
            "hit" if similarity is None else "semantic",
            similarity,
        )
        self.state: CacheState = self.kept.state
        self.saved_nanos = record.cost_nanos

    async def keep(self, fresh: Fresh) -> None:
        pass

    def drop(self, *, has_left: bool = False) -> None:
        pass


class Bypass:
    """The call is none of the cache's."""

    state: CacheState = "bypass"
    kept: Kept | None = None

    async def keep(self, fresh: Fresh) -> None:
        pass

    def drop(self, *, has_left: bool = False) -> None:
        pass


BYPASS = Bypass()


class Lead:
    """A call that is to be made, whose answer will be kept."""

    kept: Kept | None = None

    def __init__(
        self,
        keeper: "Keeper",
        question: Question,
        flight: Flight | None = None,
        *,
        state: CacheState = "miss",
        meaning: Meaning | None = None,
        is_shared: bool = False,
    ) -> None:
        """`is_shared`: other workers know of the flight."""
        self.state = state
        self.question = question
        self.meaning = meaning
        self.is_shared = is_shared
        self._keeper = keeper
        self._flight = flight

    async def keep(self, fresh: Fresh) -> None:
        entry = self._keeper.remember_fresh(self.question, fresh)
        self._land(entry or "failed")
        is_shared, self.is_shared = self.is_shared, False
        await self._keeper.write(self, fresh, entry, is_shared=is_shared)

    def drop(self, *, has_left: bool = False) -> None:
        """`has_left`: only the client is at fault, and another one's call may well succeed."""
        is_shared, self.is_shared = self.is_shared, False
        if not has_left:
            self._land("failed")
            if is_shared:
                self._keeper.tell_of_drop(self.question, "f")
        elif is_shared:
            # Not before it: what the next one in this worker has taken would be ended with it.
            told = self._keeper.tell_of_drop(self.question, "l")
            told.add_done_callback(lambda _: self._land("left"))
        else:
            self._land("left")

    def _land(self, landing: Landing) -> None:
        if self._flight is not None:
            self._keeper.flights.land(self.question.id, self._flight, landing)
            self._flight = None
