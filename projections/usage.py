"""Calls and tokens by app, day, user and model: a projection of `ai.call` events.

`butterbase.usage` is as old as the log's last commit that was projected; a call is in it a moment
after its answer.
"""

import itertools
import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Annotated, Literal, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta, Struct
from msgspec.structs import replace
from psycopg import AsyncConnection

from butterbase.ingest.changes import Change, Commit, Insert
from butterbase.projections import call_metrics
from butterbase.projections.budgets import TABLES, EndedCall, lock_ledger, recount, settle

AI_CALL = "ai.call"
EVENTS = ("butterbase", "events")
STATEMENT_ROW_COUNT_MAX = 5_000
LOOKED_AT_COUNT_MAX = 5_000
"""Changes that are looked through without giving way to others, to save a transaction."""

_NUL = b"\\u0000"
"""As JSON has it; Postgres's text cannot."""

_log = logging.getLogger(__name__)

# The names are part of an index, whose entries Postgres limits to 2,704 bytes.
_LENGTHS_MAX = {"endpoint": 40, "provider": 255, "model": 200, "requested_model": 200}
_Endpoint = Annotated[str, Meta(max_length=_LENGTHS_MAX["endpoint"])]
_Provider = Annotated[str, Meta(max_length=_LENGTHS_MAX["provider"])]
_Model = Annotated[str, Meta(max_length=_LENGTHS_MAX["model"])]
_APP_ID_LENGTH_MAX = 40
_FUNCTION_LENGTH_MAX = 63
"""Of their names; a part of the index as well."""
_INDEX_LENGTH_MAX = 200

TOKENS_MAX = 1_000_000_000
Tokens = Annotated[int, Meta(ge=0, le=TOKENS_MAX)]
"""Tokens of one call. Beyond the bound is a provider's mistake, and would spoil the sums."""

NANOS_MAX = 10**15
Nanos = Annotated[int, Meta(ge=0, le=NANOS_MAX)]
"""Nano-dollars of one call: at most a million dollars, so that a sum has room for thousands."""

PriceSource: TypeAlias = Literal["catalog", "override", "fallback", "provider", "none"]
"""`fallback`: the model is in no list of prices. `none`: there was nothing to pay for."""


class AiCall(Struct, frozen=True):
    """The data of an `ai.call` event: how one call to a model ended."""

    endpoint: _Endpoint
    """Of OpenAI's API: `chat/completions` or `embeddings`."""
    provider: _Provider
    """Host of the provider's base URL; empty when the call did not get as far."""
    model: _Model
    """The one that was called; before one was, as asked for, or the default; else empty."""
    stream: bool
    status: Literal["ok", "failed", "cancelled", "timeout", "lost"]
    """`cancelled`: the client left, or this server stopped. `lost`: the worker was killed; what the
    call used is not known, and it costs nothing."""
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
    usage_source: Literal["reported", "missing", "estimated"]
    """`missing`: the provider told no usage, and the tokens are 0 for want of knowledge;
    `estimated`: it told none, and they were counted here."""
    latency_ms: int
    first_token_ms: int | None
    """From the request to the first event of a stream."""
    # What follows came later: an event of before decodes without.
    requested_model: _Model = ""
    """As asked for: an alias, where the app has such routes."""
    key_id: UUID | None = None
    """The app key that called."""
    function: Annotated[str, Meta(max_length=_FUNCTION_LENGTH_MAX)] | None = None
    """The app's function that called."""
    index: Annotated[str, Meta(max_length=_INDEX_LENGTH_MAX)] | None = None
    """The app's index for which it was: its name, or `collection:` and an id."""
    attempts: int = 1
    """Requests to providers."""
    cache_write_tokens: Tokens = 0
    """Part of prompt_tokens."""
    cost_nanos: Nanos = 0
    price_source: PriceSource = "none"
    is_byok: bool = False
    """Paid with a provider key of the app's own."""
    cache: Literal["hit", "semantic", "miss", "bypass", "off"] = "off"
    cache_similarity: float | None = None
    """Of a semantic hit."""
    saved_nanos: Nanos = 0
    """What a cache hit would have cost."""
    guards: dict[str, str] = {}
    """Verdicts by guard."""
    budget_action: Literal["block", "reroute", "limit"] | None = None
    """What a budget did with the call, or that a rate limit refused it."""
    admitted_at: datetime | None = None
    """It counts in the day and month of its admission, whenever it ends."""
    reserved_nanos: Nanos = 0
    step: int = 1
    """Which of the calls that were made for one request; the others are those between which the
    gateway ran tools."""
    is_late: bool = False
    """Recorded after it was given up as lost; the request is counted there, the money here."""


