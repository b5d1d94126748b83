"""Calls and tokens by app, day, user and model: a projection of `ai.call` events.

`butterbase.usage` is as old as the log's last commit that was projected; a call is in it a moment
after its answer.
"""

import enum
import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import date
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from psycopg import AsyncConnection, sql

from butterbase.ingest.changes import Change, Commit, Insert

AI_CALL = "ai.call"
EVENTS = ("butterbase", "events")
GROUP_COUNT_MAX = 1000
STATEMENT_ROW_COUNT_MAX = 5_000
LOOKED_AT_COUNT_MAX = 5_000
"""Changes that are looked through without giving way to others, to save a transaction."""

_log = logging.getLogger(__name__)

# The names are part of an index, whose entries Postgres limits to 2,704 bytes.
_Endpoint = Annotated[str, Meta(max_length=40)]
_Provider = Annotated[str, Meta(max_length=255)]
_Model = Annotated[str, Meta(max_length=200)]
_APP_ID_LENGTH_MAX = 40

Tokens = Annotated[int, Meta(ge=0, le=1_000_000_000)]
"""Tokens of one call. Beyond the bound is a provider's mistake, and would spoil the sums."""


class AiCall(Struct, frozen=True):
    """The data of an `ai.call` event: how one call to a model ended."""

    endpoint: _Endpoint
    """Of OpenAI's API: `chat/completions` or `embeddings`."""
    provider: _Provider
    """Host of the provider's base URL; empty when the call did not get as far."""
    model: _Model
    """As asked for, or the default; empty when neither was known."""
    stream: bool
    status: Literal["ok", "failed", "cancelled", "timeout"]
    """`cancelled`: the client left, or this server stopped."""
    http_status: int | None
    """What the client was sent; None when it left before."""
    error_code: str | None
    prompt_tokens: Tokens
    completion_tokens: Tokens
    total_tokens: Tokens
    cached_tokens: Tokens
    """Part of prompt_tokens."""
    reasoning_tokens: Tokens
    """Part of completion_tokens."""
    usage_source: Literal["reported", "missing"]
    """`missing`: the provider told no usage, and the tokens are 0 for want of knowledge."""
    latency_ms: int
    first_token_ms: int | None
    """From the request to the first event of a stream."""


_Row: TypeAlias = tuple[str | int | None, ...]
"""The values of _ADD."""


class UsageProjection:
    """Adds every `ai.call` of the log to `butterbase.usage`.

    An event that does not decode is logged and counted nowhere: it must not stop the others.
    """

    name = "usage"
    tables = (("butterbase", "usage"),)

    def wants(self, commit: Commit) -> bool:
        if len(commit.changes) > LOOKED_AT_COUNT_MAX:
            return EVENTS in commit.tables
        return any(map(_is_ai_call, commit.changes_of(EVENTS)))

    async def apply(self, conn: AsyncConnection, commits: Sequence[Commit]) -> None:
        rows = (row for commit in commits for row in _rows(commit))
        while part := list(itertools.islice(rows, STATEMENT_ROW_COUNT_MAX)):
            await _add(conn, part)

    async def rebuild(self, conn: AsyncConnection) -> None:
        """Sum all events anew; they are never changed."""
        await conn.execute("delete from butterbase.usage")
        after = "0"
        while True:
            cursor = await conn.execute(_EVENTS, [AI_CALL, after, STATEMENT_ROW_COUNT_MAX])
            stored = await cursor.fetchall()
            if not stored:
                return
            rows = [_row(dict(zip(_EVENT_COLUMNS, event, strict=True))) for event in stored]
            if part := [row for row in rows if row is not None]:
                await _add(conn, part)
            after = stored[-1][0]

    async def resync(self, conn: AsyncConnection) -> None:
        """Which events a gap has swallowed, the sums do not tell."""
        await self.rebuild(conn)


