"""uvicorn's HTTP protocol, with an answer's head and body in one write, and an end to waiting.

uvicorn writes them apart, and the loop sends each at once: two system calls, and often two packets
that wake the client twice. And it waits without end for a client to take what was written.
"""

import asyncio
import fcntl
import logging
import struct
import sys
import termios
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from butterbase.api.handover import is_event_stream
from butterbase.api.intake import BoundedProtocol

logger = logging.getLogger(__name__)

STALLED_S = 60.0
"""A client that takes nothing of what waits for it for so long is let go."""

STALLED_UNSEEN_S = 600.0
"""The same where the kernel does not tell what of it the client has taken. It holds megabytes, and
this process sees nothing go while a slow client reads those."""

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

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def watch(self) -> None:
        """Abort the connection when its client stalls, until `unwatch`; nothing more is written."""
        self.unwatch()
        if not self._transport.get_write_buffer_size():
            return
        self._untaken_bytes, is_seen = self._count()
        wait_s = STALLED_S if is_seen else STALLED_UNSEEN_S
        self._timer = self._loop.call_later(wait_s, self._look)

    def unwatch(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        if self._count()[0] < self._untaken_bytes:
            self.watch()
            return
        self._timer = None
        logger.warning("a client took nothing of its answer for a long time")
        self._transport.abort()

    def _count(self) -> tuple[int, bool]:
        """What the client has not taken yet, and whether the kernel's part of it is in that."""
        unsent = unsent_bytes(self._transport)
        return self._transport.get_write_buffer_size() + (unsent or 0), unsent is not None

    def _flush(self) -> None:
        if self._head:
            head, self._head = self._head, b""
            self._transport.write(head)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)


def unsent_bytes(transport: asyncio.Transport) -> int | None:
    """What the kernel holds of what was written, until the client has it; None if it does not tell.

    https://man7.org/linux/man-pages/man7/tcp.7.html (SIOCOUTQ)
    """
    socket = transport.get_extra_info("socket")
    if socket is None or sys.platform != "linux":
        return None
    try:
        answer = fcntl.ioctl(socket.fileno(), termios.TIOCOUTQ, bytes(4))
    except (OSError, ValueError):  # a socket that was closed meanwhile has the descriptor -1
        return None
    (count,) = struct.unpack("i", answer)
    return int(count)


class HttpProtocol(BoundedProtocol):
    _corked: CorkedTransport
    _is_handed_over = False

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        self._corked = CorkedTransport(transport, self.loop)
        super().connection_made(self._corked)  # type: ignore[arg-type]

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._corked.unwatch()

    def on_headers_complete(self) -> None:
        cycle: RequestResponseCycle | None = self.cycle
        is_free = cycle is None or cycle.response_complete
        if (
            self.ws_protocol_class is not None
            and is_free
            and is_event_stream(self.parser.get_method(), self.url)
        ):
            # As uvicorn does with upgrades: the connection is another process's from here on.
            self._is_handed_over = True
            self.scope["method"] = self.parser.get_method().decode("ascii")
            self.handle_websocket_upgrade()
            return
        super().on_headers_complete()

    def on_body(self, body: bytes) -> None:
        if not self._is_handed_over:
            super().on_body(body)

    def on_message_complete(self) -> None:
        if not self._is_handed_over:
            super().on_message_complete()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._corked.watch()

    def resume_writing(self) -> None:
        super().resume_writing()
        if not self._corked.is_closing():
            self._corked.unwatch()
