"""Requests to providers: of what the client sent, only the body goes there.

aiohttp's connections are used directly: its own session costs a request more than twice as much,
and the API of httpx over that twice again.
"""

import asyncio
import errno
import functools
import ipaddress
import logging
import socket
import ssl
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import aiohttp
import httpx
from aiohttp.connector import Connection
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError

from butterbase.ai.errors import (
    UpstreamCutError,
    UpstreamError,
    UpstreamInvalidError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from butterbase.ai.providers.sending import Begun, Place, place_of, render_head, send
from butterbase.ai.settings import AiSettings

_ERROR_BYTES_MAX = 256 * 1024
_KEEPALIVE_S = 15.0
_DRAIN_TIMEOUT_S = 0.05
_PLACE_COUNT_MAX = 1000

# Identity: what is to be read on the way must not be unpacked first.
_HEADERS: Final = {
    "accept": "*/*",
    "accept-encoding": "identity",
    "user-agent": "butterbase",
    "content-type": "application/json",
}

_log = logging.getLogger(__name__)


class UpstreamAnswer:
    """A provider's answer from its headers on. Whoever has it reads it to its end or closes it."""

    def __init__(self, connection: Connection, begun: Begun, provider: str) -> None:
        message, self._body = begun
        self._connection: Connection | None = connection
        self._provider = provider
        self.status = message.code
        self.headers: Mapping[str, str] = message.headers
        self._body.on_eof(self._release)

    @property
    def is_event_stream(self) -> bool:
        content_type: str = self.headers.get("content-type", "")
        return content_type.lower().startswith("text/event-stream")

    async def read(self) -> bytes:
        """What has arrived, and what waits for it; empty at the end. Raises UpstreamError."""
        try:
            return await self._body.readany()
        except (aiohttp.ClientError, OSError) as error:
            raise _fault(error, self._provider, has_begun=True) from error

    async def read_whole(self, *, bytes_max: int) -> bytes:
        """Raises UpstreamError: UpstreamInvalidError when it is too large."""
        parts, size = [], 0
        while part := await self.read():
            parts.append(part)
            size += len(part)
            if size > bytes_max:
                self.close()
                raise UpstreamInvalidError("the AI provider's answer is too large")
        return parts[0] if len(parts) == 1 else b"".join(parts)

    async def read_error(self) -> bytes:
        """As much as may be told of an error; what fails is left out."""
        body = bytearray()
        with suppress(UpstreamError):
            while len(body) <= _ERROR_BYTES_MAX and (part := await self.read()):
                body += part
        self.close()
        return bytes(body)

    async def drain(self) -> None:
        """Read what follows a stream's end, which is that of the body: then the connection can be
        used again."""
        with suppress(TimeoutError, UpstreamError):
            if not self._body.at_eof():
                async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                    while await self.read():
                        pass
        self.close()

    def close(self) -> None:
        """Close the connection, unless the answer has come to its end; who still reads is told."""
        if not self._body.at_eof():
            self._body.set_exception(aiohttp.ClientConnectionError("the connection was closed"))
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _release(self) -> None:
        """For the next request."""
        connection, self._connection = self._connection, None
        if connection is None:
            return
        transport = connection.transport
        if transport is not None and transport.get_write_buffer_size():
            connection.close()  # it was answered before all of the request was sent
        else:
            connection.release()


class Upstream:
    """Connections to all providers."""

    def __init__(self, settings: AiSettings) -> None:
        self._settings = settings
        self._connectors: dict[bool, aiohttp.TCPConnector] = {}
        self._places: dict[str, Place] = {}

    async def close(self) -> None:
        for connector in self._connectors.values():
            await connector.close()
        self._connectors.clear()

    async def ask(
        self,
        url: str,
        body: bytes | None = None,
        *,
        headers: Mapping[str, str],
        provider: str,
        is_private_allowed: bool,
        connect_timeout_s: float | None = None,
    ) -> UpstreamAnswer:
        """The provider's answer, whatever its status. Raises UpstreamError.

        Nothing of the client's own headers goes to a provider. It is asked once: no redirect is
        followed, and no cookie kept, since the connections serve many apps.
        """
        connector = self._connector(is_private_allowed=is_private_allowed)
        limits = _timeout(connect_timeout_s or self._settings.ai_connect_timeout_s)
        byte_count = None if body is None else len(body)
        try:
            place = self._place(url)
            head = render_head(place, {**_HEADERS, **headers}, byte_count=byte_count)
            connection, begun = await _begin(connector, place, head, body, limits)
        except (aiohttp.ClientError, HttpProcessingError, OSError, ValueError) as error:
            raise _fault(error, provider, has_begun=False) from error
        return UpstreamAnswer(connection, begun, provider)

    def _connector(self, *, is_private_allowed: bool) -> aiohttp.TCPConnector:
        is_private_allowed |= bool(self._settings.ai_private_base_urls)
        connector = self._connectors.get(is_private_allowed)
        if connector is None:
            connector = self._connectors[is_private_allowed] = aiohttp.TCPConnector(
                limit=self._settings.ai_connection_count_max,
                keepalive_timeout=_KEEPALIVE_S,
                ssl=_tls(),
                socket_factory=None if is_private_allowed else public_socket,
            )
        return connector

    def _place(self, url: str) -> Place:
        """Raises ValueError."""
        place = self._places.get(url)
        if place is None:
            if len(self._places) >= _PLACE_COUNT_MAX:
                self._places.clear()
            place = self._places[url] = place_of(url)
        return place


async def _begin(
    connector: aiohttp.TCPConnector,
    place: Place,
    head: bytes,
    body: bytes | None,
    limits: aiohttp.ClientTimeout,
) -> tuple[Connection, Begun]:
    """Raises what connecting and sending raise."""
    connection = await connector.connect(place.address, [], limits)
    try:
        return connection, await send(connection, head, body or b"")
    except (aiohttp.ClientOSError, aiohttp.ServerDisconnectedError):
        if body is not None:
            raise
    # The server may have closed a connection that was kept, and asking changes nothing.
    connection = await connector.connect(place.address, [], limits)
    return connection, await send(connection, head, b"")


@functools.lru_cache(maxsize=100)
def _timeout(connect_s: float) -> aiohttp.ClientTimeout:
    # The rest of the time is the caller's to watch.
    return aiohttp.ClientTimeout(total=None, sock_connect=connect_s)


def _fault(error: Exception, provider: str, *, has_begun: bool) -> UpstreamError:
    _log.warning("provider %s: %s: %s", provider, type(error).__name__, error)
    if isinstance(error, TimeoutError):
        return UpstreamTimeoutError()
    if isinstance(error.__cause__, ContentEncodingError):
        return UpstreamInvalidError()
    if has_begun:
        return UpstreamCutError()
    return UpstreamUnreachableError(
        hint="check the base URL; an app's own may be in a private network only with"
        " BUTTERBASE_AI_PRIVATE_BASE_URLS"
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    # Reading the authorities takes longer than all else in here together.
    return httpx.create_ssl_context()


_TRANSLATING: Final = tuple(
    ipaddress.IPv6Network(text)
    for text in (
        "64:ff9b::/96",  # RFC 6052
        "64:ff9b:1::/48",  # RFC 8215
        "2002::/16",  # 6to4
        "2001::/32",  # Teredo
        "::/96",  # with an IPv4 address in it, RFC 4291, 2.5.5.1
        "::ffff:0:0:0/96",  # RFC 2765
        "fec0::/10",  # a site's own, RFC 3879
    )
)
"""Of no host, or of an IPv4 one that they lead to."""


def is_public(ip: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether it is one host's, of the internet."""
    if isinstance(ip, ipaddress.IPv6Address):
        if ip.ipv4_mapped is not None:
            return is_public(ip.ipv4_mapped)
        if any(ip in network for network in _TRANSLATING):
            return False
    return ip.is_global and not ip.is_multicast


def public_socket(address: aiohttp.AddrInfoType) -> socket.socket:
    """A socket for this address, unless it is a private one. Raises OSError.

    Asked for each address just before it is connected to, after names are resolved: a name
    cannot lead elsewhere afterwards.
    """
    family, kind, protocol, _, host = address
    ip = ipaddress.ip_address(str(host[0]).partition("%")[0])
    if not is_public(ip):
        raise PermissionError(errno.EACCES, f"{ip} is not a public address")
    return socket.socket(family, kind, protocol)
