"""Gives up calls that nobody will end: their worker is dead, or their time has passed.

A worker says every few seconds that it lives, by raising a number. It is dead when the number has
stood still, as far as this process has seen, for LOST_AFTER_S: no clocks are compared, a database
that was away makes nobody look dead, and a sweeper that has just begun knows of nobody yet. A call
that is given up ends in an event like any other, which the projection settles; one that comes to
its end all the same is recorded beside it (ai/money/ledger.py).
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from datetime import datetime
from time import monotonic
from uuid import UUID

import psycopg
from msgspec import Struct
from psycopg import AsyncConnection
from psycopg.rows import class_row

from butterbase.ingest.lsn import LSN, parse_lsn
from butterbase.projections.budgets import EndedCall, lock_ledger, settle
from butterbase.projections.usage import AI_CALL, AiCall, UsageProjection, encode_call

logger = logging.getLogger(__name__)

SWEEP_S = 5.0
LOST_AFTER_S = 30.0
"""Six times the pause between two signs of life."""

TIDY_S = 600.0
CALL_COUNT_MAX = 1_000
"""Of one statement."""

# A worker that has not yet said anything has no row.
_WORKERS = """
select worker, w.beats
from (
  select distinct worker from butterbase.ai_reservations
  union
  select id from butterbase.ai_workers
) r (worker)
left join butterbase.ai_workers w on w.id = r.worker
"""

# What has its event already is about to be settled. In order, as the api writes events: else two
# who write the same calls could wait for each other.
_ABANDONED = """
select r.call_id, r.app_id, r.user_id, r.key_id, r.role, r.request_id, r.endpoint, r.model,
  r.is_byok, r.admitted_at, r.nanos,
  (extract(epoch from now() - r.admitted_at) * 1000)::bigint as latency_ms
from butterbase.ai_reservations r
where (r.worker = any(%(dead)s) or r.expires_at < now())
  and not exists (select from butterbase.events e where e.call_id = r.call_id)
order by r.call_id
limit %(count)s
"""

# The admission of a call may be committed after its event, when its worker lost the connection and
# gave it up: no event is to come that would release it.
_RECORDED = """
select coalesce(array_agg(r.call_id), '{}'), pg_current_wal_insert_lsn()::text,
  (select lsn::text from butterbase.checkpoints where projection = %(projection)s)
from butterbase.ai_reservations r
where (r.worker = any(%(dead)s) or r.expires_at < now())
  and exists (select from butterbase.events e where e.call_id = r.call_id)
"""

_INSERT = """
insert into butterbase.events (app_id, type, user_id, role, request_id, call_id, data)
values (%s, %s, %s, %s, %s, %s, %s::jsonb)
on conflict (call_id) do nothing
"""

_FORGET_WORKERS = """
delete from butterbase.ai_workers w
where w.id = any(%s)
  and not exists (select from butterbase.ai_reservations r where r.worker = w.id)
"""

# Locked rows are somebody's, and the next time is soon enough. Nothing is counted any more in
# periods that are so long over.
_TIDY = (
    """
delete from butterbase.ai_budget_periods where id in (
  select p.id from butterbase.ai_budget_periods p
  left join butterbase.ai_budgets b on b.id = p.budget_id
  where b.id is null
    or b.period = 'day' and p.starts_on < current_date - 40
    or b.period = 'month' and p.starts_on < current_date - 400
  limit 10000 for update of p skip locked)
""",
    """
delete from butterbase.ai_limit_buckets where id in (
  select b.id from butterbase.ai_limit_buckets b
  where greatest(b.requests_until, b.tokens_until) < now() - interval '1 hour'
  limit 10000 for update skip locked)
