"""Marks the rows that were there before their version: pages by the key, a few ahead of the work.

Rows that change meanwhile are marked by the log as well, and stay marked once. A page and the key
it ended with are written in one transaction, so that a crash repeats no more than one page.
"""

from typing import Final

import msgspec
from msgspec import Struct
from psycopg import AsyncConnection

from butterbase.projections.indexes.marks import Key
from butterbase.projections.indexes.sources import Sources
from butterbase.projections.indexes.versions import Version

PAGE_COUNT: Final = 1_000
"""Rows that are marked at once, and about as many as wait for the work."""

_UNSWEPT: Final = """
select id from ai.index_versions v
where not is_swept and state <> 'retired' and not id = any(%(without)s)
  and exists (select from ai.indexes i where i.id = v.index_id and i.dropped_at is null)
order by id limit %(limit)s
"""
# Zero rows: another process is at it.
_STATE: Final = """
select swept_key, row_total,
  (select count(*) from (
    select from ai.index_rows
    where version_id = %(version)s and generation <> done_generation and priority = 1
    limit %(page)s) waiting)
from ai.index_versions
where id = %(version)s and not is_swept and state <> 'retired'
for update skip locked
"""
_MARK: Final = """
insert into ai.index_rows (version_id, key, document_id, priority)
select %(version)s, array(select jsonb_array_elements_text(e)),
  case when %(is_document)s then (e ->> 0)::uuid end, 1
from jsonb_array_elements(%(keys)s::jsonb) e
on conflict (key, version_id) do nothing
"""
_ADVANCE: Final = """
update ai.index_versions
set swept_key = coalesce(%(key)s, swept_key), is_swept = %(is_swept)s, row_total = %(total)s,
  sampled_at = coalesce(sampled_at, now()), sampled_count = coalesce(sampled_count, row_count)
where id = %(version)s
"""


class _State(Struct, frozen=True):
    after: Key | None
    total: int | None
    waiting: int


async def unswept(conn: AsyncConnection, *, without: list[int], limit: int = 20) -> list[int]:
    """Ids of versions whose rows are not all marked."""
    cursor = await conn.execute(_UNSWEPT, {"without": without, "limit": limit})
    return [id_ for (id_,) in await cursor.fetchall()]


async def mark_page(conn: AsyncConnection, sources: Sources, version: Version) -> bool:
    """Mark the next rows, unless enough of them wait; whether there may be more to do at once.

    Raises SourceError.
    """
    async with conn.transaction():
        state = await _lock(conn, version)
        if state is None or state.waiting > PAGE_COUNT // 2:
            return False
        total = state.total
        if total is None or state.after is None:
            total = await sources.count(version)
        keys = await sources.keys(version, state.after, PAGE_COUNT)
        if keys:
            await conn.execute(
                _MARK,
                {
                    "version": version.id,
                    "is_document": version.kind == "collection",
                    "keys": msgspec.json.encode(keys).decode(),
                },
            )
        is_swept = len(keys) < PAGE_COUNT
        await conn.execute(
            _ADVANCE,
            {
                "version": version.id,
                "key": list(keys[-1]) if keys else None,
                "is_swept": is_swept,
                "total": total,
            },
        )
        return not is_swept


async def _lock(conn: AsyncConnection, version: Version) -> _State | None:
    cursor = await conn.execute(_STATE, {"version": version.id, "page": PAGE_COUNT})
    row = await cursor.fetchone()
    if row is None:
        return None
    after, total, waiting = row
    return _State(None if after is None else tuple(after), total, waiting)
