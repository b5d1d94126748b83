"""Row-level security on the stream: changes/s by the number of subscribers, in one process.

Commits come from memory and frames end in a counter: what is measured is the hub alone, from
`deliver` to the bytes for each socket. The policy is `user_id = auth.uid()`, in two forms: every
subscriber is another user (`own`), and a claim that a fifth of them share (`shared`), where each
change goes to all of these.
"""

import asyncio
import gc
import json
import os
import time
import uuid
from collections.abc import Sequence
from contextlib import suppress
from datetime import UTC, datetime
from typing import Final

import uvloop
from msgspec import Struct

from butterbase.ingest.changes import Column, Commit, Insert, Relation, ReplicaIdentity
from butterbase.ingest.lsn import LSN
from butterbase.realtime.changes.access import Access, AccessColumn, Policy
from butterbase.realtime.changes.compiled.policies import INSTALLED
from butterbase.realtime.changes.hub import Hub, Subscriber
from butterbase.realtime.changes.matching import Binding
from butterbase.realtime.session.protocol import Closing, Version
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.window.position import ChangePosition
from butterbase.sql.claims import AUTHENTICATED, Claims
from butterbase.sql.pipeline import Executor

from . import machine

SUBSCRIBER_COUNTS: Final = (1, 100, 1_000, 10_000)
SHARES: Final = 5
WALRUS_CHANGES_PER_S: Final = {1: 786, 100: 184, 1_000: 32}
"""Of shared/bench/walrus, on Postgres 15 with wal2json: the RLS query alone, without sockets."""

_COLUMNS: Final = (
    ("id", 20, "int8", "bigint"),
    ("user_id", 2950, "uuid", "uuid"),
    ("room", 25, "text", "text"),
    ("body", 25, "text", "text"),
    ("created_at", 1184, "timestamptz", "timestamp with time zone"),
)
_RELATION: Final = Relation(
    7,
    "public",
    "messages",
    ReplicaIdentity.DEFAULT,
    tuple(Column(name, oid, -1, is_key=name == "id") for name, oid, _, _ in _COLUMNS),
)


class Figure(Struct, frozen=True):
    form: str
    subscriber_count: int
    changes_per_s: float
    deliveries_per_s: float
    first_ms: float
    """The first change of a table, or after DDL, for which its subscribers are put in order."""
    peak_rss_mb: float


def access(expression: str, column: str, function: str) -> Access:
    policy = Policy(
        is_permissive=True,
        expression=expression,
        columns=(column,),
        functions=tuple(f for f in INSTALLED if f.name == function),
        is_self_contained=True,
    )
    columns = tuple(
        AccessColumn(name, type_, sql, True, name == "id", None, oid, "b", True)
        for name, oid, type_, sql in _COLUMNS
    )
    return Access("7", "public", "messages", True, columns, (policy,))


_POLICIES: Final = {
    "own": access("(user_id = ( SELECT auth.uid() AS uid))", "user_id", "uid"),
    "shared": access("(room = (auth.jwt() ->> 'room'::text))", "room", "jwt"),
}


class _Counter:
    """Sockets that take everything."""

    def __init__(self) -> None:
        self._missing = 0
        self._is_reached = asyncio.Event()

    def expect(self, count: int) -> None:
        self._missing = count
        self._is_reached.clear()

    async def wait(self) -> None:
        async with asyncio.timeout(120):
            await self._is_reached.wait()

    def send(self, frame: bytes) -> None:
        self._missing -= 1
        if not self._missing:
            self._is_reached.set()


def _ignore(_: Closing) -> None: ...


async def _wait_log() -> None: ...


async def _measure(form: str, subscriber_count: int, change_count: int) -> Figure:
    users = [str(uuid.UUID(int=number + 1)) for number in range(subscriber_count)]
    hub = Hub(
        Executor("host=/nowhere"),
        wait_log=_wait_log,
        settings=RealtimeSettings(queued_change_count_max=change_count + 1),
    )

    async def read_access(oid: int, role: str) -> Access:
        return _POLICIES[form]

    hub._judges.policies.access = read_access  # type: ignore[method-assign]  # no database takes part
    receivers = 1 if form == "own" else len(range(0, subscriber_count, SHARES))
    counter = _Counter()
    for number, user in enumerate(users):
        hub.register(_subscriber(user, f"room {number % SHARES}", counter))
    commits = [_commit(number, users) for number in range(change_count + 1)]
    task = asyncio.create_task(hub.run())
    first_s = await _send(hub, commits[:1], counter, receivers)
    gc.collect()
    seconds = await _send(hub, commits[1:], counter, receivers)
    task.cancel()
    with suppress(asyncio.CancelledError):
        await task
    return Figure(
        form,
        subscriber_count,
        change_count / seconds,
        change_count * receivers / seconds,
        first_s * 1000,
        machine.peak_rss_mb(os.getpid()),
    )


async def _send(hub: Hub, commits: Sequence[Commit], counter: _Counter, receivers: int) -> float:
    """The seconds until the last frame is out."""
    counter.expect(len(commits) * receivers)
    started_s = time.perf_counter()
    for commit in commits:
        await hub.deliver(commit)
    await counter.wait()
    return time.perf_counter() - started_s


def _subscriber(user: str, room: str, counter: _Counter) -> Subscriber:
    claims = {"sub": user, "role": AUTHENTICATED, "room": room, "aud": AUTHENTICATED}
    return Subscriber(
        topic="realtime:messages",
        version=Version.V2,
        claims=Claims(AUTHENTICATED, json.dumps(claims), subject=user),
        bindings=[Binding(1, "*", "public", "messages")],
        since=ChangePosition(LSN(0)),
        send=counter.send,
        close=_ignore,
    )


def _commit(number: int, users: Sequence[str]) -> Commit:
    row = (
        str(number),
        users[number % len(users)],
        "room 0",
        "a message of usual length",
        "2026-01-02 03:04:05.678+00",
    )
    return Commit(LSN(number + 1), datetime.now(UTC), number, (Insert(_RELATION, row),))


def measure(change_count: int, counts: Sequence[int] = SUBSCRIBER_COUNTS) -> dict[str, float]:
    """Print the figures, and answer those that are stated."""
    figures = uvloop.run(_run(counts, change_count=change_count))
    metrics: dict[str, float] = {}
    for figure in figures:
        print(
            f"{figure.form:7} {figure.subscriber_count:7,} subscribers"
            f" {figure.changes_per_s:10,.0f} changes/s"
            f" {figure.deliveries_per_s:10,.0f} deliveries/s"
            f"  first {figure.first_ms:5,.0f} ms  peak {figure.peak_rss_mb:4,.0f} MB",
        )
        if figure.form == "shared":
            metrics[f"rls_shared_{figure.subscriber_count}_deliveries_per_s"] = (
                figure.deliveries_per_s
            )
            continue
        metrics[f"rls_{figure.subscriber_count}_changes_per_s"] = figure.changes_per_s
        if beside := WALRUS_CHANGES_PER_S.get(figure.subscriber_count):
            metrics[f"rls_{figure.subscriber_count}_vs_walrus"] = figure.changes_per_s / beside
    return metrics


async def _run(counts: Sequence[int], *, change_count: int) -> list[Figure]:
    figures = [await _measure("own", count, change_count) for count in counts]
    for count in counts:
        # As many deliveries as above, give or take.
        shared = max(change_count * SHARES // max(count, SHARES), 20)
        figures.append(await _measure("shared", count, shared))
    return figures
