"""Rows that were marked and are not published yet: taken in turns, failed with bounds."""

from collections.abc import Collection, Sequence
from typing import Final

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.projections.indexes.marks import Key
from butterbase.sql.errors import ButterbaseError

# Versions take turns, so that a thousand rows of one do not keep a row of another waiting; what
# the log told comes before what was found. (The recursion steps from version to version by the
# index, whatever waits in each.)
_WAITING: Final = """
with recursive waiting as (
  (select version_id from ai.index_rows where generation <> done_generation
   order by version_id limit 1)
  union all
  select (
    select r.version_id from ai.index_rows r
    where r.generation <> r.done_generation and r.version_id > waiting.version_id
    order by r.version_id limit 1)
  from waiting where waiting.version_id is not null
)
select r.version_id, r.key, r.generation, r.done_generation, r.priority, r.attempts,
  r.source_hash, r.passage_count, r.passages_total is not null as is_begun
from waiting cross join lateral (
  select *, row_number() over (order by priority, marked_at) as turn
  from ai.index_rows r
  where r.version_id = waiting.version_id and r.generation <> r.done_generation
    and (r.retry_at is null or r.retry_at <= now()) and r.priority <= %(priority)s
  order by r.priority, r.marked_at limit %(limit)s
) r
where not waiting.version_id = any(%(without)s)
order by r.priority, r.turn, r.marked_at
limit %(limit)s
"""
_PUBLISHED: Final = """
select version_id, key, generation, done_generation, priority, attempts, source_hash, passage_count,
  passages_total is not null
from ai.index_rows
where version_id = %(version)s and generation <> done_generation and passage_count > 0
  and generation > %(after)s
order by generation limit %(limit)s
"""
# Of a later state of the row nothing is said.
_FAIL: Final = """
update ai.index_rows
set attempts = attempts + 1, error_code = %(code)s, error = %(error)s,
  retry_at = case when attempts + 1 < %(attempts_max)s
    then now() + interval '1 second' * least(600, %(delay_s)s * 2 ^ attempts) end,
  done_generation = case when attempts + 1 < %(attempts_max)s
    then done_generation else generation end
where version_id = %(version)s and key = %(key)s and generation = %(generation)s
returning done_generation = generation
"""
_SETTLE: Final = """
update ai.index_rows r
set done_generation = e.generation, attempts = 0, retry_at = null, error_code = null, error = null,
  source_updated_at = e.source_updated_at, passages_total = null, passages_embedded = null
from (
  select (e ->> 0)::bigint as version_id, array(select jsonb_array_elements_text(e -> 1)) as key,
    (e ->> 2)::bigint as generation, (e ->> 3)::timestamptz as source_updated_at
  from jsonb_array_elements(%(rows)s::jsonb) e
) e
where r.key = e.key and r.version_id = e.version_id and r.done_generation < e.generation
"""
_UNSTAGE: Final = "delete from ai.staged_vectors where version_id = %(version)s and key = %(key)s"
_BLAME: Final = """
update ai.index_versions set error_code = %(code)s, error = %(error)s
where id = any(%(versions)s) and error is distinct from %(error)s
"""


class Waiting(Struct, frozen=True):
    version_id: int
    key: Key
    generation: int
    done_generation: int
    priority: int
    attempts: int
    source_hash: str | None
    passage_count: int | None
    is_begun: bool
    """Whether vectors of it may be kept."""

    @property
    def id(self) -> tuple[int, Key]:
        return self.version_id, self.key


async def waiting_rows(
    conn: AsyncConnection, *, without: Collection[int], limit: int, priority: int
) -> list[Waiting]:
    """Up to `limit` of them, none of the versions `without`, and none less urgent."""
    values = {"without": list(without), "limit": limit, "priority": priority}
    rows = await (await conn.execute(_WAITING, values)).fetchall()
    return [Waiting(version, tuple(key), *more) for version, key, *more in rows]


async def published_rows(
    conn: AsyncConnection, version: int, *, after: int, limit: int
) -> list[Waiting]:
    """Marked rows that have passages of a state before, in the order of their generations."""
    values = {"version": version, "after": after, "limit": limit}
    rows = await (await conn.execute(_PUBLISHED, values)).fetchall()
    return [Waiting(version_id, tuple(key), *more) for version_id, key, *more in rows]


async def settle(conn: AsyncConnection, rows: Sequence[tuple[Waiting, str | None]]) -> None:
    """What is published of them is what they are. With each its source's `updated_at`."""
    settled = [(row.version_id, row.key, row.generation, updated_at) for row, updated_at in rows]
    await conn.execute(_SETTLE, {"rows": msgspec.json.encode(settled).decode()})


async def fail(
    conn: AsyncConnection,
    row: Waiting,
    error: ButterbaseError,
    *,
    delay_s: float,
    attempts_max: int,
) -> None:
    """Try it again later, or give it up. What is published of it stays."""
    values = {"version": row.version_id, "key": list(row.key)}
    async with conn.transaction():
        cursor = await conn.execute(
            _FAIL,
            {
                **values,
                "generation": row.generation,
                "code": error.code,
                "error": _told(error),
                "attempts_max": attempts_max,
                "delay_s": delay_s,
            },
        )
        if await cursor.fetchone() == (True,):
            await conn.execute(_UNSTAGE, values)


async def blame(
    conn: AsyncConnection, versions: Sequence[int], error: ButterbaseError | None
) -> None:
    """Write down why nothing of these versions is embedded now; None: something is."""
    values = {
        "versions": list(versions),
        "code": None if error is None else error.code,
        "error": None if error is None else _told(error),
    }
    await conn.execute(_BLAME, values)


def _told(error: ButterbaseError) -> str:
    # It is read by users as well.
    message = error.public_message
    return f"{message} ({error.hint})" if error.hint else message
