"""Load of calls to models from this process, whole and streamed: keep-alive connections that each
send the next call on the end of an answer.

Every answer is checked: its status, the text of the provider's chunks, a stream's end. Samples are
taken of what ends within the measurement, after a while without; what is under way at its end is
waited for, so that nobody has calls that are cut.
"""

import asyncio
import re
import time
from typing import Final, cast

import httptools
import uvloop
from msgspec import Struct

from .load import LATE_S, WrongResponseError
from .provider import CHUNK_COUNT, CHUNK_MARK, SENT_MARK
from .statistics import percentile

WARM_UP_S: Final = 0.4
_SENT: Final = re.compile(SENT_MARK + rb"(\d+)")
_STREAM_END: Final = b"data: [DONE]"


class CallLoad(Struct, frozen=True):
    """What one measurement came to. Times are from sending a request to its answer's last byte."""

    rps: float
    p50_ms: float
    p99_ms: float
    asked_count: int
    """All calls, also those of which no sample was taken."""
    delay_p50_ms: float | None = None
    """From a chunk's leaving the provider to its arrival; of streams that tell when that was."""


def measure(
    request: bytes, *, port: int, connection_count: int, seconds: float, is_streamed: bool
) -> CallLoad:
    """Raises WrongResponseError, TimeoutError."""
    return uvloop.run(_measure(_Order(request, is_streamed), port, connection_count, seconds))


class _Order:
    """What all connections send, and what they have found."""

    def __init__(self, request: bytes, is_streamed: bool) -> None:
        self.request = request
        self.is_streamed = is_streamed
        self.begins_s = self.ends_s = self._seconds = 0.0
        self.asked_count = 0
        self.latencies_s: list[float] = []
        self.delays_us: list[int] = []

    def begin(self, at_s: float, seconds: float) -> None:
        self.begins_s, self._seconds = at_s, seconds
        self.ends_s = at_s + seconds

    def add(self, latency_s: float, now_s: float) -> None:
        while now_s >= self.ends_s and not self.latencies_s:
            self.ends_s += self._seconds  # some are that slow
        if self.is_counted(now_s):
            self.latencies_s.append(latency_s)

    def is_counted(self, now_s: float) -> bool:
        return self.begins_s <= now_s < self.ends_s

    def check(self, status: int, body: bytes) -> None:
        """Raises WrongResponseError."""
        is_whole = body.count(CHUNK_MARK) == CHUNK_COUNT
        if self.is_streamed:
            is_whole = is_whole and _STREAM_END in body[-100:]
        if status != 200 or not is_whole:
            raise WrongResponseError(f"{status}: {body[:1000].decode(errors='replace')}")


async def _measure(order: _Order, port: int, connection_count: int, seconds: float) -> CallLoad:
    loop = asyncio.get_running_loop()
    callers: list[_Caller] = []
    for _ in range(connection_count):
        _, caller = await loop.create_connection(lambda: _Caller(order), "127.0.0.1", port)
        callers.append(caller)
    order.begin(time.perf_counter() + WARM_UP_S, seconds)
    for caller in callers:
        caller.send()
    try:
        async with asyncio.timeout(WARM_UP_S + seconds + LATE_S):
            await asyncio.gather(*(caller.done for caller in callers))
    finally:
        for caller in callers:
            caller.close()
        await asyncio.sleep(0)  # until the loop has closed them
    samples, delays = sorted(order.latencies_s), sorted(order.delays_us)
    return CallLoad(
        rps=len(samples) / (order.ends_s - order.begins_s),
        p50_ms=percentile(samples, 50) * 1000,
        p99_ms=percentile(samples, 99) * 1000,
        asked_count=order.asked_count,
        delay_p50_ms=percentile(delays, 50) / 1000 if delays else None,
    )


class _Caller(asyncio.Protocol):
    """One connection with one call under way until the end."""

    def __init__(self, order: _Order) -> None:
        self._order = order
        self._parts: list[bytes] = []
        self.done: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)  # uvloop's is no subclass of it

    def send(self) -> None:
        self._parts = []
        self._parser = httptools.HttpResponseParser(self)
        self._order.asked_count += 1
        self._sent_s = time.perf_counter()
        self._transport.write(self._order.request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError as error:
            # It wraps what the callbacks raise.
            self._finish(error.__context__ or error)

    def connection_lost(self, error: Exception | None) -> None:
        self._finish(error or WrongResponseError("the server closed the connection"))

    # Called by the parser

    def on_body(self, part: bytes) -> None:
        self._parts.append(part)
        if SENT_MARK in part and self._order.is_counted(time.perf_counter()):
            now_us = time.monotonic_ns() // 1000
            self._order.delays_us += [now_us - int(sent) for sent in _SENT.findall(part)]

    def on_message_complete(self) -> None:
        now_s, order = time.perf_counter(), self._order
        order.check(self._parser.get_status_code(), b"".join(self._parts))
        order.add(now_s - self._sent_s, now_s)
        if now_s >= order.ends_s:
            self._finish(None)
        else:
            # Not from within the parser, which is another one then.
            asyncio.get_running_loop().call_soon(self.send)

    def _finish(self, error: BaseException | None) -> None:
        self.close()
        if self.done.done():
            return
        if error is None:
            self.done.set_result(None)
        else:
            self.done.set_exception(error)
