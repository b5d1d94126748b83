"""What an `ai.call` event changes in the ledger: its reservation is released, its cost is spent.

Part of the projection `usage`: rows of usage and sums of budgets are of the same events, always.
"""

from collections.abc import Sequence
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection

CALL_COUNT_MAX = 5_000
"""Calls of one statement."""


class EndedCall(Struct, frozen=True):
    """What counts of an event. With an id alone it only releases."""

    call_id: str | None
    app_id: str = ""
    user_id: str | None = None
    key_id: UUID | None = None
    model: str = ""
    is_byok: bool = False
    at: str = "epoch"
    nanos: int = 0
    tokens: int = 0


_LOCK = "select butterbase.ai_lock_ledger()"
_SETTLE = """
select butterbase.ai_settle(%s::uuid[], %s::text[], %s::uuid[], %s::uuid[], %s::text[],
  %s::boolean[], %s::timestamptz[], %s::bigint[], %s::bigint[])
"""
_RECOUNT = "select butterbase.ai_recount()"

TABLES = (("butterbase", "ai_budget_periods"), ("butterbase", "ai_reservations"))


async def lock_ledger(conn: AsyncConnection) -> None:
    """Until the transaction ends nobody changes which budgets there are. First of all locks."""
    await conn.execute(_LOCK)


async def settle(conn: AsyncConnection, calls: Sequence[EndedCall]) -> None:
    """Each call is to be settled once."""
    for first in range(0, len(calls), CALL_COUNT_MAX):
        part = calls[first : first + CALL_COUNT_MAX]
        columns = [[getattr(c, name) for c in part] for name in EndedCall.__struct_fields__]
        await conn.execute(_SETTLE, columns)


async def recount(conn: AsyncConnection) -> None:
    """Make the sums anew from the rows of usage. Nobody else may write to TABLES meanwhile."""
    await conn.execute(_RECOUNT)
