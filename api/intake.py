"""What a client sends, within bounds: uvicorn's HTTP protocol has none of its own.

A head is of so many bytes and fields, and there in time; a body comes at some rate; all bodies of
a worker together hold so much memory. What is beyond is answered, where an answer can still be
sent, and the connection ends. It holds for every route, before any of them is asked.
https://www.rfc-editor.org/rfc/rfc9112
"""

import asyncio
import logging
from collections import deque
from typing import Any

import msgspec
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from butterbase.api.errors import (
    BodiesFullError,
    HeadTooLargeError,
    ReceiveTimeoutError,
    RequestError,
)
from butterbase.api.problems import render
from butterbase.sql.errors import ButterbaseError

logger = logging.getLogger(__name__)

HEAD_BYTES_MAX = 64 * 1024
"""Of a request's line and headers. Also what may come in a row that brings nothing, as trailers."""

HEADER_COUNT_MAX = 128

HEAD_S = 20.0
"""From a request's first byte to the end of its head."""

BODY_S = 30.0
"""A body brings BODY_BYTES_MIN in each of such periods, or its end."""

BODY_BYTES_MIN = 30 * 1024

SMALL_BODY_BYTES = 64 * 1024
"""A body of so much is neither counted nor refused for want of room."""

BODIES_BYTES_MAX = 512 * 1024**2

LINGER_S = 2.0
"""After a refusal, what is still on its way is read for so long: to close at once would be a reset,
which can take the answer from the client."""

_NONE, _HEAD, _BODY = range(3)
"""What of a request has begun and not ended; an enum's members take longer to look up."""


class BodyRoom:
    """How many bytes of bodies are held together, and may be."""

    __slots__ = ("bytes_max", "used_bytes")

    def __init__(self, bytes_max: int = BODIES_BYTES_MAX) -> None:
        self.bytes_max = bytes_max
        self.used_bytes = 0


class _Held:
    """A body that counts, until its request is answered."""

    __slots__ = ("byte_count", "cycle")

    def __init__(self, cycle: RequestResponseCycle) -> None:
        self.cycle = cycle
        self.byte_count = 0


