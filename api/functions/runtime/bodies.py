"""Bodies between the host and a process, with flow control: one end of each direction."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Final

from butterbase.api.functions.runtime.errors import FunctionError
from butterbase.api.functions.runtime.frames import (
    CHUNK_BYTES_MAX,
    WINDOW_BYTES,
    FrameError,
    FrameType,
    encode,
    encode_credit,
)

_CREDIT_BYTES: Final = WINDOW_BYTES // 4
"""Credit is given in parts of at least this, so that it costs few frames."""

_CREDIT_BYTES_MAX: Final = 2**31


class IncomingBody:
    """What a process sends: held up to a window, until it is read."""

    def __init__(
        self,
        stream: int,
        write: Callable[[bytes], None],
        *,
        bytes_max: int,
        too_large: Callable[[], FunctionError],
    ) -> None:
        self._stream = stream
        self._write = write
        self._bytes_max = bytes_max
        self._too_large = too_large
        self._parts: deque[bytes] = deque()
        self._window = WINDOW_BYTES
        self._consumed = 0
        self._waiter: asyncio.Future[None] | None = None
        self._error: Exception | None = None
        self._is_dropped = False
        self.is_ended = False
        self.received_bytes = 0

    def push(self, part: bytes) -> None:
        """Raises FrameError for more than was asked for."""
        self._window -= len(part)
        if self._window < 0 or self.is_ended:
            raise FrameError("a body beyond its window")
        self.received_bytes += len(part)
        if self.received_bytes > self._bytes_max:
            self.fail(self._too_large())
        elif self._is_dropped or self._error is not None:
            self._consume(len(part))
        else:
            self._parts.append(part)
            self._wake()

    def end(self) -> None:
        self.is_ended = True
        self._wake()

    def fail(self, error: Exception) -> None:
        """The reader is told once it has read what came before."""
        if not self.is_ended:
            self._error = self._error or error
            self._wake()

    def drop(self) -> None:
        """Nobody reads it: what still comes is thrown away."""
        self._is_dropped = True
        while self._parts:
            self._consume(len(self._parts.popleft()))

    @property
    def error(self) -> Exception | None:
        return self._error

    async def read(self) -> bytes:
        """The next part; empty at the end. Raises what it failed with."""
        while True:
            if self._parts:
                part = self._parts.popleft()
                self._consume(len(part))
                return part
            if self._error is not None:
                raise self._error
            if self.is_ended:
                return b""
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None

    def take_available(self) -> bytes:
        """What has come already."""
        parts = list(self._parts)
        self._parts.clear()
        whole = parts[0] if len(parts) == 1 else b"".join(parts)
        self._consume(len(whole))
        return whole

    def _consume(self, count: int) -> None:
        self._consumed += count
        if self._consumed >= _CREDIT_BYTES and not self.is_ended:
            self._window += self._consumed
            self._write(encode_credit(self._stream, self._consumed))
            self._consumed = 0

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class OutgoingBody:
    """What is sent to a process, as it gives credit."""

    def __init__(self, stream: int, write: Callable[[bytes], None]) -> None:
        self._stream = stream
        self._write = write
        self._credit = WINDOW_BYTES
        self._waiter: asyncio.Future[None] | None = None
        self.is_closed = False

    def grant(self, count: int) -> None:
        """Raises FrameError."""
        self._credit += count
        if self._credit > _CREDIT_BYTES_MAX:
            raise FrameError("credit without end")
        self._wake()

    def close(self) -> None:
        """The other side reads no more."""
        self.is_closed = True
        self._wake()

    async def write(self, part: bytes) -> bool:
        """Whether there is anybody to read more."""
        at = 0
        while at < len(part):
            while self._credit <= 0 and not self.is_closed:
                self._waiter = asyncio.get_running_loop().create_future()
                try:
                    await self._waiter
                finally:
                    self._waiter = None
            if self.is_closed:
                return False
            size = min(len(part) - at, self._credit, CHUNK_BYTES_MAX)
            self._credit -= size
            self._write(encode(FrameType.DATA, self._stream, part[at : at + size]))
            at += size
        return not self.is_closed

    def end(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self._write(encode(FrameType.END, self._stream))

    def spend_whole(self, size: int) -> None:
        """A body of this size was sent beside the stream's opening."""
        self._credit -= size
        self.is_closed = True

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