async def _add(conn: AsyncConnection, rows: Sequence[_Row]) -> None:
    await conn.execute(_ADD, [list(column) for column in zip(*rows, strict=True)])


_EVENT_COLUMNS = ("id", "app_id", "at", "user_id", "data")
_EVENTS = """
select id::text, app_id, at::text, user_id::text, data::text
from butterbase.events e where type = %s and e.id > %s::bigint order by e.id limit %s
"""


# Summed here: Postgres updates a row once in a statement. A call that its client cancelled is no
# failure. `at` is read with the offset that the log writes it with.
_ADD = """
insert into butterbase.usage as total
  (app_id, day, user_id, endpoint, provider, model,
   requests, failures, prompt_tokens, completion_tokens)
select app_id, (at at time zone 'UTC')::date, user_id, endpoint, provider, model,
  count(*), count(*) filter (where status in ('failed', 'timeout')),
  sum(prompt_tokens), sum(completion_tokens)
from unnest(%s::text[], %s::timestamptz[], %s::uuid[], %s::text[], %s::text[], %s::text[],
            %s::text[], %s::bigint[], %s::bigint[])
  as call (app_id, at, user_id, endpoint, provider, model,
           status, prompt_tokens, completion_tokens)
group by 1, 2, 3, 4, 5, 6
on conflict (app_id, day, user_id, endpoint, provider, model) do update set
  requests = total.requests + excluded.requests,
  failures = total.failures + excluded.failures,
  prompt_tokens = total.prompt_tokens + excluded.prompt_tokens,
  completion_tokens = total.completion_tokens + excluded.completion_tokens
"""

_AI_CALL_DATA = msgspec.json.Decoder(AiCall)


class _Event(Struct, frozen=True):
    """The columns of butterbase.events that count."""

    app_id: Annotated[str, Meta(max_length=_APP_ID_LENGTH_MAX)]
    at: str
    user_id: str | None
    data: str


def _is_ai_call(change: Change) -> bool:
    if not isinstance(change, Insert):
        return False
    return any(
        column.name == "type" and value == AI_CALL
        for column, value in change.relation.pairs(change.new)
    )


def _rows(commit: Commit) -> Iterator[_Row]:
    for change in commit.changes_of(EVENTS):
        if _is_ai_call(change):
            assert isinstance(change, Insert)
            values = {column.name: value for column, value in change.relation.pairs(change.new)}
            if (row := _row(values)) is not None:
                yield row


def _row(values: Mapping[str, object]) -> _Row | None:
    """The values of _ADD, from an event's columns as text."""
    try:
        event = msgspec.convert(values, _Event)
        call = _AI_CALL_DATA.decode(event.data)
    except (msgspec.MsgspecError, RecursionError) as error:
        _log.error("event %s of type %s is not counted: %s", values.get("id"), AI_CALL, error)
        return None
    return (
        event.app_id,
        event.at,
        event.user_id,
        call.endpoint,
        call.provider,
        call.model,
        call.status,
        call.prompt_tokens,
        call.completion_tokens,
    )


class UsageGrouping(enum.StrEnum):
    MODEL = "model"
    USER = "user"
    ENDPOINT = "endpoint"
    DAY = "day"


class UsageSums(Struct, frozen=True, rename="camel"):
    requests: int
    failures: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class UsageGroup(UsageSums, frozen=True, rename="camel", kw_only=True):
    key: str | None
    """The model, user id, endpoint or day. A null user stands for the app's own keys."""


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
}

# The row of totals comes first, and is there when there are no others.
_REPORT = sql.SQL("""
select {key}::text,
  coalesce(sum(requests), 0)::bigint, coalesce(sum(failures), 0)::bigint,
  coalesce(sum(prompt_tokens), 0)::bigint, coalesce(sum(completion_tokens), 0)::bigint,
  coalesce(sum(prompt_tokens + completion_tokens), 0)::bigint
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
        UsageSums(*totals),
        [UsageGroup(*sums, key=key) for key, *sums in groups],
    )