class BoundedProtocol(HttpToolsProtocol):
    room = BodyRoom()
    """Of this process."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._part = _NONE
        self._is_split = False
        """Whether the head came in more than one piece."""
        self._has_advanced = False
        """Whether the last piece ended a head, or was of a body."""
        self._idle_bytes = 0
        """Since it did."""
        self._body_bytes = 0
        self._body_bytes_before = 0
        """When the timer was set."""
        self._timer: asyncio.TimerHandle | None = None
        self._refusal: ButterbaseError | None = None
        self._is_refused = False
        self._held: deque[_Held] = deque()

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        # uvicorn waits so long for another request, but without end for the first one.
        self.timeout_keep_alive_task = self.loop.call_later(
            self.timeout_keep_alive, self.timeout_keep_alive_handler
        )

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self._unset_keepalive_if_required()
        self._stop_timer()
        self._release()

    def data_received(self, data: bytes) -> None:
        if len(data) <= HEAD_BYTES_MAX:
            self._feed(data)
        else:
            for start in range(0, len(data), HEAD_BYTES_MAX):
                self._feed(data[start : start + HEAD_BYTES_MAX])
                if self.transport.is_closing():
                    return
        if self._timer is None and (self._part is not _NONE or not self._has_advanced):
            self._start_timer()

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._part = _HEAD
        self._is_split = False

    def on_headers_complete(self) -> None:
        if len(self.headers) > HEADER_COUNT_MAX or (self._is_split and self._is_head_too_large()):
            self._refusal = HeadTooLargeError()
            raise self._refusal
        super().on_headers_complete()
        if not self.parser.should_upgrade():
            self.headers = []  # trailers come to this one; they are none of the request's headers
        self._part = _BODY
        self._has_advanced = True
        self._body_bytes = 0
        if self._timer is not None:
            self._stop_timer()

    def on_body(self, body: bytes) -> None:
        self._has_advanced = True
        self._body_bytes += len(body)
        if self._body_bytes <= SMALL_BODY_BYTES or self._can_hold(self.cycle, len(body)):
            super().on_body(body)

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._part = _NONE
        self._has_advanced = True
        if self._timer is not None:
            self._stop_timer()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        if self._held:
            self._release()

    def send_400_response(self, msg: str) -> None:
        """Called by uvicorn when the parser raised."""
        self._refuse(self._refusal or RequestError(msg))

    def _feed(self, piece: bytes) -> None:
        if self._is_refused:
            return
        self._has_advanced = False
        super().data_received(piece)
        self._is_split = True
        if self._has_advanced:
            self._idle_bytes = 0
            return
        self._idle_bytes += len(piece)
        # The parser adds each piece to the field that it is of, which takes the longer the more.
        if self._idle_bytes > HEAD_BYTES_MAX:
            self._refuse(HeadTooLargeError())

    def _is_head_too_large(self) -> bool:
        fields = sum(len(name) + len(value) for name, value in self.headers)
        return len(self.url) + fields > HEAD_BYTES_MAX

    # Time

    def _start_timer(self) -> None:
        if self.transport.is_closing():
            return
        self._body_bytes_before = self._body_bytes
        wait_s = BODY_S if self._part is _BODY else HEAD_S
        self._timer = self.loop.call_later(wait_s, self._look)

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _look(self) -> None:
        self._timer = None
        if self.transport.is_closing():
            return
        if self._is_waited_for() or self._comes_fast_enough():
            self._start_timer()
        else:
            self._refuse(ReceiveTimeoutError())

    def _is_waited_for(self) -> bool:
        """Whether it is the client who waits: for us to read, to answer, or to ask for a body."""
        return (
            self.flow.read_paused
            or bool(self.pipeline)
            or (self._part is _BODY and self.cycle.waiting_for_100_continue)
        )

    def _comes_fast_enough(self) -> bool:
        return (
            self._part is _BODY
            and not self.cycle.response_complete
            and self._body_bytes - self._body_bytes_before >= BODY_BYTES_MIN
        )

    # Room

    def _can_hold(self, cycle: RequestResponseCycle, size: int) -> bool:
        """Count so many more bytes of the cycle's body; False when it was refused."""
        if self._is_refused or cycle.response_complete:
            return False
        if not self._held or self._held[-1].cycle is not cycle:
            self._held.append(_Held(cycle))
            size = self._body_bytes
        held = self._held[-1]
        held.byte_count += size
        self.room.used_bytes += size
        # One body alone may be of any size: what a route takes is the route's to say. And of one
        # that waits for another's answer, no more is read than this piece.
        if held.byte_count < self.room.used_bytes > self.room.bytes_max and not self.pipeline:
            self._refuse(BodiesFullError())
            return False
        return True

    def _release(self) -> None:
        """Give back what answered requests held, or all of a connection that is gone."""
        is_lost = self.parser is None
        while self._held:
            cycle = self._held[0].cycle
            if not (is_lost or cycle.disconnected or cycle.response_complete):
                return
            self.room.used_bytes -= self._held.popleft().byte_count

    # Refusals

    def _refuse(self, error: ButterbaseError) -> None:
        """Read no more requests, and tell why where that would not fall into another answer."""
        if self._is_refused:
            return
        self._is_refused = True
        self._stop_timer()
        cycle: RequestResponseCycle | None = self.cycle
        if cycle is None or (self._part is not _BODY and cycle.response_complete):
            self.transport.write(self._rendered(error))
        elif self._part is not _BODY:
            cycle.keep_alive = False  # the connection ends with the answer under way
            return
        else:
            cycle.disconnected = True  # for the application the client has left
            cycle.message_event.set()
            self._release()
            if self.pipeline or (cycle.response_started and not cycle.response_complete):
                self.transport.close()
                return
            if not cycle.response_started:
                self.transport.write(self._rendered(error))
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self._timer = self.loop.call_later(LINGER_S, self.transport.close)

    def _rendered(self, error: ButterbaseError) -> bytes:
        rendered = render(error)
        if rendered.status >= 500:
            logger.warning("%s (%s)", error, type(error).__name__)
        body = msgspec.json.encode(rendered.problem)
        headers = [
            *self.server_state.default_headers,
            (b"content-type", b"application/json; charset=utf-8"),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
            *rendered.headers,
        ]
        fields = [b"%b: %b\r\n" % header for header in headers]
        return b"".join([STATUS_LINE[rendered.status], *fields, b"\r\n", body])


def holding_at_most(bytes_max: int, protocol: type[BoundedProtocol]) -> type[BoundedProtocol]:
    """The protocol with a room of its own for bodies."""
    return type(protocol.__name__, (protocol,), {"room": BodyRoom(bytes_max)})
