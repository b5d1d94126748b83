"""Commit to client: subscribers over websockets who each receive their own rows, at a steady rate.

The stream is the real process over the embedded Postgres, fsync on. A change's time is Postgres's
commit timestamp, which the payload carries in whole milliseconds and which is taken before the
commit is flushed: the figures are up to a millisecond too long, and never too short. The writer and
the clients are this process, and share the cores.
"""

import asyncio
import time
import uuid
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import datetime
from typing import Any, Final

import jwt
import msgspec
import psycopg
import uvloop
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from butterbase.cli.setup import publish
from butterbase.sql.claims import AUTHENTICATED

from .installation import Installation, installed, streaming
from .statistics import percentile

SUBSCRIBER_COUNT: Final = 500
CHANGES_PER_S: Final = 500
WARM_UP_S: Final = 2
READY_WITHIN_S: Final = 20.0
TOPIC: Final = "realtime:messages"

SCHEMA: Final = """
    create table messages (
      id bigint generated always as identity primary key, user_id uuid not null, body text not null,
      created_at timestamptz not null default now());
    create policy own on messages for select using ((select auth.uid()) = user_id);
"""
INSERT: Final = "insert into messages (user_id, body) values (%s, 'a message of usual length')"


def measure(seconds: int) -> dict[str, float]:
    with installed() as installation:
        asyncio.run(publish(installation.cluster, installation.app))
        with psycopg.connect(installation.owner_dsn, autocommit=True) as conn:
            conn.execute(SCHEMA)
        with streaming(installation) as (port, _):
            taken = uvloop.run(_measure(installation, port, seconds))
    taken.sort()
    figures = {f"latency_p{p}_ms": percentile(taken, p) for p in (50, 90, 99)}
    described = ", ".join(f"{name} {value:.1f}" for name, value in figures.items())
    print(
        f"latency {SUBSCRIBER_COUNT} subscribers, {CHANGES_PER_S} changes/s,"
        f" {len(taken):,} received: {described}, max {taken[-1]:.1f}"
    )
    return figures


class _Taken:
    """How long each change took."""

    def __init__(self) -> None:
        self.milliseconds: list[float] = []
        self._has_more = asyncio.Event()

    def add(self, milliseconds: float) -> None:
        self.milliseconds.append(milliseconds)
        self._has_more.set()

    async def wait(self, count: int) -> None:
        """Raises TimeoutError when one does not arrive."""
        while len(self.milliseconds) < count:
            self._has_more.clear()
            async with asyncio.timeout(READY_WITHIN_S):
                await self._has_more.wait()


async def _measure(installation: Installation, port: int, seconds: int) -> list[float]:
    users = [str(uuid.uuid4()) for _ in range(SUBSCRIBER_COUNT)]
    taken = _Taken()
    async with AsyncExitStack() as stack:
        await wait_until_ready(installation, port, users[0])
        group = await stack.enter_async_context(asyncio.TaskGroup())
        readers = []
        for user in users:
            socket = await stack.enter_async_context(_connected(installation, port, user))
            await _join(socket)
            readers.append(group.create_task(_read(socket, user, taken)))
        await taken.wait(await _write(installation, users, WARM_UP_S))
        taken.milliseconds.clear()
        count = await _write(installation, users, seconds)
        await taken.wait(count)
        for reader in readers:
            reader.cancel()
    return taken.milliseconds


def token_of(installation: Installation, user: str) -> str:
    claims = {"sub": user, "role": AUTHENTICATED, "exp": int(time.time()) + 3600}
    return jwt.encode(claims, installation.keys.jwt_secret, "HS256")


def _connected(installation: Installation, port: int, user: str) -> connect:
    token = token_of(installation, user)
    url = f"ws://127.0.0.1:{port}/realtime/v1/websocket?apikey={token}&vsn=2.0.0"
    return connect(url, compression=None, proxy=None)


async def wait_until_ready(installation: Installation, port: int, user: str) -> None:
    """Until a subscription is confirmed. Raises what came last."""
    deadline_s = time.monotonic() + READY_WITHIN_S
    while True:
        try:
            async with _connected(installation, port, user) as socket:
                await _join(socket)
                return
        except (OSError, RuntimeError, WebSocketException):  # not listening, or not reading yet
            if time.monotonic() > deadline_s:
                raise
        await asyncio.sleep(0.2)


async def _join(socket: ClientConnection) -> None:
    """Raises RuntimeError when it is refused."""
    changes = [{"event": "INSERT", "schema": "public", "table": "messages"}]
    payload = {"config": {"postgres_changes": changes}}
    await socket.send(msgspec.json.encode(["1", "1", TOPIC, "phx_join", payload]).decode())
    while True:
        message: Any = msgspec.json.decode(await socket.recv())
        if message[3] == "system" or message[4].get("status") == "error":
            if message[4]["status"] != "ok":
                raise RuntimeError(str(message))
            return


async def _read(socket: ClientConnection, user: str, taken: "_Taken") -> None:
    async for text in socket:
        now_s = time.time()
        message: Any = msgspec.json.decode(text)
        if message[3] != "postgres_changes":
            continue
        data = message[4]["data"]
        assert data["record"]["user_id"] == user
        committed_s = datetime.fromisoformat(data["commit_timestamp"]).timestamp()
        taken.add((now_s - committed_s) * 1000)


async def _write(installation: Installation, users: Sequence[str], seconds: int) -> int:
    """Insert at the stated rate, each row a commit; how many."""
    count = CHANGES_PER_S * seconds
    async with await psycopg.AsyncConnection.connect(
        installation.owner_dsn, autocommit=True
    ) as conn:
        started_s = time.perf_counter()
        for number in range(count):
            due_s = started_s + number / CHANGES_PER_S
            if (early_s := due_s - time.perf_counter()) > 0:
                await asyncio.sleep(early_s)
            await conn.execute(INSERT, [users[number % len(users)]], prepare=True)
        behind_s = time.perf_counter() - started_s - seconds
    if behind_s > 0.5:
        print(f"the writer fell behind by {behind_s:.1f} s")
    return count
