"""Of calls to models: what the projection `usage` has counted (projections/call_metrics.py)."""

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import Final

import msgspec
from msgspec import Struct

from butterbase.api.metrics.exposition import Distribution, Family, Histogram, Labels
from butterbase.projections.call_metrics import FIRST_TOKEN_BOUNDS_MS, LATENCY_BOUNDS_MS
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Executor, Statement

_READ: Final = Statement(load_queries("call_metrics")["read"])


class CallCounts(Struct, frozen=True, kw_only=True):
    """A row of butterbase.ai_call_metrics."""

    app_id: str
    endpoint: str
    provider: str
    model: str
    status: str
    error_code: str
    calls: int
    attempts: int
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int
    cache_write_tokens: int
    reasoning_tokens: int
    cost_nanos: int
    saved_nanos: int
    cache_hits: int
    cache_semantic_hits: int
    cache_misses: int
    cache_bypasses: int
    latency_ms: int
    latency_counts: list[int]
    first_token_ms: int
    first_token_counts: list[int]


class CallMetrics(Struct, frozen=True):
    counts: list[CallCounts]
    reserved: dict[str, int]
    """By app: calls that were admitted and are not settled."""


_METRICS: Final = msgspec.json.Decoder(CallMetrics)

_TOKENS: Final = {
    "prompt": "prompt_tokens",
    "completion": "completion_tokens",
    "cached": "cached_tokens",
    "cache_write": "cache_write_tokens",
    "reasoning": "reasoning_tokens",
}
_CACHE: Final = {
    "hit": "cache_hits",
    "semantic": "cache_semantic_hits",
    "miss": "cache_misses",
    "bypass": "cache_bypasses",
}


async def read_call_metrics(control: Executor) -> CallMetrics:
    """Raises DatabaseError, DatabaseUnavailableError."""
    (result,) = await control.run(_READ)
    return _METRICS.decode(result.value() or b"")


def call_families(found: CallMetrics) -> Iterator[Family | Histogram]:
    """Pure."""
    counts = found.counts
    yield _counter(
        "ai_calls_total",
        "Calls to models that have ended.",
        counts,
        lambda c: [({**_of_end(c), "endpoint": c.endpoint, "code": c.error_code}, c.calls)],
    )
    yield _counter(
        "ai_attempts_total",
        "Requests to providers.",
        counts,
        lambda c: [(_of_model(c), c.attempts)],
    )
    yield _counter(
        "ai_tokens_total",
        "Tokens of calls; cached and cache_write are part of prompt, reasoning of completion.",
        counts,
        lambda c: [(_of_model(c) | {"type": t}, getattr(c, n)) for t, n in _TOKENS.items()],
    )
    yield _counter(
        "ai_cost_usd_total",
        "What calls did cost.",
        counts,
        lambda c: [(_of_model(c), c.cost_nanos)],
        per=10**9,
    )
    yield _counter(
        "ai_saved_usd_total",
        "What answers from the cache would have cost.",
        counts,
        lambda c: [(_of_model(c), c.saved_nanos)],
        per=10**9,
    )
    yield _counter(
        "ai_cache_lookups_total",
        "Calls for which the cache was on, and what came of it.",
        counts,
        lambda c: [({"app": c.app_id, "result": r}, getattr(c, n)) for r, n in _CACHE.items()],
    )
    yield _histogram(
        "ai_call_duration_seconds",
        "From a request to the end of its answer.",
        LATENCY_BOUNDS_MS,
        ((_of_end(c), c.latency_counts, c.latency_ms) for c in counts),
    )
    yield _histogram(
        "ai_first_token_seconds",
        "From a request to the first event of its stream.",
        FIRST_TOKEN_BOUNDS_MS,
        ((_of_model(c), c.first_token_counts, c.first_token_ms) for c in counts),
    )
    yield Family(
        "ai_calls_reserved",
        "gauge",
        "Calls that were admitted and are not settled: they run, or their event is not projected.",
        [({"app": app_id}, count) for app_id, count in found.reserved.items()],
    )


def _of_model(counts: CallCounts) -> Labels:
    return {"app": counts.app_id, "provider": counts.provider, "model": counts.model}


def _of_end(counts: CallCounts) -> Labels:
    return _of_model(counts) | {"status": counts.status}


def _counter(
    name: str,
    text: str,
    counts: Iterable[CallCounts],
    samples: Callable[[CallCounts], list[tuple[Labels, int]]],
    *,
    per: int = 1,
) -> Family:
    """The sum of the rows for each set of labels, as a part of `per`; one that is 0 is not told."""
    sums: defaultdict[tuple[tuple[str, str], ...], int] = defaultdict(int)
    for row in counts:
        for labels, value in samples(row):
            sums[tuple(labels.items())] += value
    told = [(dict(labels), value / per) for labels, value in sums.items() if value]
    return Family(name, "counter", text, told)


def _histogram(
    name: str,
    text: str,
    bounds_ms: tuple[int, ...],
    rows: Iterable[tuple[Labels, list[int], int]],
) -> Histogram:
    sums: dict[tuple[tuple[str, str], ...], tuple[list[int], int]] = {}
    for labels, counts, total_ms in rows:
        key = tuple(labels.items())
        before, total = sums.get(key, ([0] * len(counts), 0))
        sums[key] = [a + b for a, b in zip(before, counts, strict=True)], total + total_ms
    told = [
        (dict(labels), Distribution(counts, total_ms / 1000))
        for labels, (counts, total_ms) in sums.items()
        if any(counts)
    ]
    return Histogram(name, text, [bound / 1000 for bound in bounds_ms], told)
