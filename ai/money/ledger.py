"""The ledger's edge: a call is admitted in one statement, and its event is written in another.

What lies between is known to the database alone: a worker that is killed leaves its reservations,
and the sweeper (projections/sweeper.py) gives them up once the worker has not said for a while that
it lives.
"""

import asyncio
import logging
from collections import OrderedDict
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TypeAlias
from uuid import UUID, uuid4, uuid5

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from butterbase.ai.money.config import PlanName
from butterbase.ai.money.errors import BudgetExceededError, RateLimitedError
from butterbase.ai.money.journal import BATCH_COUNT_MAX, PAUSE_S, Journal, Settlement
from butterbase.ai.money.refusals import BudgetRefusal, LimitRefusal, shown
from butterbase.ai.money.turns import Turns
from butterbase.sql.catalog import load_queries
from butterbase.sql.claims import SERVICE_ROLE
from butterbase.sql.errors import (
    AcquisitionTimeoutError,
    ButterbaseError,
    DatabaseError,
    DatabaseUnavailableError,
)
from butterbase.sql.pipeline import Executor, Result, Statement

BEAT_S = 5.0
"""From one sign of life to the next; the sweeper waits for six of them."""

WRITE_TIMEOUT_S = 5.0
"""For this long writing an event is tried, before the call's answer is withheld."""

RETRY_S = 0.1
UNWRITTEN_COUNT_MAX = 10_000
"""Events that wait for a control database that is away; beyond it the oldest are only logged."""

RESERVED_BEYOND_S = 300.0
"""A reservation outlives the longest call by this, while its event is written and read."""

QUERIES = load_queries("money")

_UNIQUE_VIOLATION = "23505"
_BUDGET_REFUSAL = msgspec.json.Decoder(BudgetRefusal)
_LIMIT_REFUSAL = msgspec.json.Decoder(LimitRefusal)
_MODELS = msgspec.json.Decoder(frozenset[str])

_log = logging.getLogger(__name__)


class Admission(Struct, frozen=True):
    """What a call asks for."""

    app_id: str
    role: str
    user_id: UUID | None
    key_id: UUID | None
    """The app key that calls."""
    request_id: str
    endpoint: str
    model: str
    """As asked for: rate limits of models are by it."""
    models: Sequence[str]
    """Those that may come to be called, the first first: budgets of models are by them."""
    nanos: int
    """What it costs at most, on the dearest of them."""
    tokens: int
    """That it uses at most."""
    life_s: float
    """How long it may last."""
    is_byok: bool = False
    waived: Sequence[int] = ()
    """Ids of the budgets that rerouted it, whose cheaper model it now asks for."""
    config_version: int | None = None
    """Of the app's configuration that all of this is by; None: of any."""


class ConfigChangedError(Exception):
    """The app's configuration is another one by now; the call is to be made by that."""


class Admitted(Struct, frozen=True):
    at: datetime
    """The call counts in the periods of this time, whenever it ends."""
    reserved_nanos: int
    remaining_nanos: int | None
    """What the tightest of its budgets has left beside it; None where it has none, or the answer
    to the admission was lost on the way."""
    denied_models: frozenset[str] = frozenset()
    """Their own budgets have no room: they must not be called. Never all of them."""


class Rerouted(Struct, frozen=True):
    """Not admitted: to be asked again for `refusal.reroute_to`, with the budget waived."""

    refusal: BudgetRefusal


Verdict: TypeAlias = Admitted | Rerouted


