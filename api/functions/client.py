"""Calls of functions from an api worker: an ASGI request there, its answer back.

A connection to the functions process carries one call at a time, and is kept for the next.
"""

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias, cast

from butterbase.ai.http.departures import Departures, Receive
from butterbase.api.functions.runtime.errors import (
    FunctionError,
    FunctionsUnavailableError,
)
from butterbase.api.functions.runtime.frames import (
    CHUNK_BYTES_MAX,
    Frame,
    FrameDecoder,
    FrameError,
    FrameType,
    encode,
)
from butterbase.api.functions.runtime.model import CallRequest
from butterbase.api.functions.runtime.wire import (
    HEAD,
    REFUSAL,
    STREAM,
    Opening,
    Poke,
    RelayedError,
    Target,
    encode_struct,
    error_of,
)
from butterbase.api.rest.endpoint import Send

__all__ = ["FunctionsClient", "RelayedError", "Target"]

logger = logging.getLogger(__name__)

Header: TypeAlias = tuple[bytes, bytes]

IDLE_COUNT_MAX: Final = 64
"""Connections kept for the next calls."""
HELD_BYTES_MAX: Final = 256 * 1024
"""Of an answer, read from the functions process and not yet sent."""
_UNBUFFERED: Final[list[Header]] = [(b"cache-control", b"no-cache"), (b"x-accel-buffering", b"no")]


class FunctionsClient:
    def __init__(self, path: Path) -> None:
        self._path = path
        self._idle: list[_Link] = []
        self._departures = Departures()

    async def relay(
        self,
        target: Target,
        request: CallRequest,
        receive: Receive,
        send: Send,
        *,
        added: Sequence[Header] = (),
        is_chunked: bool = False,
    ) -> None:
        """Carry a call, and answer it. `added` are headers beside the function's own, `is_chunked`
        whether the body comes without its length.

        A client that leaves ends it, and the function is told. Raises FunctionError while nothing
        was sent; an answer that breaks later is left without its end, which its server makes one.
        """
        small = None if is_chunked else await _read_small(request, receive)
        if small is _LEFT:
            return
        link = await self._link()
        link.begin(Opening(target, request), small)
        if small is None:
            client: _Stay | _Upload = _Upload(receive, link)
        else:
            client = _Stay(self._departures, receive)
        try:
            await _answer(link, request, send, added)
            if link.is_free:
                self._keep(link)
        except (asyncio.CancelledError, FunctionError):
            if not client.has_left:
                raise
            client.forgive()
        finally:
            client.end()
            if link not in self._idle:
                link.abort()

    async def poke(self, app_id: str, kind: str, name: str = "") -> None:
        """Tell the functions process of a change. It finds out by itself where this fails."""
        with suppress(FunctionError):
            link = await self._link()
            link.write(encode(FrameType.OPERATION, 0, encode_struct(Poke(app_id, kind, name))))
            self._keep(link)

    async def close(self) -> None:
        for link in self._idle:
            link.abort()
        self._idle.clear()

    async def _link(self) -> "_Link":
        """Raises FunctionsUnavailableError."""
        while self._idle:
            link = self._idle.pop()
            if link.is_open:
                return link
        loop = asyncio.get_running_loop()
        try:
            _, link = await loop.create_unix_connection(_Link, str(self._path))
        except OSError as error:
            raise FunctionsUnavailableError(hint="try again in a moment") from error
        return link

    def _keep(self, link: "_Link") -> None:
        if link.is_open and len(self._idle) < IDLE_COUNT_MAX:
            self._idle.append(link)
        else:
            link.abort()


class _Link(asyncio.Protocol):
    """One connection to the functions process."""

    def __init__(self) -> None:
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._frames: deque[Frame] = deque()
        self._held_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()
        self._is_sent = self._is_answered = True
        self.is_open = True

    @property
    def is_free(self) -> bool:
        """For a further call."""
        return self.is_open and self._is_sent and self._is_answered and not self._frames

    def begin(self, opening: Opening, body: bytes | None) -> None:
        """A call, with its body where that is known."""
        self._is_answered = False
        self._is_sent = body is not None
        frames = encode(FrameType.OPEN, STREAM, encode_struct(opening))
        if body:
            frames += encode(FrameType.DATA, STREAM, body)
        if body is not None:
            frames += encode(FrameType.END, STREAM)
        self.write(frames)

    def write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    async def send_part(self, part: bytes) -> None:
        for at in range(0, len(part), CHUNK_BYTES_MAX):
            self.write(encode(FrameType.DATA, STREAM, part[at : at + CHUNK_BYTES_MAX]))
            await self._can_write.wait()

    def send_end(self) -> None:
        self._is_sent = True
        self.write(encode(FrameType.END, STREAM))

    async def next(self) -> Frame:
        """Raises FunctionsUnavailableError."""
        while not self._frames:
            if not self.is_open:
                raise FunctionsUnavailableError(
                    "the process that runs functions went away", hint="try again in a moment"
                )
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._taken(self._frames.popleft())

    def next_if_there(self) -> Frame | None:
        return self._taken(self._frames.popleft()) if self._frames else None

    def abort(self) -> None:
        self.is_open = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        try:
            for frame in self._decoder.feed(data):
                self._frames.append(frame)
                self._held_bytes += len(frame.payload)
        except FrameError as error:
            logger.error("the functions process does not speak our protocol: %s", error)
            self.abort()
        if self._held_bytes > HELD_BYTES_MAX and self._transport is not None:
            self._transport.pause_reading()
        self._wake()

    def connection_lost(self, _error: Exception | None) -> None:
        self.is_open = False
        self._can_write.set()
        self._wake()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def _taken(self, frame: Frame) -> Frame:
        before, self._held_bytes = self._held_bytes, self._held_bytes - len(frame.payload)
        if before > HELD_BYTES_MAX >= self._held_bytes and self._transport is not None:
            self._transport.resume_reading()
        if frame.type in (FrameType.END, FrameType.RESET):
            self._is_answered = True
        return frame

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class _Stay:
    """A client whose request is there as a whole: this task is cancelled when it leaves."""

    def __init__(self, departures: Departures, receive: Receive) -> None:
        self._departures = departures
        self._stay = departures.begin(receive)

    @property
    def has_left(self) -> bool:
        return self._stay.has_left

    def forgive(self) -> None:
        """The task is to go on as if it had not been cancelled."""
        self._stay.task.uncancel()

    def end(self) -> None:
        self._departures.end(self._stay)


