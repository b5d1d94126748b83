"""A socket until its first line tells what it is for: a websocket, or an event stream."""

import asyncio
from typing import cast

from butterbase.realtime.session.protocol import Closing
from butterbase.realtime.settings import RealtimeSettings
from butterbase.realtime.sockets.connection import Connection
from butterbase.realtime.sockets.event_connection import EventConnection
from butterbase.realtime.sockets.event_stream import is_for_changes
from butterbase.realtime.sockets.open_sockets import Apps, Connections
from butterbase.realtime.sockets.performer import AppRealtime


class Reception(asyncio.Protocol):
    def __init__(
        self,
        apps: Apps,
        settings: RealtimeSettings,
        connections: Connections,
        *,
        received: bytes = b"",
    ) -> None:
        """`received` was read from the socket before, by whoever hands it over."""
        self._apps = apps
        self._settings = settings
        self._connections = connections
        self._received = received
        self._transport: asyncio.Transport | None = None
        self._timer: asyncio.TimerHandle | None = None

    @property
    def app(self) -> AppRealtime | None:
        return None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's, and are none.
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        wait_s = self._settings.handshake_timeout_s
        self._timer = asyncio.get_running_loop().call_later(wait_s, self._transport.abort)
        if self._received:
            self.data_received(b"")

    def data_received(self, data: bytes) -> None:
        self._received += data
        if b"\n" in self._received or len(self._received) > self._settings.request_bytes_max:
            self._pass_on(self._received.partition(b"\r\n")[0])

    def connection_lost(self, exc: Exception | None) -> None:
        self._leave()

    def close(self, code: Closing) -> None:
        if self._transport is not None:
            self._transport.abort()

    def uncork(self) -> None:
        """Nothing is ever sent."""

    def _pass_on(self, line: bytes) -> None:
        assert self._transport is not None
        kind = EventConnection if is_for_changes(line) else Connection
        protocol = kind(self._apps, self._settings, self._connections, received=self._received)
        self._transport.set_protocol(protocol)
        protocol.connection_made(self._transport)
        self._leave()

    def _leave(self) -> None:
        self._connections.discard(self)
        if self._timer is not None:
            self._timer.cancel()
