"""Requests to providers: of what the client sent, only the body goes there.

aiohttp is asked directly: the API of httpx over it costs a request twice as much.
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
from aiohttp.http_exceptions import ContentEncodingError
from yarl import URL

from butterbase.ai.errors import (
    UpstreamCutError,
    UpstreamError,
    UpstreamInvalidError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from butterbase.ai.settings import AiSettings

_ERROR_BYTES_MAX = 256 * 1024
_KEEPALIVE_S = 15.0
_DRAIN_TIMEOUT_S = 0.05

_log = logging.getLogger(__name__)


class UpstreamAnswer:
    """A provider's answer from its headers on. Whoever has it reads it to its end or closes it."""

    def __init__(self, response: aiohttp.ClientResponse, provider: str) -> None:
        self._response = response
        self._provider = provider
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers

    @property
    def is_event_stream(self) -> bool:
        content_type: str = self.headers.get("content-type", "")
        return content_type.lower().startswith("text/event-stream")

    async def read(self) -> bytes:
        """What has arrived, and what waits for it; empty at the end. Raises UpstreamError."""
        try:
            return await self._response.content.readany()
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
            if not self._response.content.at_eof():
                async with asyncio.timeout(_DRAIN_TIMEOUT_S):
                    while await self.read():
                        pass
        self.close()

    def close(self) -> None:
        """Close the connection, unless the answer was read to its end."""
        self._response.close()


class Upstream:
    """Connections to all providers."""

    def __init__(self, settings: AiSettings) -> None:
        self._settings = settings
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

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
        session = self._session(is_private_allowed=is_private_allowed)
        timeout_s = connect_timeout_s or self._settings.ai_connect_timeout_s
        try:
            response = await session.request(
                "GET" if body is None else "POST",
                _url(url),
                data=body,
                headers=headers,
                allow_redirects=False,
                timeout=_timeout(timeout_s),
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _fault(error, provider, has_begun=False) from error
        return UpstreamAnswer(response, provider)

    def _session(self, *, is_private_allowed: bool) -> aiohttp.ClientSession:
        is_private_allowed |= bool(self._settings.ai_private_base_urls)
        session = self._sessions.get(is_private_allowed)
        if session is None:
            connector = aiohttp.TCPConnector(
                limit=self._settings.ai_connection_count_max,
                keepalive_timeout=_KEEPALIVE_S,
                ssl=_tls(),
                socket_factory=None if is_private_allowed else public_socket,
            )
            session = self._sessions[is_private_allowed] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                # Identity: what is to be read on the way must not be unpacked first.
                headers={
                    "accept": "*/*",
                    "accept-encoding": "identity",
                    "user-agent": "butterbase",
                    "content-type": "application/json",
                },
            )
        return session


@functools.lru_cache(maxsize=1000)
def _url(text: str) -> URL:
    return URL(text, encoded=True)


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
