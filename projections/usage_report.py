"""Sums of `butterbase.usage`, for whoever may see them.

The table is as old as the log's last commit that was projected.
"""

import enum
from collections.abc import Sequence
from datetime import date
from typing import Any
from uuid import UUID

from msgspec import Struct
from psycopg import AsyncConnection, sql

from butterbase.projections.amounts import format_usd

GROUP_COUNT_MAX = 1000


class UsageGrouping(enum.StrEnum):
    MODEL = "model"
    USER = "user"
    ENDPOINT = "endpoint"
    DAY = "day"
    KEY = "key"
    FUNCTION = "function"


class UsageSums(Struct, frozen=True, rename="camel"):
    requests: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    cached_tokens: int
    """Part of prompt_tokens: read from the provider's cache."""
    cache_write_tokens: int
    """Part of prompt_tokens."""
    reasoning_tokens: int
    """Part of completion_tokens."""
    cost_usd: str
    """Exact; so is `saved_usd`."""
    cache_hits: int
    """Answered from our own cache."""
    saved_usd: str
    """What these would have cost."""


class UsageGroup(UsageSums, frozen=True, rename="camel", kw_only=True):
    key: str | None
    """The model, user, endpoint, day, app key or function. A null user stands for the app's keys, a
    null key for users and the service key, a null function for calls that came through none."""


class UsageReport(Struct, frozen=True, rename="camel"):
    start_date: date
    end_date: date
    """Included. Days are UTC's."""
    group_by: UsageGrouping
    totals: UsageSums
    groups: list[UsageGroup]
    """Days in order, others by tokens; the first GROUP_COUNT_MAX. `totals` counts all."""


_COLUMNS = {
    UsageGrouping.MODEL: "model",
    UsageGrouping.USER: "user_id",
    UsageGrouping.ENDPOINT: "endpoint",
    UsageGrouping.DAY: "day",
    UsageGrouping.KEY: "key_id",
    UsageGrouping.FUNCTION: "function",
}

# The row of totals comes first, and is there when there are no others.
_REPORT = sql.SQL("""
select {key}::text,
  coalesce(sum(requests), 0)::bigint, coalesce(sum(failures), 0)::bigint,
  coalesce(sum(prompt_tokens), 0)::bigint, coalesce(sum(completion_tokens), 0)::bigint,
  coalesce(sum(prompt_tokens + completion_tokens), 0)::bigint,
  coalesce(sum(cached_tokens), 0)::bigint, coalesce(sum(cache_write_tokens), 0)::bigint,
  coalesce(sum(reasoning_tokens), 0)::bigint, coalesce(sum(cost_nanos), 0)::bigint,
  coalesce(sum(cache_hits), 0)::bigint, coalesce(sum(saved_nanos), 0)::bigint
from butterbase.usage
where app_id = %(app_id)s and day between %(start)s and %(end)s
  and (%(user_id)s::uuid is null or user_id = %(user_id)s)
group by grouping sets ((), ({key}))
order by grouping({key}) desc, {order}, 1
limit %(row_count_max)s
""")


async def usage_report(
    conn: AsyncConnection,
    app_id: str,
    *,
    start: date,
    end: date,
    group_by: UsageGrouping,
    user_id: UUID | None = None,
) -> UsageReport:
    """What the app used from `start` to `end`; with `user_id`, what that user did."""
    by_day = group_by is UsageGrouping.DAY
    statement = _REPORT.format(
        key=sql.Identifier(_COLUMNS[group_by]), order=sql.SQL("1" if by_day else "6 desc")
    )
    cursor = await conn.execute(
        statement,
        {
            "app_id": app_id,
            "start": start,
            "end": end,
            "user_id": user_id,
            "row_count_max": GROUP_COUNT_MAX + 1,
        },
    )
    (_, *totals), *groups = await cursor.fetchall()
    return UsageReport(
        start,
        end,
        group_by,
        UsageSums(*_shown(totals)),
        [UsageGroup(*_shown(sums), key=key) for key, *sums in groups],
    )


def _shown(sums: Sequence[int]) -> tuple[Any, ...]:
    *counts, cost_nanos, cache_hits, saved_nanos = sums
    return (*counts, format_usd(cost_nanos), cache_hits, format_usd(saved_nanos))