class Ledger:
    """One worker's: it has an id, and `run` lets it live."""

    def __init__(
        self,
        control: Executor,
        *,
        default_plan: PlanName,
        pause_s: float = PAUSE_S,
    ) -> None:
        """`control` is the control database's, as butterbase_service; `default_plan` of apps that
        were given none; `pause_s` the journal's.
        """
        self._control = control
        self._default_plan = default_plan
        self._planned: set[str] = set()
        """Apps that are known to have a plan."""
        self.worker = uuid4()
        self._worker_text = _text(self.worker)
        self._turns = Turns()
        self._journal = Journal(control, pause_s=pause_s)
        self._unwritten: OrderedDict[UUID, Settlement] = OrderedDict()
        self._posted: dict[asyncio.Future[str | None], tuple[float, Settlement]] = {}
        """In their order: when they were posted, by the loop's clock, and what."""
        self._settling: set[asyncio.Task[bool]] = set()
        self._timer: asyncio.TimerHandle | None = None

    @property
    def posted_count(self) -> int:
        """Events that were posted, and are being written."""
        return len(self._posted) + len(self._settling)

    async def admit(
        self, call_id: UUID, admission: Admission, *, now: datetime | None = None
    ) -> Verdict:
        """Reserve the call's upper bound in all of its budgets, or in none.

        `call_id` is the one that it is settled by. `now` is the database's own unless given.
        Raises BudgetExceededError, RateLimitedError, ConfigChangedError, DatabaseUnavailableError.
        """
        if admission.app_id not in self._planned:
            await self._give_plan(admission.app_id)
        statement = self._admit(call_id, admission, now)
        async with self._turns.of(admission.app_id):
            result = await self._run_admission(statement)
        if result is None:
            return await self._admitted_before(call_id, admission)
        return _verdict(admission, result)

    async def _run_admission(self, statement: Statement) -> Result | None:
        """None: it was admitted before, and the answer lost.

        Raises DatabaseError, DatabaseUnavailableError.
        """
        try:
            (result,) = await self._control.run(statement)
        except AcquisitionTimeoutError:
            raise
        except DatabaseUnavailableError:
            # The connection may have been a dead one. Whether the statement ran is not known: if
            # it did, the second finds the reservation.
            try:
                (result,) = await self._control.run(statement)
            except DatabaseError as error:
                if error.sqlstate != _UNIQUE_VIOLATION:
                    raise
                return None
        return result

    async def settle(self, settlement: Settlement) -> bool:
        """Write the call's event; whether it is written.

        One that is not is written later, as soon as the database is back, while this worker lives.
        """
        try:
            async with asyncio.timeout(WRITE_TIMEOUT_S):
                while not await self._is_written(settlement):  # noqa: ASYNC110
                    await asyncio.sleep(RETRY_S)
        except Exception as error:  # whatever it is, the event must not be forgotten
            _log.error("an event waits to be written (%s): %s", type(error).__name__, settlement)
            self._keep(settlement)
            return False
        return True

    def post(self, settlement: Settlement) -> None:
        """`settle`, for who does not wait: an event that is just written has no task of its own."""
        try:
            written = self._journal.post(settlement)
        except Exception:  # what cannot be encoded is told as `settle` tells it
            self._settle_beside(settlement)
            return
        loop = asyncio.get_running_loop()
        self._posted[written] = (loop.time(), settlement)
        written.add_done_callback(self._on_written)
        if self._timer is None:
            self._timer = loop.call_later(WRITE_TIMEOUT_S, self._look)

    async def drain(self) -> None:
        """Until what was posted is written, or waits for the database."""
        if self._posted:
            await asyncio.wait(list(self._posted), timeout=WRITE_TIMEOUT_S)
        self._give_up_posted(after_s=0)
        while self._settling:
            await asyncio.wait(self._settling)

    def _on_written(self, written: "asyncio.Future[str | None]") -> None:
        posted = self._posted.pop(written, None)
        if posted is None or written.cancelled():
            return
        if written.exception() is not None or written.result() is not None:
            self._settle_beside(posted[1])

    def _settle_beside(self, settlement: Settlement) -> None:
        task = asyncio.create_task(self.settle(settlement))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    def _look(self) -> None:
        # One timer for all: a timer for each costs as much as the rest of posting.
        self._timer = None
        self._give_up_posted(after_s=WRITE_TIMEOUT_S)
        if self._posted:
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(WRITE_TIMEOUT_S, self._look)

    def _give_up_posted(self, *, after_s: float) -> None:
        """What the database has not answered within that time waits for it."""
        before_s = asyncio.get_running_loop().time() - after_s
        while self._posted:
            written, (posted_s, settlement) = next(iter(self._posted.items()))
            if posted_s > before_s:
                return
            del self._posted[written]
            _log.error("an event waits to be written (no answer): %s", settlement)
            self._keep(settlement)

    async def run(self) -> None:
        """Say that this worker lives, and write what could not be, until cancelled."""
        while True:
            try:
                await self.beat()
                await self.write_waiting()
            except ButterbaseError as error:
                _log.warning("the control database does not hear of this worker: %s", error)
            except Exception:  # without a sign of life its calls would be given up
                _log.exception("the ledger of this worker failed")
            await asyncio.sleep(BEAT_S)

    async def beat(self) -> None:
        """Raises DatabaseError, DatabaseUnavailableError."""
        await self._control.run(Statement(QUERIES["beat"], (_text(self.worker),)))

    async def write_waiting(self) -> None:
        """Write the events that wait. Raises DatabaseUnavailableError."""
        waiting = list(self._unwritten.values())
        # Many at a time: one after another, those of a long outage would take minutes, in which
        # nothing is heard of this worker, and its calls would be given up.
        for first in range(0, len(waiting), BATCH_COUNT_MAX):
            part = map(self._write_waiting, waiting[first : first + BATCH_COUNT_MAX])
            for failure in await asyncio.gather(*part, return_exceptions=True):
                if failure is not None:
                    raise failure

    async def _write_waiting(self, settlement: Settlement) -> None:
        """Raises DatabaseUnavailableError."""
        try:
            await self._write(settlement)
        except DatabaseUnavailableError:
            raise
        except Exception as error:
            # It would fail each time; the log has it.
            _log.error("request %s: its event is refused: %s", settlement.request_id, error)
        self._unwritten.pop(settlement.call_id, None)

    async def _is_written(self, settlement: Settlement) -> bool:
        """False while the database is away. Raises DatabaseError."""
        try:
            await self._write(settlement)
        except DatabaseUnavailableError as error:
            _log.warning("request %s: writing its event again: %s", settlement.request_id, error)
            return False
        return True

    async def _give_plan(self, app_id: str) -> None:
        plan = (app_id.encode(), self._default_plan.encode())
        await self._control.run(Statement(QUERIES["default_plan"], plan))
        self._planned.add(app_id)

    async def _admitted_before(self, call_id: UUID, admission: Admission) -> Admitted:
        statement = Statement(QUERIES["admitted_at"], (_text(call_id),))
        (result,) = await self._control.run(statement)
        return Admitted(_time(result.value()), admission.nanos, None)

    def _admit(self, call_id: UUID, admission: Admission, now: datetime | None) -> Statement:
        return Statement(
            QUERIES["admit"],
            (
                _text(call_id),
                self._worker_text,
                admission.app_id.encode(),
                _text(admission.user_id),
                _text(admission.key_id),
                admission.role.encode(),
                _clean(admission.request_id).encode(),
                admission.endpoint.encode(),
                _clean(admission.model).encode(),
                _array([_clean(model) for model in admission.models]),
                b"t" if admission.is_byok else b"f",
                _text(admission.nanos),
                _text(admission.tokens),
                _text(f"{admission.life_s + RESERVED_BEYOND_S:f} s"),
                _array([str(id_) for id_ in admission.waived]),
                None if now is None else now.isoformat().encode(),
                _text(admission.config_version),
            ),
        )

    async def _write(self, settlement: Settlement) -> None:
        """Raises DatabaseError, DatabaseUnavailableError."""
        known = await self._insert(settlement)
        if known == "lost" and settlement.call.status != "lost":
            # It was given up while it still ran. What it did cost is recorded beside that, once:
            # the id is the same each time.
            late = replace(settlement.call, is_late=True)
            call_id = uuid5(settlement.call_id, "late")
            await self._insert(replace(settlement, call_id=call_id, call=late))

    async def _insert(self, settlement: Settlement) -> str | None:
        """None: it is written now; else the status that it was written with."""
        while (status := await self._journal.write(settlement)) == "":
            pass  # another's, which is committed by now
        return status

    def _keep(self, settlement: Settlement) -> None:
        self._unwritten[settlement.call_id] = settlement
        if len(self._unwritten) > UNWRITTEN_COUNT_MAX:
            _, dropped = self._unwritten.popitem(last=False)
            _log.error("request %s: its event is in the log alone", dropped.request_id)


