"""Clients in channels: what they send and hear, in text and in bytes."""

import asyncio
import json
import re
import struct
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from pathlib import Path
from typing import Any

from websockets.exceptions import ConnectionClosed

from tests.realtime.streaming import DEADLINE_S, Phoenix, Stream

TOPIC = "realtime:room"


def push(
    topic: str = TOPIC,
    event: str = "e",
    payload: bytes = b"{}",
    *,
    encoding: int = 1,
    ref: str = "2",
    join_ref: str = "1",
    meta: bytes = b"",
    kind: int = 3,
) -> bytes:
    fields = [join_ref.encode(), ref.encode(), topic.encode(), event.encode(), meta]
    head = bytes([kind, *map(len, fields), encoding])
    return head + b"".join(fields) + payload


def read_frame(frame: bytes) -> tuple[int, bytes]:
    """Opcode and payload of an unmasked websocket frame."""
    length, start = frame[1], 2
    if length == 126:
        (length,), start = struct.unpack("!H", frame[2:4]), 4
    elif length == 127:
        (length,), start = struct.unpack("!Q", frame[2:10]), 10
    assert len(frame) == start + length
    return frame[0] & 0x0F, frame[start:]


def read_broadcast(data: bytes) -> tuple[str, str, Any, bytes, bool]:
    """As supabase-js reads it: topic, event, meta, payload, whether that is bytes."""
    kind, topic_length, event_length, meta_length, encoding = data[:5]
    assert kind == 4
    topic, rest = data[5 : 5 + topic_length], data[5 + topic_length :]
    event, rest = rest[:event_length], rest[event_length:]
    meta, payload = rest[:meta_length], rest[meta_length:]
    return (
        topic.decode(),
        event.decode(),
        json.loads(meta) if meta else None,
        payload,
        encoding == 0,
    )


async def enter(client: Phoenix, topic: str = TOPIC, ref: str = "1", **config: Any) -> None:
    await client.send(topic, "phx_join", {"config": config}, ref, ref)
    reply = await client.receive()
    assert reply["payload"]["status"] == "ok", reply


@asynccontextmanager
async def entered(
    stream: Stream, *versions: str, topic: str = TOPIC, **config: Any
) -> AsyncIterator[list[Phoenix]]:
    async with AsyncExitStack() as stack:
        clients = []
        for version in versions:
            client = await stack.enter_async_context(stream.client(version=version))
            await enter(client, topic, **config)
            clients.append(client)
        yield clients


async def send(client: Phoenix, payload: Any, ref: str = "7", topic: str = TOPIC) -> None:
    await client.send(
        topic, "broadcast", {"type": "broadcast", "event": "e", "payload": payload}, ref
    )


async def heard(client: Phoenix) -> Any:
    """The payload of the next broadcast, in whatever form it comes."""
    async with asyncio.timeout(DEADLINE_S):
        data = await client.socket.recv()
    if isinstance(data, bytes):
        _, _, _, payload, is_binary = read_broadcast(data)
        return payload if is_binary else json.loads(payload)
    message = json.loads(data)
    event, payload = (
        (message["event"], message["payload"]) if isinstance(message, dict) else message[3:5]
    )
    assert event == "broadcast", message
    return payload["payload"]


async def received(client: Phoenix) -> AsyncIterator[str | bytes]:
    """All that is sent, until the socket is closed."""
    with suppress(ConnectionClosed):
        while True:
            yield await client.socket.recv()


def written(section: str, language: str) -> str:
    """The code in a section of docs/realtime.md."""
    page = Path(__file__).parents[2].joinpath("docs/realtime.md").read_text(encoding="utf-8")
    body = page.partition(f"## {section}\n")[2].partition("\n## ")[0]
    return "\n".join(re.findall(rf"^```{language}\n(.*?)^```$", body, re.MULTILINE | re.DOTALL))
