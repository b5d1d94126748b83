"""HTTP load in which each request is made from the last answer, as a refresh token is.

Keep-alive connections, each with a chain of its own; as load.py, it checks every answer.
"""

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import TypeAlias, cast

import uvloop

from .load import LATE_S, WrongResponseError, read_body
from .statistics import Load, percentile

Next: TypeAlias = Callable[[bytes], bytes]
"""The last answer's body → the next request. Raises WrongResponseError."""


def post(port: int, path: str, headers: dict[str, str], body: bytes) -> bytes:
    """The bytes of a POST request with JSON."""
    lines = [f"POST {path} HTTP/1.1", f"Host: 127.0.0.1:{port}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}", "", ""]
    return "\r\n".join(lines).encode() + body


def measure(first: Sequence[bytes], next_request: Next, *, port: int, seconds: float) -> Load:
    """A connection for each of the first requests. Raises WrongResponseError, TimeoutError."""
    return uvloop.run(_measure(first, next_request, port, seconds))


async def _measure(first: Sequence[bytes], next_request: Next, port: int, seconds: float) -> Load:
    loop = asyncio.get_running_loop()
    chains: list[_Chain] = []
    for _ in first:
        _, chain = await loop.create_connection(lambda: _Chain(next_request), "127.0.0.1", port)
        chains.append(chain)
    began = time.perf_counter()
    deadline = began + seconds
    for chain, request in zip(chains, first, strict=True):
        chain.start(request, deadline)
    async with asyncio.timeout(seconds + LATE_S):
        await asyncio.gather(*(chain.done for chain in chains))
    # Until the last answer, since one of them may take longer than all that was asked for.
    elapsed_s = time.perf_counter() - began
    samples = sorted(sample for chain in chains for sample in chain.latencies_s)
    return Load(
        rps=len(samples) / elapsed_s,
        p50_ms=percentile(samples, 50) * 1000,
        p99_ms=percentile(samples, 99) * 1000,
    )


class _Chain(asyncio.Protocol):
    """One connection with one request under way until the deadline."""

    def __init__(self, next_request: Next) -> None:
        self._next_request = next_request
        self._received = b""
        self.latencies_s: list[float] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def start(self, request: bytes, deadline: float) -> None:
        self._deadline = deadline
        self._send(request)

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            body = read_body(self._received)
            if body is None:
                return
            now = time.perf_counter()
            request = self._next_request(body)
        except (WrongResponseError, KeyError, ValueError) as error:
            self._finish(error)
            return
        self.latencies_s.append(now - self._sent_at)
        if now >= self._deadline:
            self._finish(None)
            return
        self._send(request)

    def connection_lost(self, _error: Exception | None) -> None:
        self._finish(WrongResponseError("the server closed the connection"))

    def _send(self, request: bytes) -> None:
        self._received = b""
        self._sent_at = time.perf_counter()
        self._transport.write(request)

    def _finish(self, error: Exception | None) -> None:
        self._transport.close()
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
