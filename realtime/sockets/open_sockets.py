"""The sockets that are open, whatever is spoken on them."""

import asyncio
from collections.abc import Callable, Iterator
from typing import Final, Protocol

from butterbase.realtime.session.protocol import Closing
from butterbase.realtime.sockets.deflate import Deflater
from butterbase.realtime.sockets.performer import AppRealtime

Apps = Callable[[str], AppRealtime | None]
"""The app of an id; None where there is none."""

CORKED_BYTES_MAX: Final = 64 * 1024
"""Of what waits to be written together to a socket."""

REASONS: Final[dict[Closing, str]] = {
    Closing.IDLE: "no heartbeat",
    Closing.RESTART: "the server restarts",
    Closing.OVERLOADED: "too far behind",
    Closing.FAILED: "the server failed",
    Closing.INVALID_TEXT: "a text frame is not UTF-8",
    Closing.SESSION_ENDED: "the session has ended",
    Closing.TOO_MANY_JOINS: "too many joins",
}


class Socket(Protocol):
    @property
    def app(self) -> AppRealtime | None:
        """None before the request was read."""
        ...

    def close(self, code: Closing) -> None: ...

    def uncork(self) -> None:
        """Write what was sent."""
        ...


class Connections:
    """The sockets that are open."""

    def __init__(self) -> None:
        self._open: set[Socket] = set()
        self.frames_sent = 0
        """Since the beginning, to all of them."""
        self.frames_dropped = 0
        """Not sent, since their socket was closing."""
        self.deflater = Deflater()
        """For the frames of all of them."""
        self._corked: list[Socket] = []
        self._is_empty = asyncio.Event()
        self._is_empty.set()

    def __len__(self) -> int:
        return len(self._open)

    def __iter__(self) -> Iterator[Socket]:
        return iter(list(self._open))

    def add(self, connection: Socket) -> None:
        self._open.add(connection)
        self._is_empty.clear()

    def discard(self, connection: Socket) -> None:
        self._open.discard(connection)
        if not self._open:
            self._is_empty.set()

    async def wait_empty(self) -> None:
        await self._is_empty.wait()

    def cork(self, connection: Socket) -> None:
        """Uncork it once the event loop has come round."""
        if not self._corked:
            asyncio.get_running_loop().call_soon(self._uncork)
        self._corked.append(connection)

    def _uncork(self) -> None:
        corked, self._corked = self._corked, []
        for connection in corked:
            connection.uncork()