class _Upload:
    """A client whose request is on its way still; the link is cut when it leaves."""

    def __init__(self, receive: Receive, link: _Link) -> None:
        self.has_left = False
        self._task = asyncio.get_running_loop().create_task(self._run(receive, link))

    def forgive(self) -> None:
        """Nothing was cancelled."""

    def end(self) -> None:
        self._task.cancel()

    async def _run(self, receive: Receive, link: _Link) -> None:
        is_sent = False
        while (message := await receive())["type"] != "http.disconnect":
            if is_sent:
                continue
            await link.send_part(message.get("body", b""))
            if not message.get("more_body", False):
                is_sent = True
                link.send_end()
        self.has_left = True
        link.abort()


_LEFT: Final = b"the client has left"


async def _read_small(request: CallRequest, receive: Receive) -> bytes | None:
    """A body that goes into one frame; None for a larger one; _LEFT."""
    length = 0
    for name, value in request.headers:
        if name == "content-length":
            is_number = value.isascii() and value.isdigit() and len(value) < 16
            length = int(value) if is_number else CHUNK_BYTES_MAX + 1
    if length > CHUNK_BYTES_MAX:
        return None
    parts = []
    while length:
        message = await receive()
        if message["type"] == "http.disconnect":
            return _LEFT
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            break
    return b"".join(parts)


async def _answer(link: _Link, request: CallRequest, send: Send, added: Sequence[Header]) -> None:
    """Raises FunctionError before anything is sent."""
    frame = await link.next()
    if frame.type is FrameType.RESET:
        raise error_of(REFUSAL.decode(frame.payload))
    if frame.type is not FrameType.HEAD:
        raise FunctionsUnavailableError(f"{frame.type.name} in place of an answer's head")
    head = HEAD.decode(frame.payload)
    headers = [(name.encode(), value.encode("latin-1")) for name, value in head.headers]
    parts = []
    ahead = link.next_if_there()
    while ahead is not None and ahead.type is FrameType.DATA:
        parts.append(ahead.payload)
        ahead = link.next_if_there()
    is_whole = ahead is not None and ahead.type is FrameType.END
    has_body = request.method != "HEAD" and head.status not in (204, 304)
    body = b"".join(parts) if has_body else b""
    if is_whole and has_body:
        headers.append((b"content-length", b"%d" % len(body)))
    elif any(value.startswith(b"text/event-stream") for _, value in headers):
        headers += _UNBUFFERED
    start = {"type": "http.response.start", "status": head.status, "headers": [*headers, *added]}
    await send(start)
    if is_whole:
        await send({"type": "http.response.body", "body": body})
    elif ahead is None:
        await _stream(link, send, body, has_body=has_body)
    else:
        logger.info("an answer broke off: %s", _reason(ahead))


async def _stream(link: _Link, send: Send, first: bytes, *, has_body: bool) -> None:
    """Of an answer that has no body, what is sent as one is left out."""
    if first:
        await send({"type": "http.response.body", "body": first, "more_body": True})
    while True:
        try:
            frame = await link.next()
        except FunctionsUnavailableError as error:
            logger.info("an answer broke off: %s", error)
            return
        if frame.type is FrameType.END:
            await send({"type": "http.response.body", "body": b""})
            return
        if frame.type is not FrameType.DATA:
            logger.info("an answer broke off: %s", _reason(frame))
            return
        if has_body:
            await send({"type": "http.response.body", "body": frame.payload, "more_body": True})


def _reason(frame: Frame) -> str:
    return REFUSAL.decode(frame.payload).code if frame.type is FrameType.RESET else frame.type.name
