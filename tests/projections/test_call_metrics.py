"""What `/metrics` tells of calls is what their events say; on a real Postgres."""

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from psycopg import AsyncConnection

from butterbase.projections.call_metrics import LATENCY_BOUNDS_MS, tally
from butterbase.projections.model_labels import MODEL_COUNT_MAX, OTHER, ModelLabels
from butterbase.projections.usage import UsageProjection, encode_call
from tests.projections.test_usage import changed, commit, event


async def rows(conn: AsyncConnection, columns: str) -> list[tuple[Any, ...]]:
    text = f"select {columns} from butterbase.ai_call_metrics m order by 1, 2"  # noqa: S608
    return await (await conn.execute(text.encode())).fetchall()


async def test_calls_are_counted_by_model_and_by_how_they_ended(conn: AsyncConnection) -> None:
    usage = UsageProjection()
    failed = changed(status="failed", error_code="upstream_refused", attempts=3, latency_ms=70)
    await usage.apply(conn, [commit(event(), event(failed)), commit(event())])
    await usage.apply(conn, [commit(event(failed))])
    found = await rows(conn, "status, error_code, calls, attempts, latency_ms, prompt_tokens")
    assert found == [
        ("failed", "upstream_refused", 2, 6, 140, 20),
        ("ok", "", 2, 2, 10, 20),
    ]
    ((failures, oks),) = [tuple(r[1] for r in await rows(conn, "status, latency_counts"))]
    assert (failures[3], sum(failures)) == (2, 2)
    assert (oks[0], sum(oks)) == (2, 2)


async def test_a_call_that_ended_after_it_was_given_up_counts_once(conn: AsyncConnection) -> None:
    lost = changed(status="lost", provider="", prompt_tokens=0, completion_tokens=0)
    late = changed(is_late=True, cost_nanos=5)
    await UsageProjection().apply(conn, [commit(event(lost), event(late))])
    assert await rows(conn, "status, calls, cost_nanos") == [("lost", 1, 0), ("ok", 0, 5)]


async def test_names_that_clients_made_up_are_told_together(conn: AsyncConnection) -> None:
    usage = UsageProjection()
    calls = [changed(model=f"bad-{n}", status="failed") for n in range(60)]
    await usage.apply(conn, [commit(*map(event, calls[:30]))])
    await usage.apply(conn, [commit(*map(event, calls[30:]), event())])
    models = dict(await rows(conn, "model, sum(calls) over (partition by model)"))
    assert models[OTHER] == 40
    assert models["m"] == 1
    assert len(models) == 22


async def test_a_call_that_reached_no_provider_has_no_model(conn: AsyncConnection) -> None:
    await UsageProjection().apply(conn, [commit(event(changed(provider="", status="failed")))])
    assert await rows(conn, "provider, model, calls") == [("", "", 1)]


async def test_numbers_that_no_column_holds_hold_up_nobody(conn: AsyncConnection) -> None:
    odd = changed(latency_ms=2**70, attempts=2**70, first_token_ms=-(2**70), error_code="x" * 5000)
    await UsageProjection().apply(conn, [commit(event(odd), event())])
    assert sum(row[1] for row in await rows(conn, "error_code, calls")) == 2


async def test_rebuilt_they_are_what_they_were(conn: AsyncConnection) -> None:
    calls = [
        changed(model=f"m-{n % (MODEL_COUNT_MAX + 20)}", latency_ms=n * 97, first_token_ms=n)
        for n in range(300)
    ]
    await conn.execute("reset role")
    for call in calls:
        await conn.execute(
            "insert into butterbase.events (app_id, type, data) values ('main', 'ai.call', %s)",
            [encode_call(call).decode()],
        )
    await conn.execute("set role butterbase_stream")
    await UsageProjection().apply(conn, [commit(*map(event, calls))])
    live = await rows(conn, "model, m.*")
    assert len(live) == MODEL_COUNT_MAX + 1
    async with conn.transaction():
        await UsageProjection().rebuild(conn)
    assert await rows(conn, "model, m.*") == live


@given(st.lists(st.integers(-1, 10**6)))
def test_each_call_is_in_one_bucket_whose_bounds_hold_it(latencies: list[int]) -> None:
    tallies = tally(((("a"), changed(latency_ms=ms)) for ms in latencies), ModelLabels())
    counts = [0] * (len(LATENCY_BOUNDS_MS) + 1)
    for found in tallies.values():
        counts = found.latency
    for at, bound in enumerate(LATENCY_BOUNDS_MS):
        assert sum(counts[: at + 1]) == sum(ms <= bound for ms in latencies)
    assert sum(counts) == len(latencies)
