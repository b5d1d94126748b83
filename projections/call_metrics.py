"""Counters and histograms of calls to models, for Prometheus: part of the projection `usage`.

They are counted where the usage is, in its transactions: so they are the same whichever worker is
asked, outlive every process, and agree with what apps are told and charged. A call is in them a
moment after its end.
"""

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Final, TypeAlias

from psycopg import AsyncConnection

from butterbase.projections.model_labels import ModelLabels

if TYPE_CHECKING:  # usage.py imports this
    from butterbase.projections.usage import AiCall

TABLE: Final = ("butterbase", "ai_call_metrics")

# Rows keep a count for each: where these change, `projections rebuild usage` must follow.
LATENCY_BOUNDS_MS: Final = (
    *(10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000),
    *(10_000, 20_000, 40_000, 80_000, 160_000),
)
FIRST_TOKEN_BOUNDS_MS: Final = (10, 25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 30_000)

_VALUE_MAX: Final = 10**15
_CODE_LENGTH_MAX: Final = 100

_Key: TypeAlias = tuple[str, str, str, str, str, str]
"""App, endpoint, provider, model, status, error code."""

_SUMS: Final = (
    "attempts",
    "prompt_tokens",
    "completion_tokens",
    "cached_tokens",
    "cache_write_tokens",
    "reasoning_tokens",
    "cost_nanos",
    "saved_nanos",
)
_CACHE: Final = {
    "hit": "cache_hits",
    "semantic": "cache_semantic_hits",
    "miss": "cache_misses",
    "bypass": "cache_bypasses",
}
_COUNTS: Final = ("calls", *_SUMS, *_CACHE.values(), "latency_ms", "first_token_ms")

_TAKEN = """
select distinct app_id, provider, model from butterbase.ai_call_metrics
where app_id = any(%s) and provider <> ''
"""

_ADD = f"""
insert into butterbase.ai_call_metrics as total
  (app_id, endpoint, provider, model, status, error_code, latency_counts, first_token_counts,
   {", ".join(_COUNTS)})
select a.app_id, a.endpoint, a.provider, a.model, a.status, a.error_code,
  a.latency_counts::bigint[], a.first_token_counts::bigint[], {", ".join(f"a.{n}" for n in _COUNTS)}
from unnest(%(app_id)s::text[], %(endpoint)s::text[], %(provider)s::text[], %(model)s::text[],
            %(status)s::text[], %(error_code)s::text[], %(latency_counts)s::text[],
            %(first_token_counts)s::text[], {", ".join(f"%({n})s::bigint[]" for n in _COUNTS)})
  as a (app_id, endpoint, provider, model, status, error_code, latency_counts, first_token_counts,
        {", ".join(_COUNTS)})
on conflict (app_id, endpoint, provider, model, status, error_code) do update set
  latency_counts = butterbase.add_arrays(total.latency_counts, excluded.latency_counts),
  first_token_counts = butterbase.add_arrays(total.first_token_counts, excluded.first_token_counts),
  {", ".join(f"{name} = total.{name} + excluded.{name}" for name in _COUNTS)}
"""  # noqa: S608  the names are ours


class Tally:
    """What calls of one key come to."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.latency = [0] * (len(LATENCY_BOUNDS_MS) + 1)
        self.first_token = [0] * (len(FIRST_TOKEN_BOUNDS_MS) + 1)

    def add(self, call: "AiCall") -> None:
        for name in _SUMS:
            self.counts[name] += _bounded(getattr(call, name))
        if (column := _CACHE.get(call.cache)) is not None:
            self.counts[column] += 1
        if call.is_late:  # it was counted when it was given up
            return
        self.counts["calls"] += 1
        self.counts["latency_ms"] += _bounded(call.latency_ms)
        self.latency[bisect_left(LATENCY_BOUNDS_MS, call.latency_ms)] += 1
        if call.first_token_ms is not None:
            self.counts["first_token_ms"] += _bounded(call.first_token_ms)
            self.first_token[bisect_left(FIRST_TOKEN_BOUNDS_MS, call.first_token_ms)] += 1


def _bounded(value: int) -> int:
    # An event with a number that no column holds must not hold up the others.
    return min(max(value, 0), _VALUE_MAX)


def tally(calls: Iterable[tuple[str, "AiCall"]], labels: ModelLabels) -> dict[_Key, Tally]:
    """Calls with their apps, summed. Pure, but that `labels` takes note of new models."""
    tallies: dict[_Key, Tally] = {}
    for app_id, call in calls:
        is_ok = call.status == "ok"
        provider, model = labels.label(app_id, call.provider, call.model, has_answered=is_ok)
        code = (call.error_code or "")[:_CODE_LENGTH_MAX]
        key = (app_id, call.endpoint, provider, model, call.status, code)
        tallies.setdefault(key, Tally()).add(call)
    return tallies


async def count(conn: AsyncConnection, calls: Sequence[tuple[str, "AiCall"]]) -> None:
    """Each call is to be counted once."""
    cursor = await conn.execute(_TAKEN, [list({app_id for app_id, _ in calls})])
    tallies = tally(calls, ModelLabels(await cursor.fetchall()))
    await conn.execute(_ADD, _columns(tallies))


async def clear(conn: AsyncConnection) -> None:
    await conn.execute("delete from butterbase.ai_call_metrics")


def _columns(tallies: dict[_Key, Tally]) -> dict[str, list[object]]:
    names = ("app_id", "endpoint", "provider", "model", "status", "error_code")
    return {
        **{name: [key[at] for key in tallies] for at, name in enumerate(names)},
        "latency_counts": [_array(t.latency) for t in tallies.values()],
        "first_token_counts": [_array(t.first_token) for t in tallies.values()],
        **{name: [t.counts[name] for t in tallies.values()] for name in _COUNTS},
    }


def _array(counts: Iterable[int]) -> str:
    """In Postgres's text format."""
    return "{" + ",".join(map(str, counts)) + "}"
