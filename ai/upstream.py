"""Requests to providers: of what the client sent, only the body goes there."""

import errno
import functools
import ipaddress
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Final

import aiohttp
import httpx
from httpx_aiohttp import AiohttpTransport

from butterbase.ai.errors import (
    UpstreamCutError,
    UpstreamError,
    UpstreamInvalidError,
    UpstreamRefusedError,
    UpstreamTimeoutError,
    UpstreamUnreachableError,
)
from butterbase.ai.providers import Route, refusal
from butterbase.ai.settings import AiSettings

RETRY_HEADERS = ("retry-after", "retry-after-ms")
"""Headers of a refusal that are passed on."""

_ERROR_BYTES_MAX = 256 * 1024
_KEEPALIVE_S = 15.0

_log = logging.getLogger(__name__)


class Upstream:
    """Connections to all providers."""

    def __init__(self, settings: AiSettings) -> None:
        self._operators = _client(settings, is_private_allowed=True)
        self._apps = _client(settings, is_private_allowed=bool(settings.ai_private_base_urls))

    async def close(self) -> None:
        await self._operators.aclose()
        await self._apps.aclose()

    @asynccontextmanager
    async def ask(
        self, route: Route, path: str, body: bytes | None = None
    ) -> AsyncIterator[httpx.Response]:
        """The provider's answer from its headers on. Raises UpstreamError.

        Nothing of the client's own headers goes to a provider.
        """
        # Identity: what is to be read on the way must not be unpacked first.
        headers = {"accept-encoding": "identity", "user-agent": "butterbase"}
        if route.api_key is not None:
            headers["authorization"] = f"Bearer {route.api_key}"
        if body is not None:
            headers["content-type"] = "application/json"
        client = self._operators if route.is_operators else self._apps
        url = f"{route.base_url}/{path}"
        request = client.build_request(
            "GET" if body is None else "POST", url, content=body, headers=headers
        )
        response: httpx.Response | None = None
        try:
            response = await client.send(request, stream=True)
            if not response.is_success:
                raise await _refusal(response)
            yield response
        except (httpx.HTTPError, aiohttp.ClientError) as error:
            _log.warning("provider %s: %s: %s", route.provider, type(error).__name__, error)
            raise _fault(error, has_begun=response is not None) from error
        finally:
            if response is not None:
                await response.aclose()


async def read_whole(response: httpx.Response, *, bytes_max: int) -> bytes:
    """A whole answer. Raises UpstreamInvalidError when it is too large."""
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > bytes_max:
            raise UpstreamInvalidError("the AI provider's answer is too large")
    return bytes(body)


def is_event_stream(response: httpx.Response) -> bool:
    content_type: str = response.headers.get("content-type", "")
    return content_type.lower().startswith("text/event-stream")


async def _refusal(response: httpx.Response) -> UpstreamRefusedError:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > _ERROR_BYTES_MAX:
            break
    headers = {name: response.headers[name] for name in RETRY_HEADERS if name in response.headers}
    return refusal(response.status_code, bytes(body), headers)


def _fault(error: Exception, *, has_begun: bool) -> UpstreamError:
    # The transport calls some closed connections a timeout; the cause is what it was.
    if isinstance(error.__cause__ or error, TimeoutError):
        return UpstreamTimeoutError()
    if has_begun:
        return UpstreamCutError()
    return UpstreamUnreachableError(
        hint="check the base URL; an app's own may be in a private network only with"
        " BUTTERBASE_AI_PRIVATE_BASE_URLS"
    )


def _client(settings: AiSettings, *, is_private_allowed: bool) -> httpx.AsyncClient:
    """A client that follows no redirect and keeps no cookie: it serves many apps."""

    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=settings.ai_connection_count_max,
            keepalive_timeout=_KEEPALIVE_S,
            ssl=_tls(),
            socket_factory=None if is_private_allowed else public_socket,
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=session, verify=_tls()),
        timeout=httpx.Timeout(None, connect=settings.ai_connect_timeout_s),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
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
