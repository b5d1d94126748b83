"""uvicorn's HTTP protocol, with an answer's head and body in one write, and an end to waiting.

uvicorn writes them apart, and the loop sends each at once: two system calls, and often two packets
that wake the client twice. And it waits without end for a client to take what was written.
"""

import asyncio
import logging
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

logger = logging.getLogger(__name__)

STALLED_S = 60.0
"""A client that takes nothing of what waits for it for so long is let go."""

_HEAD = b"HTTP/1.1 "


class CorkedTransport:
    """A transport that keeps an answer's head until the next write, or the loop's next round."""

    __slots__ = (
        "_head",
        "_loop",
        "_timer",
        "_transport",
        "_untaken_bytes",
        "abort",
        "get_extra_info",
        "is_closing",
    )

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._head = b""
        self._timer: asyncio.TimerHandle | None = None
        self._untaken_bytes = 0
        self.abort = transport.abort
        self.get_extra_info = transport.get_extra_info
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        if self._head:
            data, self._head = self._head + data, b""
        elif data.startswith(_HEAD):
            self._head = data
            self._loop.call_soon(self._flush)
            return
        self._transport.write(data)

    def close(self) -> None:
        """Close once the client has taken the rest, or stalls."""
        self._flush()
        self._transport.close()
        self.watch()

    def watch(self) -> None:
        """Abort the connection when its client stalls, until `unwatch`; nothing more is written."""
        self.unwatch()
        self._untaken_bytes = self._transport.get_write_buffer_size()
        if self._untaken_bytes:
            self._timer = self._loop.call_later(STALLED_S, self._look)

    def unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._transport.get_write_buffer_size() < self._untaken_bytes:
            self.watch()
            return
        self._timer = None
        logger.warning("a client took nothing of its answer for %g s", STALLED_S)
        self._transport.abort()

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


class HttpProtocol(HttpToolsProtocol):
    _corked: CorkedTransport

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._corked = CorkedTransport(transport, self.loop)
        super().connection_made(self._corked)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._corked.unwatch()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._corked.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._corked.is_closing():
            self._corked.unwatch()