def encode_call(call: AiCall) -> bytes:
    """An event's data. What is out of bounds is brought within: an event must be read again."""
    data = msgspec.json.encode(call).replace(_NUL, b"")
    try:
        _AI_CALL_DATA.decode(data)
    except msgspec.ValidationError:
        data = msgspec.json.encode(_bounded(call)).replace(_NUL, b"")
    return data


def _bounded(call: AiCall) -> AiCall:
    changes: dict[str, object] = {
        "function": call.function and call.function[:_FUNCTION_LENGTH_MAX]
    }
    for name in call.__struct_fields__:
        value = getattr(call, name)
        if name in _LENGTHS_MAX:
            changes[name] = value[: _LENGTHS_MAX[name]]
        elif name.endswith("_tokens"):
            changes[name] = min(max(value, 0), TOKENS_MAX)
        elif name.endswith("_nanos"):
            changes[name] = min(max(value, 0), NANOS_MAX)
    return replace(call, **changes)


class UsageProjection:
    """Adds every `ai.call` of the log to `butterbase.usage`, counts it for `/metrics`, and settles
    it in the app's budgets.

    An event that does not decode is logged and counted nowhere: it must not stop the others. What
    it had reserved is released.
    """

    name = "usage"
    tables = (("butterbase", "usage"), call_metrics.TABLE, *TABLES)

    def wants(self, commit: Commit) -> bool:
        if len(commit.changes) > LOOKED_AT_COUNT_MAX:
            return EVENTS in commit.tables
        return any(map(_is_ai_call, commit.changes_of(EVENTS)))

    async def apply(self, conn: AsyncConnection, commits: Sequence[Commit]) -> None:
        events = (event for commit in commits for event in _events(commit))
        ended: list[EndedCall] = []
        await lock_ledger(conn)
        while part := list(itertools.islice(events, STATEMENT_ROW_COUNT_MAX)):
            await _add(conn, part)
            ended += [event.ended for event in part]
        # Last, since admissions wait for its locks.
        await settle(conn, ended)

    async def rebuild(self, conn: AsyncConnection) -> None:
        """Sum all events anew. Nobody else may write to `tables` meanwhile."""
        await conn.execute("delete from butterbase.usage")
        await call_metrics.clear(conn)
        async with conn.cursor("ai_calls") as stored:
            await stored.execute(_STORED, [AI_CALL])
            while rows := await stored.fetchmany(STATEMENT_ROW_COUNT_MAX):
                await _add(conn, [_event(dict(zip(_STORED_COLUMNS, r, strict=True))) for r in rows])
        await recount(conn)

    async def resync(self, conn: AsyncConnection) -> None:
        """Which events a gap in the log has swallowed, the sums do not tell."""
        await self.rebuild(conn)


_STORED_COLUMNS = ("id", "app_id", "at", "user_id", "call_id", "data")
_STORED = """
select id::text, app_id, at::text, user_id::text, call_id::text, data::text
from butterbase.events where type = %s order by events.id
"""


async def _add(conn: AsyncConnection, events: Sequence["_Call | _Unreadable"]) -> None:
    if calls := [event for event in events if isinstance(event, _Call)]:
        await conn.execute(_ADD, _columns(calls))
        await call_metrics.count(conn, [(call.event.app_id, call.data) for call in calls])


def _columns(calls: Sequence["_Call"]) -> dict[str, list[object]]:
    return {
        "app_id": [c.event.app_id for c in calls],
        "user_id": [c.event.user_id for c in calls],
        "at": [c.at for c in calls],
        **{name: [getattr(c.data, name) for c in calls] for name in _CALL_COLUMNS},
    }


