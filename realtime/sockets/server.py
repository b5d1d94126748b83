"""The realtime server: sockets of its own port, and sockets handed over by the api's workers."""

import asyncio
import contextlib
import errno
import logging
import os
import socket
import stat
from pathlib import Path
from typing import Final

from butterbase.realtime.session.protocol import Closing
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.sockets.open_sockets import Apps, Connections
from butterbase.realtime.sockets.performer import AppRealtime
from butterbase.realtime.sockets.reception import Reception
from butterbase.sql.errors import SettingError

logger = logging.getLogger(__name__)

_BACKLOG: Final = 128
_DESCRIPTOR_BYTES: Final = 4


class RealtimeServer:
    """Serves websockets until closed. It does not own the apps' hubs."""

    def __init__(self, apps: Apps, settings: RealtimeSettings | None = None) -> None:
        self._apps = apps
        self._settings = settings or RealtimeSettings()
        self._connections = Connections()
        self._listeners: list[asyncio.Server] = []
        self._hand_overs: list[_HandOverListener] = []
        self._adoptions: set[asyncio.Task[None]] = set()

    @property
    def connection_count(self) -> int:
        return len(self._connections)

    @property
    def frames_sent(self) -> int:
        return self._connections.frames_sent

    @property
    def frames_dropped(self) -> int:
        """Meant for sockets that were closing."""
        return self._connections.frames_dropped

    async def listen(self, host: str, port: int) -> int:
        """Accept websockets at a port, 0 for any; answers the port. Raises SettingError."""
        loop = asyncio.get_running_loop()
        try:
            server = await loop.create_server(self._connection, host, port)
        except OSError as error:
            raise SettingError(f"cannot listen on {host}:{port}: {error}") from error
        self._listeners.append(server)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    def listen_hand_over(self, path: Path) -> None:
        """Accept websockets from the api's workers at a unix socket. Raises SettingError."""
        self._hand_overs.append(_HandOverListener(path, self))

    def adopt(self, client: socket.socket, request: bytes) -> None:
        """Go on with a socket whose upgrade request was read by another process."""
        task = asyncio.get_running_loop().create_task(self._adopt(client, request))
        self._adoptions.add(task)
        task.add_done_callback(self._adoptions.discard)

    def close_app(self, app: AppRealtime) -> None:
        """Tell the app's clients to come back later."""
        for connection in self._connections:
            if connection.app is app:
                connection.close(Closing.RESTART)

    async def close(self) -> None:
        """Stop accepting and tell every client to come back later."""
        for hand_over in self._hand_overs:
            hand_over.close()
        for listener in self._listeners:
            listener.close()
        if self._adoptions:
            await asyncio.wait(self._adoptions)
        for connection in self._connections:
            connection.close(Closing.RESTART)
        # Each cuts itself off after close_timeout_s.
        await self._connections.wait_empty()

    @property
    def request_bytes_max(self) -> int:
        return self._settings.request_bytes_max

    def _connection(self, received: bytes = b"") -> Reception:
        return Reception(self._apps, self._settings, self._connections, received=received)

    async def _adopt(self, client: socket.socket, request: bytes) -> None:
        loop = asyncio.get_running_loop()
        try:
            client.setblocking(False)
            if client.family != socket.AF_UNIX:
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            await loop.connect_accepted_socket(lambda: self._connection(request), client)
        except OSError as error:
            logger.debug("a socket was gone when it was handed over: %s", error)
            client.close()


class _HandOverListener:
    """A SEQPACKET socket: each message is an upgrade request with its client's descriptor.

    https://man7.org/linux/man-pages/man7/unix.7.html
    """

    def __init__(self, path: Path, server: RealtimeServer) -> None:
        self._path = path
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._workers: set[socket.socket] = set()
        self._socket = _bind(path)
        self._loop.add_reader(self._socket, self._accept)

    def close(self) -> None:
        self._loop.remove_reader(self._socket)
        self._socket.close()
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        for worker in list(self._workers):
            # What a worker has sent already is still served, to be told that we restart.
            while self._receive(worker):
                pass
            self._hang_up(worker)

    def _accept(self) -> None:
        try:
            worker, _ = self._socket.accept()
        except (BlockingIOError, ConnectionError):
            return
        worker.setblocking(False)
        self._workers.add(worker)
        self._loop.add_reader(worker, self._receive, worker)

    def _receive(self, worker: socket.socket) -> bool:
        """Take one message; whether there was one."""
        try:
            request, ancillary, flags, _ = worker.recvmsg(
                self._server.request_bytes_max,
                socket.CMSG_SPACE(_DESCRIPTOR_BYTES),
                socket.MSG_CMSG_CLOEXEC,
            )
        except BlockingIOError:
            return False
        except OSError:
            self._hang_up(worker)
            return False
        if not request and not ancillary:
            self._hang_up(worker)
            return False
        # Several may fit: the kernel rounds the space up, and each that came must be closed.
        clients = [
            socket.socket(fileno=descriptor)
            for level, kind, data in ancillary
            if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS
            for descriptor in memoryview(data).cast("i")
        ]
        if len(clients) != 1 or flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
            logger.error("a hand-over is not one request with one socket: refused")
            for client in clients:
                client.close()
        else:
            self._server.adopt(clients[0], request)
        return True

    def _hang_up(self, worker: socket.socket) -> None:
        if worker in self._workers:
            self._workers.discard(worker)
            self._loop.remove_reader(worker)
            worker.close()


def _bind(path: Path) -> socket.socket:
    """A listening socket that only our own user can connect to. Raises SettingError."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    listener.setblocking(False)
    # Made with its rights: between a bind and a chmod anybody could connect.
    mask = os.umask(0o177)
    try:
        _remove_stale(path)
        listener.bind(str(path))
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise SettingError(f"cannot listen at {path}: {error}") from error
    finally:
        os.umask(mask)
    return listener


def _remove_stale(path: Path) -> None:
    """Remove the socket of a process that is gone. Raises OSError where one still listens."""
    try:
        mode = path.stat().st_mode
    except FileNotFoundError:
        return
    if not stat.S_ISSOCK(mode):
        raise OSError(errno.EEXIST, "the path is in use by a file")
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as probe:
        probe.setblocking(False)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink()
            return
    raise OSError(errno.EADDRINUSE, "another process listens there")
