"""Websockets and event streams of the realtime server leave the api's worker with their descriptor.

uvicorn calls the class given as `ws=` for each upgrade, and http.py for event streams. The request
goes with the socket's descriptor to the stream process, over a unix SEQPACKET socket; the worker's
own copy is closed, which the client does not notice. No frame is proxied, and fan-out costs the api
nothing.
https://man7.org/linux/man-pages/man7/unix.7.html
"""

import asyncio
import contextlib
import json
import logging
import re
import socket
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final, cast

logger = logging.getLogger(__name__)

_REALTIME: Final = re.compile(rb"(?:/v1/[^/?]+)?/realtime/")
_CHANGES: Final = re.compile(rb"(?:/v1/[^/?]+)?/realtime/v1/changes/?(?:\?.*)?")
_RETRY_AFTER_S: Final = 2
_ENDED_STREAM: Final = (
    b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nConnection: close\r\n"
    b"Access-Control-Allow-Origin: *\r\n\r\nretry: %d\n\n" % (_RETRY_AFTER_S * 1000)
)
_METHODS: Final = frozenset({b"GET", b"OPTIONS"})
_REQUEST_BYTES_MAX: Final = 64 * 1024  # of the receiver


class HandOverError(Exception):
    """The stream process did not take the socket. Inside this module only."""


class HandOverSocket:
    """The worker's connection to the stream process, made anew when that has restarted.

    Nothing here waits: a stream that does not read counts as one that is not there.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._peer: socket.socket | None = None

    def send(self, request: bytes, descriptor: int) -> None:
        """Raises HandOverError; the descriptor is still the caller's then."""
        try:
            if self._peer is not None and self._try(self._peer, request, descriptor):
                return
            peer = self._peer = self._connect()
            socket.send_fds(peer, [request], [descriptor])
        except OSError as error:
            raise HandOverError(str(error)) from error

    def close(self) -> None:
        if self._peer is not None:
            self._peer.close()
            self._peer = None

    def _try(self, peer: socket.socket, request: bytes, descriptor: int) -> bool:
        """Whether the peer took it; False when it is gone."""
        try:
            socket.send_fds(peer, [request], [descriptor])
        except (ConnectionError, BrokenPipeError):
            self.close()
            return False
        return True

    def _connect(self) -> socket.socket:
        peer = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            peer.setblocking(False)
            peer.connect(str(self._path))
        except OSError:
            peer.close()
            raise
        return peer


def is_event_stream(method: bytes, url: bytes) -> bool:
    """Whether a request is the stream process's, though it is no upgrade."""
    return method in _METHODS and _CHANGES.fullmatch(url) is not None


class HandOver(asyncio.Protocol):
    """uvicorn's websocket protocol; `hand_over_to` makes the class for a socket path."""

    peer: HandOverSocket

    def __init__(self, config: Any, server_state: Any, app_state: Any, _loop: Any = None) -> None:
        """Called by uvicorn."""
        self._transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports have the methods of asyncio's, and are none.
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Called once by uvicorn with the whole upgrade request, however it arrived.

        A client sends nothing more until it is answered (RFC 6455, section 4.1), and what it sends
        all the same stays in the kernel, since this process reads no more.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            return
        transport.pause_reading()
        _, _, rest = data.partition(b" ")
        if not _REALTIME.match(rest):
            self._refuse(transport, HTTPStatus.NOT_FOUND, "there is no websocket here")
        elif len(data) > _REQUEST_BYTES_MAX:
            status = HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE
            self._refuse(transport, status, "the request is too large")
        elif transport.get_extra_info("sslcontext") is not None:
            # The other process would see bytes that only this one can decrypt.
            status = HTTPStatus.NOT_IMPLEMENTED
            self._refuse(transport, status, "realtime needs TLS to end at a proxy")
        else:
            self._hand_over(transport, data)

    def _hand_over(self, transport: asyncio.Transport, request: bytes) -> None:
        descriptor = transport.get_extra_info("socket").fileno()
        try:
            self.peer.send(request, descriptor)
        except HandOverError as error:
            logger.warning("a socket could not be handed over: %s", error)
            method, target, _ = request.split(b" ", 2)
            if is_event_stream(method, target) and b"text/event-stream" in request:
                # A browser comes again after a stream that ended, not after an error.
                self._write(transport, _ENDED_STREAM)
            else:
                status = HTTPStatus.SERVICE_UNAVAILABLE
                self._refuse(transport, status, "realtime is not running; try again")
            return
        # Closes this process's descriptor alone; `close` would shut the connection down.
        transport.abort()

    def _refuse(self, transport: asyncio.Transport, status: HTTPStatus, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        head = [
            f"HTTP/1.1 {status.value} {status.phrase}",
            "Content-Type: application/json",
            f"Content-Length: {len(body)}",
            "Connection: close",
        ]
        if status is HTTPStatus.SERVICE_UNAVAILABLE:
            head.append(f"Retry-After: {_RETRY_AFTER_S}")
        self._write(transport, "\r\n".join([*head, "", ""]).encode() + body)

    def _write(self, transport: asyncio.Transport, answer: bytes) -> None:
        with contextlib.suppress(OSError):
            transport.write(answer)
        transport.close()

    def shutdown(self) -> None:
        """Called by uvicorn when it stops; there is never anything left."""


def hand_over_to(path: Path) -> type[HandOver]:
    """The class for uvicorn's `ws=` that hands websockets to the stream process at `path`."""
    return type("HandOver", (HandOver,), {"peer": HandOverSocket(path)})