# Summed here: Postgres updates a row once in a statement. A call that its client cancelled is no
# failure. `at` is read with the offset that the log writes it with.
_ADD = """
insert into butterbase.usage as total
  (app_id, day, user_id, key_id, function, endpoint, provider, model, requests, failures,
   prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens, reasoning_tokens,
   cost_nanos, byok_cost_nanos, cache_hits, saved_nanos)
select app_id, (at at time zone 'UTC')::date, user_id, key_id, function, endpoint, provider, model,
  count(*) filter (where not is_late),
  count(*) filter (where status in ('failed', 'timeout', 'lost') and not is_late),
  sum(prompt_tokens), sum(completion_tokens), sum(cached_tokens), sum(cache_write_tokens),
  sum(reasoning_tokens), sum(cost_nanos), coalesce(sum(cost_nanos) filter (where is_byok), 0),
  count(*) filter (where cache in ('hit', 'semantic')), sum(saved_nanos)
from unnest(%(app_id)s::text[], %(at)s::timestamptz[], %(user_id)s::uuid[], %(key_id)s::uuid[],
            %(function)s::text[], %(endpoint)s::text[], %(provider)s::text[], %(model)s::text[],
            %(status)s::text[],
            %(is_late)s::boolean[], %(is_byok)s::boolean[], %(cache)s::text[],
            %(prompt_tokens)s::bigint[], %(completion_tokens)s::bigint[],
            %(cached_tokens)s::bigint[], %(cache_write_tokens)s::bigint[],
            %(reasoning_tokens)s::bigint[], %(cost_nanos)s::bigint[], %(saved_nanos)s::bigint[])
  as call (app_id, at, user_id, key_id, function, endpoint, provider, model, status, is_late,
           is_byok, cache, prompt_tokens, completion_tokens, cached_tokens, cache_write_tokens,
           reasoning_tokens, cost_nanos, saved_nanos)
group by 1, 2, 3, 4, 5, 6, 7, 8
on conflict (app_id, day, user_id, key_id, function, endpoint, provider, model) do update set
  requests = total.requests + excluded.requests,
  failures = total.failures + excluded.failures,
  prompt_tokens = total.prompt_tokens + excluded.prompt_tokens,
  completion_tokens = total.completion_tokens + excluded.completion_tokens,
  cached_tokens = total.cached_tokens + excluded.cached_tokens,
  cache_write_tokens = total.cache_write_tokens + excluded.cache_write_tokens,
  reasoning_tokens = total.reasoning_tokens + excluded.reasoning_tokens,
  cost_nanos = total.cost_nanos + excluded.cost_nanos,
  byok_cost_nanos = total.byok_cost_nanos + excluded.byok_cost_nanos,
  cache_hits = total.cache_hits + excluded.cache_hits,
  saved_nanos = total.saved_nanos + excluded.saved_nanos
"""

_CALL_COLUMNS = (
    "key_id",
    "function",
    "endpoint",
    "provider",
    "model",
    "status",
    "is_late",
    "is_byok",
    "cache",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_nanos",
    "saved_nanos",
)

_AI_CALL_DATA = msgspec.json.Decoder(AiCall)


class _Event(Struct, frozen=True):
    """The columns of butterbase.events that count."""

    app_id: Annotated[str, Meta(max_length=_APP_ID_LENGTH_MAX)]
    at: str
    user_id: str | None
    data: str
    call_id: str | None = None


class _Call(Struct, frozen=True):
    event: _Event
    data: AiCall

    @property
    def at(self) -> str:
        """The time whose day and month it counts in."""
        admitted_at = self.data.admitted_at
        return self.event.at if admitted_at is None else admitted_at.isoformat()

    @property
    def ended(self) -> EndedCall:
        return EndedCall(
            self.event.call_id,
            self.event.app_id,
            self.event.user_id,
            self.data.key_id,
            self.data.model,
            self.data.is_byok,
            self.at,
            self.data.cost_nanos,
            self.data.total_tokens,
        )


class _Unreadable(Struct, frozen=True):
    ended: EndedCall


def _is_ai_call(change: Change) -> bool:
    if not isinstance(change, Insert):
        return False
    return any(
        column.name == "type" and value == AI_CALL
        for column, value in change.relation.pairs(change.new)
    )


def _events(commit: Commit) -> Iterator[_Call | _Unreadable]:
    for change in commit.changes_of(EVENTS):
        if _is_ai_call(change):
            assert isinstance(change, Insert)
            yield _event({c.name: value for c, value in change.relation.pairs(change.new)})


def _event(values: Mapping[str, object]) -> _Call | _Unreadable:
    """An event from its columns as text."""
    try:
        event = msgspec.convert(values, _Event)
        return _Call(event, _AI_CALL_DATA.decode(event.data))
    except (msgspec.MsgspecError, RecursionError) as error:
        _log.error("event %s of type %s is not counted: %s", values.get("id"), AI_CALL, error)
        call_id = values.get("call_id")
        return _Unreadable(EndedCall(call_id if isinstance(call_id, str) else None))