""",
)


class Liveness:
    """Which workers have stood still, and since when."""

    def __init__(self, *, lost_after_s: float = LOST_AFTER_S) -> None:
        self._lost_after_s = lost_after_s
        self._seen: dict[UUID, tuple[int | None, float]] = {}

    def observe(self, beats: Mapping[UUID, int | None], now_s: float) -> set[UUID]:
        """Take what the workers say now; the dead among them. None: it has said nothing yet."""
        self._seen = {
            worker: known
            if (known := self._seen.get(worker)) is not None and known[0] == beat
            else (beat, now_s)
            for worker, beat in beats.items()
        }
        return {
            w for w, (_, since_s) in self._seen.items() if now_s - since_s >= self._lost_after_s
        }

    def forget(self) -> None:
        """Begin anew: for a while nobody could be heard."""
        self._seen.clear()


class _Abandoned(Struct, frozen=True):
    call_id: UUID
    app_id: str
    user_id: UUID | None
    key_id: UUID | None
    role: str | None
    request_id: str | None
    endpoint: str
    model: str
    is_byok: bool
    admitted_at: datetime
    nanos: int
    latency_ms: int

    def lost(self) -> AiCall:
        return AiCall(
            endpoint=self.endpoint,
            provider="",
            model=self.model,
            stream=False,
            status="lost",
            http_status=None,
            error_code="ai_call_lost",
            prompt_tokens=0,
            completion_tokens=0,
            total_tokens=0,
            cached_tokens=0,
            reasoning_tokens=0,
            usage_source="missing",
            latency_ms=self.latency_ms,
            first_token_ms=None,
            requested_model=self.model,
            key_id=self.key_id,
            is_byok=self.is_byok,
            admitted_at=self.admitted_at,
            reserved_nanos=self.nanos,
        )


class Sweeper:
    """Several may run at once; a call is given up once."""

    def __init__(
        self,
        dsn: str,
        *,
        liveness: Liveness | None = None,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        """`dsn` is the control database's, as butterbase_stream."""
        self._dsn = dsn
        self._liveness = liveness or Liveness()
        self._clock = clock
        self._recorded: dict[UUID, LSN] = {}
        """Abandoned calls that have their event, and where the log was when they were seen."""

    async def run(self) -> None:
        """Until cancelled."""
        while True:
            try:
                async with await AsyncConnection.connect(self._dsn, autocommit=True) as conn:
                    tidied_s = self._clock()
                    while True:
                        await self.sweep(conn)
                        if self._clock() - tidied_s >= TIDY_S:
                            await tidy(conn)
                            tidied_s = self._clock()
                        await asyncio.sleep(SWEEP_S)
            except psycopg.Error as error:
                logger.warning("calls of dead workers wait: %s; trying again", error)
            self._liveness.forget()
            await asyncio.sleep(SWEEP_S)

    async def sweep(self, conn: AsyncConnection) -> int:
        """Give up what is abandoned now; how many calls. `conn` is in autocommit mode."""
        cursor = await conn.execute(_WORKERS)
        dead = list(self._liveness.observe(dict(await cursor.fetchall()), self._clock()))
        count = 0
        while calls := await self._abandoned(conn, dead):
            async with conn.cursor() as writer:
                await writer.executemany(_INSERT, [_event(call) for call in calls])
            count += len(calls)
            logger.warning("%d calls to models were lost with their worker", len(calls))
        await self._release(conn, dead)
        await conn.execute(_FORGET_WORKERS, [dead])
        return count

    async def _abandoned(self, conn: AsyncConnection, dead: list[UUID]) -> list[_Abandoned]:
        async with conn.cursor(row_factory=class_row(_Abandoned)) as cursor:
            await cursor.execute(_ABANDONED, {"dead": dead, "count": CALL_COUNT_MAX})
            return await cursor.fetchall()

    async def _release(self, conn: AsyncConnection, dead: list[UUID]) -> None:
        """Release what is still reserved though the call's event has been settled."""
        cursor = await conn.execute(_RECORDED, {"dead": dead, "projection": UsageProjection.name})
        ((call_ids, now, applied),) = await cursor.fetchall()
        now, applied = parse_lsn(now), parse_lsn(applied or "0/0")
        self._recorded = {id_: self._recorded.get(id_, now) for id_ in call_ids}
        if settled := sorted(id_ for id_, lsn in self._recorded.items() if lsn <= applied):
            async with conn.transaction():
                await lock_ledger(conn)
                await settle(conn, [EndedCall(str(id_)) for id_ in settled])
            logger.warning("%d calls to models were admitted after their end", len(settled))


async def tidy(conn: AsyncConnection) -> None:
    """Delete counters that nothing is counted in any more."""
    for statement in _TIDY:
        await conn.execute(statement)


def _event(call: _Abandoned) -> tuple[object, ...]:
    data = encode_call(call.lost()).decode()
    return (call.app_id, AI_CALL, call.user_id, call.role, call.request_id, call.call_id, data)