def _verdict(admission: Admission, result: Result) -> Verdict:
    """Raises BudgetExceededError, RateLimitedError, ConfigChangedError."""
    if result.row_count == 0:
        raise ConfigChangedError
    ((verdict, at, remaining, denied, retry_after_s, refusal),) = result.rows()
    if verdict == b"admitted":
        return Admitted(
            _time(at),
            admission.nanos,
            None if remaining is None else int(remaining),
            _MODELS.decode(denied or b"[]"),
        )
    assert refusal is not None
    if verdict == b"limit":
        raise RateLimitedError(_LIMIT_REFUSAL.decode(refusal), float(retry_after_s or 0))
    budget = _BUDGET_REFUSAL.decode(refusal)
    if verdict == b"reroute":
        return Rerouted(budget)
    raise BudgetExceededError(budget, shown(budget, is_service=admission.role == SERVICE_ROLE))


def _time(epoch_s: bytes | None) -> datetime:
    return datetime.fromtimestamp(float(epoch_s or 0), UTC)


def _text(value: object) -> bytes | None:
    return None if value is None else str(value).encode()


def _clean(text: str) -> str:
    # Postgres's text has no NUL, and an array's is quoted below.
    return text.replace("\0", "")


def _array(texts: Sequence[str]) -> bytes:
    """An array in Postgres's text format."""
    quoted = [text.replace("\\", "\\\\").replace('"', '\\"') for text in texts]
    return ("{" + ",".join(f'"{text}"' for text in quoted) + "}").encode()
