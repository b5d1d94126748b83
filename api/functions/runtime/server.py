"""The functions process's socket: calls from the api's workers.

It lies in the data directory, open to this user alone; so what comes through it is a worker's,
which has authenticated the caller.
"""

import asyncio
import contextlib
import logging
import os
import socket
import stat
from collections import deque
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Final, cast

import msgspec

from butterbase.api import problems
from butterbase.api.functions.runtime.errors import FunctionClientLeftError, FunctionError
from butterbase.api.functions.runtime.frames import (
    CHUNK_BYTES_MAX,
    Frame,
    FrameDecoder,
    FrameError,
    FrameType,
    encode,
)
from butterbase.api.functions.runtime.runtime import Answer, Runtime
from butterbase.api.functions.runtime.seams import FunctionSource
from butterbase.api.functions.runtime.wire import (
    OPENING,
    POKE,
    STREAM,
    AnswerHead,
    Opening,
    Poke,
    encode_struct,
    refusal_of,
)
from butterbase.sql.errors import ButterbaseError, SettingError

logger = logging.getLogger(__name__)

BACKLOG: Final = 4096
"""More than workers connect at once: a unix socket refuses at once what does not fit."""
HELD_BYTES_MAX: Final = 256 * 1024
"""Of a request's body, read from the worker and not yet given to the function."""

Poked = Callable[[Poke], None]


class CallServer:
    """Serves calls until closed."""

    def __init__(self, runtime: Runtime, source: FunctionSource, poked: Poked) -> None:
        self.runtime = runtime
        self.source = source
        self.poked = poked
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()
        self._path: Path | None = None

    async def listen(self, path: Path) -> None:
        """Raises SettingError."""
        listener = _bind(path)
        loop = asyncio.get_running_loop()
        self._server = await loop.create_unix_server(
            lambda: _Connection(self), sock=listener, backlog=BACKLOG
        )
        self._path = path

    async def close(self) -> None:
        """Calls under way fail with what a worker takes for our end."""
        if self._server is not None:
            self._server.close()
        for connection in list(self._connections):
            connection.abort()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def opened(self, connection: "_Connection") -> None:
        self._connections.add(connection)

    def closed(self, connection: "_Connection") -> None:
        self._connections.discard(connection)


class _Connection(asyncio.Protocol):
    def __init__(self, server: CallServer) -> None:
        self._server = server
        self._decoder = FrameDecoder()
        self._transport: asyncio.Transport | None = None
        self._task: asyncio.Task[None] | None = None
        self._request: _Request | None = None
        self._can_write = asyncio.Event()
        self._can_write.set()

    # -- asyncio.Protocol --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._server.opened(self)

    def connection_lost(self, _error: Exception | None) -> None:
        self._server.closed(self)
        self._can_write.set()
        if self._request is not None:
            self._request.leave()
        if self._task is not None:
            self._task.cancel()

    def pause_writing(self) -> None:
        self._can_write.clear()

    def resume_writing(self) -> None:
        self._can_write.set()

    def data_received(self, data: bytes) -> None:
        opening = None
        try:
            for frame in self._decoder.feed(data):
                opening = self._take(frame) or opening
        except (FrameError, msgspec.MsgspecError) as error:
            logger.error("a worker does not speak our protocol: %s", error)
            self.abort()
            return
        if opening is not None:
            # After the frames beside it: a small body is there as a whole then.
            assert self._request is not None
            self._task = asyncio.get_running_loop().create_task(self._serve(opening, self._request))

    def abort(self) -> None:
        if self._transport is not None:
            self._transport.abort()

    # -- a call --

    def _take(self, frame: Frame) -> Opening | None:
        assert self._transport is not None
        match frame.type:
            case FrameType.OPEN:
                if self._task is not None and not self._task.done():
                    raise FrameError("a second call before the end of the first")
                self._request = _Request(self._transport)
                return OPENING.decode(frame.payload)
            case FrameType.DATA if self._request is not None:
                self._request.push(frame.payload)
            case FrameType.END if self._request is not None:
                self._request.end()
            case FrameType.OPERATION:
                self._server.poked(POKE.decode(frame.payload))
            case _:
                raise FrameError(f"{frame.type.name} out of place")
        return None

    async def _serve(self, opening: Opening, request: "_Request") -> None:
        try:
            target = opening.target
            version = await self._server.source.version(target.app_id, target.name, target.revision)
            whole = request.take_whole()
            answer = await self._server.runtime.call(
                version, opening.request, request.parts() if whole is None else whole
            )
            await self._answer(answer)
        except ButterbaseError as error:
            self._refuse(error)
        except Exception:
            logger.exception("a call failed")
            self._refuse(FunctionError())
        finally:
            request.drop()

    async def _answer(self, answer: Answer) -> None:
        head = encode(
            FrameType.HEAD, STREAM, encode_struct(AnswerHead(answer.status, answer.headers))
        )
        try:
            whole = answer.take_whole()
            if whole is not None and len(whole) <= CHUNK_BYTES_MAX:
                self._write(head + _data(whole) + encode(FrameType.END, STREAM))
                return
            self._write(head + _data(whole or b""))
            while part := await answer.read():
                self._write(_data(part))
                await self._can_write.wait()
            self._write(encode(FrameType.END, STREAM))
        finally:
            answer.close()

    def _refuse(self, error: ButterbaseError) -> None:
        status = problems.status_of(error, is_anonymous=False)
        self._write(
            encode(FrameType.RESET, STREAM, encode_struct(refusal_of(error, status=status)))
        )

    def _write(self, data: bytes) -> None:
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)


