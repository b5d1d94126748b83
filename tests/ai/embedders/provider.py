"""An embedding provider on loopback that answers as it is told, well-behaved or not."""

import asyncio
import json
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import msgspec
from msgspec import Struct

from tests.serving import tcp_server

DIMENSIONS = 4
SILENCE = b""
HALF = b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n{"
"""After these replies nothing more is sent, and the connection stays open."""


class Request(Struct, frozen=True):
    line: str
    headers: dict[str, str]
    body: dict[str, object]

    @property
    def texts(self) -> list[str]:
        return msgspec.convert(self.body["input"], list[str])


Reply = Callable[[Request], bytes]


def http(status: int, body: bytes = b"", **headers: str) -> bytes:
    fields = {"content-type": "application/json", "content-length": str(len(body)), **headers}
    lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in fields.items())
    return f"HTTP/1.1 {status} Status\r\n{lines}\r\n".encode() + body


def vector(text: str, dimensions: int = DIMENSIONS) -> list[float]:
    """Not of unit length; different for texts that begin or end differently."""
    seeds = [len(text), ord(text[0]), ord(text[-1]), *([3] * dimensions)]
    return [float(seed) for seed in seeds[:dimensions]]


def vectors(request: Request, *, dimensions: int = DIMENSIONS) -> bytes:
    """The true answer, its rows in another order than asked for."""
    rows = [
        {"object": "embedding", "index": index, "embedding": vector(text, dimensions)}
        for index, text in enumerate(request.texts)
    ]
    return http(200, json.dumps({"object": "list", "data": rows[::-1]}).encode())


class Provider:
    """Takes its replies from `replies`; when there are none it answers truly."""

    def __init__(self) -> None:
        self.base_url = ""
        self.requests: list[Request] = []
        self.replies: deque[bytes | Reply] = deque()
        self._released = asyncio.Event()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while await self._answer(reader, writer):
                pass
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        headers = {
            name.lower(): value.strip()
            for name, _, value in (line.partition(":") for line in head[1:] if line)
        }
        body = json.loads(await reader.readexactly(int(headers["content-length"])))
        request = Request(head[0], headers, body)
        self.requests.append(request)
        reply = self.replies.popleft() if self.replies else vectors
        sent = reply if isinstance(reply, bytes) else reply(request)
        writer.write(sent)
        await writer.drain()
        if sent in {SILENCE, HALF}:
            await self._released.wait()
            return False
        return sent.startswith(b"HTTP/1.1")

    def release(self) -> None:
        self._released.set()


@asynccontextmanager
async def provider() -> AsyncIterator[Provider]:
    answering = Provider()
    async with tcp_server(answering.serve) as port:
        answering.base_url = f"http://127.0.0.1:{port}/v1"
        try:
            yield answering
        finally:
            answering.release()
