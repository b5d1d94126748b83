"""A stream process in the test's loop: consumer, hub and realtime server over an installation."""

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from websockets.asyncio.client import ClientConnection, connect

from butterbase.ingest.consumer import Consumer
from butterbase.ingest.slot import ensure_publication, ensure_slot
from butterbase.realtime.changes.hub import Hub
from butterbase.realtime.rooms.directory import Rooms
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.sockets.connection import AppRealtime
from butterbase.realtime.sockets.server import RealtimeServer
from butterbase.realtime.window.floors import SlotFloors
from butterbase.sql.claims import AUTHENTICATED, Claims, claims_for_role
from butterbase.sql.cluster import LoginRole, app_authenticator
from butterbase.sql.errors import InvalidTokenError
from butterbase.sql.pipeline import Executor
from tests.installation import Installation

DEADLINE_S = 10.0

ALICE = "aaaaaaaa-0000-4000-8000-000000000001"
BOB = "bbbbbbbb-0000-4000-8000-000000000002"


async def eventually(is_so: Callable[[], bool]) -> None:
    """Wait until something is so that sends no signal."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            if is_so():
                return
            await asyncio.sleep(0.005)


def user_claims(user_id: str, *, expires_at: int | None = None, **more: Any) -> Claims:
    claims = {"role": AUTHENTICATED, "sub": user_id, **more}
    text = msgspec.json.encode(claims).decode()
    return Claims(AUTHENTICATED, text, subject=user_id, expires_at=expires_at)


@dataclass
class Keyring:
    """Verifies tokens by having issued them."""

    issued: dict[str, Claims] = field(default_factory=dict)

    def issue(self, claims: Claims) -> str:
        token = uuid.uuid4().hex
        self.issued[token] = claims
        return token

    def user(self, user_id: str, *, life_s: int | None = None) -> str:
        expires_at = None if life_s is None else int(time.time()) + life_s
        return self.issue(user_claims(user_id, expires_at=expires_at))

    def role(self, role: str) -> str:
        return self.issue(claims_for_role(role))

    def authenticate(self, token: str) -> Claims:
        try:
            return self.issued[token]
        except KeyError:
            raise InvalidTokenError("The token provided is not a valid JWT") from None


class Phoenix:
    """A bare client of either serializer version."""

    def __init__(self, socket: ClientConnection, version: str) -> None:
        self.socket = socket
        self.version = version

    async def send(
        self, topic: str, event: str, payload: Any, ref: str | None = "1", join_ref: Any = "1"
    ) -> None:
        message: Any = [join_ref, ref, topic, event, payload]
        if self.version == "1.0.0":
            names = ("join_ref", "ref", "topic", "event", "payload")
            message = dict(zip(names, message, strict=True))
        await self.socket.send(msgspec.json.encode(message).decode())

    async def receive(self) -> dict[str, Any]:
        async with asyncio.timeout(DEADLINE_S):
            message = msgspec.json.decode(await self.socket.recv())
        if self.version == "1.0.0":
            assert set(message) == {"topic", "event", "payload", "ref"}
            return dict(message)
        names = ("join_ref", "ref", "topic", "event", "payload")
        return dict(zip(names, message, strict=True))

    async def join(
        self, topic: str, *changes: dict[str, Any], token: str | None = None, ref: str = "1"
    ) -> dict[str, Any]:
        """Join, and answer the reply's payload."""
        payload: dict[str, Any] = {"config": {"postgres_changes": list(changes)}}
        if token is not None:
            payload["access_token"] = token
        await self.send(topic, "phx_join", payload, ref, ref)
        reply = await self.receive()
        assert (reply["event"], reply["ref"]) == ("phx_reply", ref), reply
        return dict(reply["payload"])

    async def subscribe(
        self, topic: str, *changes: dict[str, Any], token: str | None = None
    ) -> list[int]:
        """Join and wait for the confirmation; answers the ids."""
        reply = await self.join(topic, *changes, token=token)
        assert reply["status"] == "ok", reply
        system = await self.receive()
        assert system["payload"]["message"] == "Subscribed to PostgreSQL", system
        return [entry["id"] for entry in reply["response"]["postgres_changes"]]

    async def change(self) -> dict[str, Any]:
        """The data of the next change."""
        message = await self.receive()
        assert message["event"] == "postgres_changes", message
        return dict(message["payload"]["data"])


@dataclass
class Stream:
    installation: Installation
    keys: Keyring
    hub: Hub
    rooms: Rooms
    server: RealtimeServer
    port: int
    slot: str

    def execute(self, statements: str) -> None:
        """Run SQL as the developer."""
        self.installation.as_owner(statements)

    @asynccontextmanager
    async def client(
        self, token: str | None = None, *, version: str = "1.0.0", path: str = ""
    ) -> AsyncIterator[Phoenix]:
        key = token or self.keys.role("anon")
        url = f"ws://127.0.0.1:{self.port}{path}/realtime/v1/websocket"
        async with connect(f"{url}?apikey={key}&vsn={version}", compression=None) as socket:
            yield Phoenix(socket, version)


@asynccontextmanager
async def streaming(
    installation: Installation,
    *,
    settings: RealtimeSettings | None = None,
    hand_over: Path | None = None,
) -> AsyncIterator[Stream]:
    slot = f"realtime_{installation.main.name}"
    async with await psycopg.AsyncConnection.connect(
        installation.main.dsn, autocommit=True
    ) as conn:
        await ensure_publication(
            conn,
            "butterbase",
            schemas=["public"],
            tables=[("auth", "sessions"), ("realtime", "messages")],
        )
        await ensure_slot(conn, slot)
    executor = Executor(installation.cluster.dsn(app_authenticator("main"), installation.main.name))
    hub = Hub(
        executor,
        wait_log=lambda: consumer.wait_connected(),
        settings=settings,
        floors=SlotFloors(installation.cluster.dsn(LoginRole.STREAM, installation.main.name), slot),
    )
    rooms = Rooms(executor, wait_log=lambda: consumer.wait_connected(), settings=settings)
    await rooms.start()
    consumer = Consumer(
        installation.cluster.dsn(LoginRole.STREAM, installation.main.name),
        slot=slot,
        publications=["butterbase"],
        readers=[hub, rooms],
        retention=hub,
    )
    keys = Keyring()
    server = RealtimeServer({"main": AppRealtime(keys.authenticate, hub, rooms)}.get, settings)
    port = await server.listen("127.0.0.1", 0)
    if hand_over is not None:
        server.listen_hand_over(hand_over)
    tasks = [asyncio.create_task(hub.run()), asyncio.create_task(consumer.run())]
    try:
        yield Stream(installation, keys, hub, rooms, server, port, slot)
    finally:
        await server.close()
        await consumer.close()
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        await executor.close()