class _Request:
    """The body of a request, as it comes from a worker."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._parts: deque[bytes] = deque()
        self._held_bytes = 0
        self._waiter: asyncio.Future[None] | None = None
        self._is_ended = self._has_left = self._is_dropped = False

    def push(self, part: bytes) -> None:
        if self._is_dropped:
            return
        self._parts.append(part)
        self._held_bytes += len(part)
        if self._held_bytes > HELD_BYTES_MAX:
            self._transport.pause_reading()
        self._wake()

    def end(self) -> None:
        self._is_ended = True
        self._wake()

    def leave(self) -> None:
        self._has_left = True
        self._wake()

    def drop(self) -> None:
        """Nobody reads it any more."""
        self._is_dropped = True
        self._parts.clear()
        if not self._transport.is_closing():
            self._transport.resume_reading()

    def take_whole(self) -> bytes | None:
        """All of it, where it has come already."""
        if not self._is_ended:
            return None
        whole = b"".join(self._parts)
        self._parts.clear()
        return whole

    async def parts(self) -> AsyncIterator[bytes]:
        """Raises FunctionClientLeftError."""
        while True:
            while self._parts:
                part = self._parts.popleft()
                self._held_bytes -= len(part)
                if self._held_bytes <= HELD_BYTES_MAX and not self._transport.is_closing():
                    self._transport.resume_reading()
                yield part
            if self._has_left:
                raise FunctionClientLeftError
            if self._is_ended:
                return
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


def _data(part: bytes) -> bytes:
    return b"".join(
        encode(FrameType.DATA, STREAM, part[at : at + CHUNK_BYTES_MAX])
        for at in range(0, len(part), CHUNK_BYTES_MAX)
    )


def _bind(path: Path) -> socket.socket:
    """A listening socket for this user alone, in the place of one that a dead process left.

    Raises SettingError when a living one listens there.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        with contextlib.suppress(FileNotFoundError):
            if stat.S_ISSOCK(path.lstat().st_mode):
                _check_abandoned(path)
                path.unlink()
        before = os.umask(0o177)
        try:
            listener.bind(str(path))
        finally:
            os.umask(before)
        listener.setblocking(False)
    except OSError as error:
        listener.close()
        raise SettingError(f"cannot listen at {path}: {error}") from error
    except SettingError:
        listener.close()
        raise
    return listener


def _check_abandoned(path: Path) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return
    raise SettingError(f"another process serves functions at {path}")
