"""HTTP load from this process: keep-alive connections that each send the next request on an answer.

It reads no more of HTTP/1.1 than a response with a Content-Length takes, and checks every answer.
"""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from typing import cast

import uvloop
from msgspec import Struct

from .cases import Message, fill
from .statistics import Load, percentile

LATE_S = 30.0
"""How long after the end an answer may still come."""


class WrongResponseError(Exception):
    """The server answered something else than it was asked for."""


class Exchange(Struct, frozen=True):
    """A request, and what the body of its answer must hold."""

    request: bytes
    marker: bytes


def exchange(
    port: int, message: Message, headers: Mapping[str, str], *, number: int, marker: str
) -> Exchange:
    """The message for an id, and what its answer must hold."""
    body = fill(message.body or "", number).encode()
    lines = [f"{message.method} {fill(message.path, number)} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in {**headers, **message.headers}.items()]
    if message.body is not None:
        lines.append(f"Content-Length: {len(body)}")
    return Exchange("\r\n".join([*lines, "", ""]).encode() + body, fill(marker, number).encode())


def read_body(response: bytes) -> bytes | None:
    """The body, or None while the response is incomplete. Raises WrongResponseError.

    There is at most one response in the bytes, as the next request is sent after it.
    """
    head, blank_line, body = response.partition(b"\r\n\r\n")
    if not blank_line:
        return None
    _, _, rest = head.lower().partition(b"\r\ncontent-length:")
    length = rest.partition(b"\r\n")[0].strip()
    if (
        head[:13] not in (b"HTTP/1.1 200 ", b"HTTP/1.1 201 ")
        or not length.isdigit()
        or len(body) > int(length)
    ):
        raise WrongResponseError(response.decode(errors="replace"))
    return body if len(body) == int(length) else None


def measure(
    exchanges: Sequence[Exchange], *, port: int, connection_count: int, seconds: float
) -> Load:
    """Send random ones of the exchanges. Raises WrongResponseError, TimeoutError."""
    return uvloop.run(_measure(exchanges, port, connection_count, seconds))


async def _measure(
    exchanges: Sequence[Exchange], port: int, connection_count: int, seconds: float
) -> Load:
    loop = asyncio.get_running_loop()
    clients: list[_Client] = []
    for _ in range(connection_count):
        _, client = await loop.create_connection(lambda: _Client(exchanges), "127.0.0.1", port)
        clients.append(client)
    deadline = time.perf_counter() + seconds
    for client in clients:
        client.start(deadline)
    async with asyncio.timeout(seconds + LATE_S):
        await asyncio.gather(*(client.done for client in clients))
    samples = sorted(sample for client in clients for sample in client.latencies_s)
    if not samples:
        raise WrongResponseError(f"there was no answer within {seconds} s")
    return Load(
        rps=len(samples) / seconds,
        p50_ms=percentile(samples, 50) * 1000,
        p99_ms=percentile(samples, 99) * 1000,
    )


class _Client(asyncio.Protocol):
    """One connection with one request under way until the deadline."""

    def __init__(self, exchanges: Sequence[Exchange]) -> None:
        self._exchanges = exchanges
        self._received = b""
        self.latencies_s: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def start(self, deadline: float) -> None:
        self._deadline = deadline
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            body = read_body(self._received)
            if body is None:
                return
            if self._exchange.marker not in body:
                raise WrongResponseError(body.decode(errors="replace"))
        except WrongResponseError as error:
            self._finish(error)
            return
        now = time.perf_counter()
        if now >= self._deadline:
            self._finish(None)
            return
        self.latencies_s.append(now - self._sent_at)
        self._send()

    def connection_lost(self, _error: Exception | None) -> None:
        self._finish(WrongResponseError("the server closed the connection"))

    def _send(self) -> None:
        self._received = b""
        self._exchange = random.choice(self._exchanges)  # noqa: S311  no secret depends on it
        self._sent_at = time.perf_counter()
        self._transport.write(self._exchange.request)

    def _finish(self, error: Exception | None) -> None:
        self._transport.close()
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
