"""A provider for tests: a real HTTP/1.1 server whose every byte the test decides."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from tests.serving import tcp_server


@dataclass
class Received:
    method: str
    path: str
    headers: dict[str, str]
    body: bytes
    connection: int
    left: asyncio.Event = field(default_factory=asyncio.Event)
    """Set when the other side closed the connection before it had the whole answer."""

    def json(self) -> Any:
        return json.loads(self.body)


Script: TypeAlias = Callable[[Received, asyncio.StreamWriter], Awaitable[None]]


class Upstream:
    def __init__(self) -> None:
        self.script: Script = answer(200, {})
        self.received: list[Received] = []
        self.arrived = asyncio.Event()
        self.base_url = ""
        self._connection_count = 0

    @property
    def last(self) -> Received:
        return self.received[-1]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connection_count += 1
        connection, begun = self._connection_count, b""
        try:
            while request := await _read_request(reader, begun, connection):
                self.received.append(request)
                self.arrived.set()
                begun = await self._perform(request, reader, writer)
        except ConnectionError:
            pass
        finally:
            writer.close()

    async def _perform(
        self, request: Received, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bytes:
        """Run the script until it ends or the other side leaves; answer what was read since."""
        script = asyncio.ensure_future(self.script(request, writer))
        watch = asyncio.ensure_future(reader.read(1))
        await asyncio.wait([script, watch], return_when=asyncio.FIRST_COMPLETED)
        if not script.done():
            request.left.set()
            script.cancel()
        await asyncio.wait([script])
        return await watch


@asynccontextmanager
async def running_upstream() -> AsyncIterator[Upstream]:
    upstream = Upstream()
    connections: set[asyncio.Task[None]] = set()

    def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(upstream.serve(reader, writer))
        connections.add(task)

    async with tcp_server(connected) as port:
        upstream.base_url = f"http://127.0.0.1:{port}/v1"
        try:
            yield upstream
        finally:
            for task in connections:
                task.cancel()
            await asyncio.gather(*connections, return_exceptions=True)


async def _read_request(
    reader: asyncio.StreamReader, begun: bytes, connection: int
) -> Received | None:
    head = begun + await reader.readline()
    if not head.endswith(b"\r\n"):
        return None
    method, path, _ = head.decode().split()
    headers: dict[str, str] = {}
    while (line := (await reader.readline()).decode().strip()) != "":
        name, _, value = line.partition(":")
        headers[name.lower()] = value.strip()
    body = await reader.readexactly(int(headers.get("content-length", "0")))
    return Received(method, path, headers, body, connection)


def answer(status: int, body: object, headers: dict[str, str] | None = None) -> Script:
    """One whole answer; bytes go as they are, anything else as JSON."""
    payload = body if isinstance(body, bytes) else json.dumps(body).encode()
    fields = {"content-type": "application/json", "content-length": str(len(payload))}
    fields |= headers or {}

    async def script(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(_head(status, fields) + payload)
        await writer.drain()

    return script


async def silence(_request: Received, _writer: asyncio.StreamWriter) -> None:
    """Never an answer."""
    await asyncio.Event().wait()


async def hang_up(_request: Received, writer: asyncio.StreamWriter) -> None:
    """Close the connection in place of an answer."""
    writer.transport.abort()


Piece: TypeAlias = bytes | asyncio.Event | None


def stream(*pieces: Piece, cut: bool = False) -> Script:
    """A chunked event stream. An Event is waited for, None for ever; `cut` leaves out the end."""

    async def script(_request: Received, writer: asyncio.StreamWriter) -> None:
        writer.write(
            _head(200, {"content-type": "text/event-stream", "transfer-encoding": "chunked"})
        )
        for piece in pieces:
            if isinstance(piece, asyncio.Event):
                await piece.wait()
            elif piece is None:
                await silence(_request, writer)
            else:
                writer.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                await writer.drain()
        if cut:
            writer.close()
        else:
            writer.write(b"0\r\n\r\n")
            await writer.drain()

    return script


def _head(status: int, headers: dict[str, str]) -> bytes:
    lines = [f"HTTP/1.1 {status} Reason", *(f"{name}: {value}" for name, value in headers.items())]
    return ("\r\n".join(lines) + "\r\n\r\n").encode()


# OpenAI's wire, as its servers write it.

USAGE = {
    "prompt_tokens": 19,
    "completion_tokens": 10,
    "total_tokens": 29,
    "prompt_tokens_details": {"cached_tokens": 16, "audio_tokens": 0},
    "completion_tokens_details": {"reasoning_tokens": 4, "audio_tokens": 0},
}

COMPLETION = {
    "id": "chatcmpl-B9MBs8CjcvOU2jLn4n570S5qMJKcT",
    "object": "chat.completion",
    "created": 1741569952,
    "model": "gpt-test",
    "choices": [
        {
            "index": 0,
            "message": {"role": "assistant", "content": "Hello!", "refusal": None},
            "logprobs": None,
            "finish_reason": "stop",
        }
    ],
    "usage": USAGE,
    "service_tier": "default",
}

EMBEDDINGS = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}],
    "model": "embed-test",
    "usage": {"prompt_tokens": 8, "total_tokens": 8},
}

RATE_LIMITED = {
    "error": {
        "message": "Rate limit reached for gpt-test in organization org-x on requests per min.",
        "type": "requests",
        "param": None,
        "code": "rate_limit_exceeded",
    }
}

DONE = b"data: [DONE]\n\n"


def chunk(
    text: str | None = None, *, finish: str | None = None, usage: object = None, end: str = "\n"
) -> bytes:
    """A chunk of a streamed completion; with neither text nor finish, the usage chunk."""
    choices = []
    if text is not None or finish is not None:
        delta = {} if text is None else {"content": text}
        choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    data = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1741569952,
        "model": "gpt-test",
        "choices": choices,
        "usage": usage,
    }
    return f"data: {json.dumps(data)}{end}{end}".encode()
