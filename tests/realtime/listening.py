"""The log of an app, and a hub that sends to lists: what channels are sent, without sockets."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

import msgspec
import psycopg

from butterbase.ingest.consumer import Consumer
from butterbase.ingest.slot import ensure_publication, ensure_slot
from butterbase.realtime.changes.hub import Hub
from butterbase.realtime.changes.subscriber import Subscriber
from butterbase.realtime.changes.subscriptions import parse_entry
from butterbase.realtime.session.protocol import Closing, Version
from butterbase.realtime.settings import RealtimeSettings
from butterbase.sql.claims import SERVICE_ROLE, Claims, claims_for_role
from butterbase.sql.cluster import LoginRole, app_authenticator
from butterbase.sql.pipeline import Executor
from tests.installation import Installation
from tests.realtime.streaming import DEADLINE_S

SERVICE = claims_for_role(SERVICE_ROLE)


class Payload(msgspec.Struct):
    ids: list[int]
    data: dict[str, Any]
    text: bytes
    """The data as it was sent."""


@dataclass
class Listener:
    problems: tuple[str, ...]
    """What could not be had of what it asked for."""
    ids: list[int]
    received: list[Payload] = field(default_factory=list)
    closed: list[Closing] = field(default_factory=list)

    def take(self) -> list[Payload]:
        """What came since the last time."""
        taken, self.received = self.received, []
        return taken

    def data(self) -> list[dict[str, Any]]:
        return [payload.data for payload in self.take()]

    def rows(self) -> list[Any]:
        """The ids of the rows that were told of, with the kind of change."""
        return [(d["type"], (d.get("record") or d["old_record"]).get("id")) for d in self.data()]


@dataclass
class Log:
    app: Installation
    hub: Hub
    settings: RealtimeSettings
    marked: asyncio.Queue[int] = field(default_factory=asyncio.Queue)
    mark: int = 0

    async def listen(self, claims: Claims, *entries: dict[str, Any]) -> Listener:
        wanted = [{"event": "*", "schema": "public", **entry} for entry in entries]
        requests = [parse_entry(n, w, self.settings.schemas) for n, w in enumerate(wanted, 1)]
        prepared = await self.hub.prepare(claims, requests)
        listener = Listener(prepared.problems, [binding.id for binding in prepared.bindings])
        self.hub.register(
            Subscriber(
                topic="realtime:room",
                version=Version.V2,
                claims=claims,
                bindings=prepared.bindings,
                since=prepared.since,
                send=lambda frame: listener.received.append(_payload(frame)),
                close=listener.closed.append,
            )
        )
        return listener

    async def execute(self, *statements: str) -> None:
        """Run SQL as the developer, a transaction each, and wait until it was sent to all."""
        for statement in statements:
            await asyncio.to_thread(self.app.as_owner, statement)
        self.mark += 1
        await asyncio.to_thread(
            self.app.as_owner, "insert into marks select count(*) + 1 from marks"
        )
        async with asyncio.timeout(DEADLINE_S):
            while await self.marked.get() < self.mark:
                pass


class _Data(msgspec.Struct):
    ids: list[int]
    data: msgspec.Raw


_DECODER = msgspec.json.Decoder(tuple[None, None, str, str, _Data])


def _payload(frame: bytes) -> Payload:
    *_, payload = _DECODER.decode(frame[frame.index(b"[null") :])
    text = bytes(payload.data)
    return Payload(payload.ids, msgspec.json.decode(text), text)


@asynccontextmanager
async def listening(
    app: Installation, settings: RealtimeSettings | None = None
) -> AsyncIterator[Log]:
    settings = settings or RealtimeSettings()
    slot = f"listening_{app.main.name}"
    async with await psycopg.AsyncConnection.connect(app.main.dsn, autocommit=True) as conn:
        await ensure_publication(
            conn, "butterbase", schemas=settings.schemas, tables=[("auth", "sessions")]
        )
        await ensure_slot(conn, slot)
    await asyncio.to_thread(app.as_owner, "create table marks (id int primary key)")
    executor = Executor(app.cluster.dsn(app_authenticator("main"), app.main.name))
    hub = Hub(executor, wait_log=lambda: consumer.wait_connected(), settings=settings)
    consumer = Consumer(
        app.cluster.dsn(LoginRole.STREAM, app.main.name),
        slot=slot,
        publications=["butterbase"],
        readers=[hub],
    )
    tasks = [asyncio.create_task(hub.run()), asyncio.create_task(consumer.run())]
    log = Log(app, hub, settings)
    try:
        witness = await log.listen(SERVICE, {"table": "marks", "event": "INSERT"})
        witness.received = _Marks(log.marked)
        yield log
    finally:
        await consumer.close()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await executor.close()


class _Marks(list[Payload]):
    def __init__(self, marked: asyncio.Queue[int]) -> None:
        super().__init__()
        self._marked = marked

    def append(self, payload: Payload) -> None:
        self._marked.put_nowait(payload.data["record"]["id"])
