"""Commits in, rows of `butterbase.usage` out; on a real Postgres."""

import json
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

import msgspec
import pytest
from psycopg import AsyncConnection

from butterbase.ingest.changes import (
    Column,
    Commit,
    Delete,
    Insert,
    LogicalMessage,
    Relation,
    ReplicaIdentity,
    Toast,
    Value,
)
from butterbase.ingest.lsn import LSN
from butterbase.projections.usage import AiCall, UsageProjection

USER = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
KEY = UUID("22222222-2222-4333-8444-555555555555")
COLUMNS = ("id", "at", "app_id", "type", "user_id", "role", "request_id", "data")
CALL = AiCall(
    endpoint="chat/completions",
    provider="provider.test",
    model="m",
    stream=False,
    status="ok",
    http_status=200,
    error_code=None,
    prompt_tokens=10,
    completion_tokens=2,
    total_tokens=12,
    cached_tokens=0,
    reasoning_tokens=0,
    usage_source="reported",
    latency_ms=5,
    first_token_ms=None,
)


def relation(schema: str = "butterbase", name: str = "events") -> Relation:
    columns = tuple(Column(c, 25, -1, is_key=c == "id") for c in COLUMNS)
    return Relation(1, schema, name, ReplicaIdentity.DEFAULT, columns)


def event(call: AiCall | str = CALL, **values: Value) -> Insert:
    row: dict[str, Value] = {
        "id": "1",
        "at": "2026-01-01 12:00:00+00",
        "app_id": "main",
        "type": "ai.call",
        "user_id": USER,
        "role": "authenticated",
        "request_id": "r",
        "data": call if isinstance(call, str) else msgspec.json.encode(call).decode(),
        **values,
    }
    return Insert(relation(), tuple(row[c] for c in COLUMNS))


def commit(*changes: Any) -> Commit:
    return Commit(LSN(1), datetime(2026, 1, 1, tzinfo=UTC), 7, changes)


def changed(**fields: object) -> AiCall:
    return msgspec.structs.replace(CALL, **fields)


async def rows(conn: AsyncConnection) -> list[tuple[Any, ...]]:
    cursor = await conn.execute(
        "select app_id, day::text, user_id::text, model, requests, failures, prompt_tokens,"
        " completion_tokens from butterbase.usage order by 1, 2, 3, 4"
    )
    return await cursor.fetchall()


async def test_calls_of_many_commits_are_summed(conn: AsyncConnection) -> None:
    usage = UsageProjection()
    other = changed(model="n", completion_tokens=0)
    await usage.apply(conn, [commit(event(), event(other)), commit(event())])
    await usage.apply(conn, [commit(event())])
    assert await rows(conn) == [
        ("main", "2026-01-01", USER, "m", 3, 0, 30, 6),
        ("main", "2026-01-01", USER, "n", 1, 0, 10, 0),
    ]


async def test_calls_without_a_user_are_one_row(conn: AsyncConnection) -> None:
    usage = UsageProjection()
    for _ in range(2):
        await usage.apply(conn, [commit(event(user_id=None))])
    assert await rows(conn) == [("main", "2026-01-01", None, "m", 2, 0, 20, 4)]


async def test_what_a_function_has_asked_is_a_row_of_its_own(conn: AsyncConnection) -> None:
    usage = UsageProjection()
    mail = changed(function="send-mail")
    await usage.apply(conn, [commit(event(), event(mail)), commit(event(mail))])
    cursor = await conn.execute(
        "select function, requests from butterbase.usage order by function nulls last"
    )
    assert await cursor.fetchall() == [("send-mail", 2), (None, 1)]


async def test_a_call_that_its_client_cancelled_is_no_failure(conn: AsyncConnection) -> None:
    calls = [changed(status=s) for s in ("ok", "failed", "cancelled", "timeout")]
    await UsageProjection().apply(conn, [commit(*map(event, calls))])
    assert [(row[4], row[5]) for row in await rows(conn)] == [(4, 2)]


@pytest.mark.parametrize(
    ("at", "day"),
    [
        ("2026-01-01 23:59:59.999999+00", "2026-01-01"),
        ("2026-01-02 05:29:00+05:30", "2026-01-01"),
        ("2025-12-31 23:30:00-01", "2026-01-01"),
    ],
)
async def test_the_day_is_utcs_whatever_zone_the_log_is_written_in(
    conn: AsyncConnection, at: str, day: str
) -> None:
    await conn.execute("set timezone to 'Asia/Tokyo'")
    await UsageProjection().apply(conn, [commit(event(at=at))])
    assert [row[1] for row in await rows(conn)] == [day]


@pytest.mark.parametrize(
    "bad",
    [
        event("{}"),
        event("[]"),
        event("not json"),
        event(json.dumps({**json.loads(msgspec.json.encode(CALL)), "prompt_tokens": -1})),
        event(changed(model="m" * 201)),
        event(changed(completion_tokens=2**62)),
        event(app_id="a" * 41),
        event(data=Toast.UNCHANGED),
        event(data=None),
    ],
)
async def test_an_event_that_does_not_decode_is_logged_and_counted_nowhere(
    conn: AsyncConnection, caplog: pytest.LogCaptureFixture, bad: Insert
) -> None:
    await UsageProjection().apply(conn, [commit(event(), bad, event())])
    assert [row[4] for row in await rows(conn)] == [2]
    assert "event 1 of type ai.call is not counted" in caplog.text


async def test_the_longest_names_fit_the_index(conn: AsyncConnection) -> None:
    wide = "\U0001f9c8"
    call = changed(
        endpoint=wide * 40, provider=wide * 255, model=wide * 200, function=wide * 63, key_id=KEY
    )
    await UsageProjection().apply(conn, [commit(event(call, app_id="\U0001f9c8" * 40))])
    assert len(await rows(conn)) == 1


def test_fields_that_a_later_version_adds_do_not_matter() -> None:
    data = {**json.loads(msgspec.json.encode(CALL)), "cost_micros": 5}
    assert msgspec.json.decode(json.dumps(data), type=AiCall) == CALL


@pytest.mark.parametrize(
    ("change", "is_wanted"),
    [
        (event(), True),
        (event(type="auth.signup"), False),
        (Insert(relation("public"), event().new), False),
        (Insert(relation(name="usage"), event().new), False),
        (Delete(relation(), event().new), False),
        (LogicalMessage("ai.call", b""), False),
    ],
)
def test_only_inserted_ai_calls_are_wanted(change: Any, is_wanted: bool) -> None:
    assert UsageProjection().wants(commit(LogicalMessage("x", b""), change)) is is_wanted
