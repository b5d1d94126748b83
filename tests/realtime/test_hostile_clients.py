"""What a client can send to harm the server, on real sockets and without a database."""

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed
from websockets.frames import OP_PING, OP_TEXT, Frame

from butterbase.realtime.changes.hub import Hub
from butterbase.realtime.rooms.directory import Rooms
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.sockets.connection import AppRealtime
from butterbase.realtime.sockets.server import RealtimeServer
from butterbase.sql.claims import Claims, claims_for_role
from butterbase.sql.pipeline import Executor
from tests.realtime.streaming import DEADLINE_S, eventually

TARGET = "/realtime/v1/websocket?apikey=key"


async def never() -> None:
    await asyncio.Event().wait()


def authenticate(token: str) -> Claims:
    if token != "key":
        raise RuntimeError("a bug")
    return claims_for_role("anon")


@asynccontextmanager
async def serving(**settings: Any) -> AsyncIterator[tuple[RealtimeServer, int]]:
    executor = Executor("host=/nowhere")
    app = AppRealtime(authenticate, Hub(executor, wait_log=never), Rooms(executor, wait_log=never))
    server = RealtimeServer({"main": app}.get, RealtimeSettings(**settings))
    try:
        yield server, await server.listen("127.0.0.1", 0)
    finally:
        await server.close()


async def ask(port: int, request: bytes) -> tuple[int, Any]:
    """Status and JSON of the answer to raw bytes."""
    async with asyncio.timeout(DEADLINE_S / 2):  # less than handshake_timeout_s
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(request)
        head, _, body = (await reader.read()).partition(b"\r\n\r\n")
        writer.close()
        await writer.wait_closed()
    return int(head.split()[1]), json.loads(body)["error"]


def upgrade(*headers: str, method: str = "GET", target: str = TARGET) -> bytes:
    lines = [
        f"{method} {target} HTTP/1.1",
        "Host: localhost",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        *headers,
    ]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


@pytest.mark.parametrize(
    ("request_", "status", "error"),
    [
        (upgrade(method="POST"), 400, "not an upgrade request: unsupported HTTP method"),
        (b"nonsense\r\n\r\n", 400, "not an upgrade request: invalid HTTP request line"),
        (upgrade(*(f"X-{n}: x" for n in range(200))), 431, "the request is too large"),
        (upgrade("X: " + "x" * 10_000), 431, "the request is too large"),
        (upgrade(*["X: " + "x" * 8000] * 9), 431, "the request is too large"),
    ],
)
async def test_what_is_no_upgrade_request_is_answered(
    request_: bytes, status: int, error: str
) -> None:
    async with serving() as (_, port):
        answered, message = await ask(port, request_)
    assert (answered, message[: len(error)]) == (status, error)


async def test_a_key_that_is_given_twice_is_refused() -> None:
    async with serving() as (_, port):
        answer = await ask(port, upgrade("x-api-key: a", "x-api-key: b"))
    assert answer == (401, "the key is given twice")


async def test_a_fault_in_the_handshake_is_answered_and_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with serving() as (_, port):
        answer = await ask(port, upgrade("x-api-key: \xe9"))
    assert answer == (500, "the websocket could not be opened")
    assert [r.message for r in caplog.records if r.levelno >= logging.ERROR] == [
        "a websocket could not be opened"
    ]


async def closed_with(socket: ClientConnection) -> int:
    async with asyncio.timeout(DEADLINE_S):
        with pytest.raises(ConnectionClosed) as raised:
            await socket.recv()
    assert raised.value.rcvd is not None
    return raised.value.rcvd.code


@pytest.mark.parametrize("text", [b"\xff", b'{"topic":"\xff","event":"e","payload":{}}'])
async def test_text_that_is_not_utf8_closes_with_1007(
    text: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving() as (_, port), connect(f"ws://127.0.0.1:{port}{TARGET}") as socket:
        socket.transport.write(Frame(OP_TEXT, text).serialize(mask=True))
        assert await closed_with(socket) == 1007
    assert [r.message for r in caplog.records if r.levelno >= logging.WARNING] == []


async def test_a_fault_in_a_frames_answer_closes_with_1011_and_is_logged(
    caplog: pytest.LogCaptureFixture,
) -> None:
    join = {"topic": "realtime:a", "event": "phx_join", "payload": {"access_token": "other"}}
    async with serving() as (_, port), connect(f"ws://127.0.0.1:{port}{TARGET}") as socket:
        await socket.send(json.dumps(join))
        assert await closed_with(socket) == 1011
    assert [r.message for r in caplog.records if r.levelno >= logging.ERROR] == [
        "a frame could not be answered"
    ]


async def test_a_client_that_pings_and_does_not_read_is_cut() -> None:
    pings = Frame(OP_PING, b"x" * 125).serialize(mask=True) * 500
    limits = {"write_buffer_bytes_max": 64 * 1024, "close_timeout_s": 0.2}
    async with serving(**limits) as (server, port):
        reader, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(upgrade())
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket's transport
        with pytest.raises(ConnectionError):
            await send(writer, pings, byte_count=64 * 1024**2)
        await eventually(lambda: not server.connection_count)
        writer.close()


async def send(writer: asyncio.StreamWriter, data: bytes, *, byte_count: int) -> None:
    async with asyncio.timeout(DEADLINE_S):
        for _ in range(byte_count // len(data)):
            writer.write(data)
            await writer.drain()
