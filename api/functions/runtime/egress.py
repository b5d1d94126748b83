"""Requests of functions to the outside: carried by the host, which decides whom they may reach.

A function's process has no network. Each hop of a request is checked by name against the function's
allow-list, and by address when it is connected to: private, link-local and metadata addresses and
our own Postgres are never reached, whatever a name resolves to. The platform's own API always is.
"""

import errno
import functools
import ipaddress
import socket
import ssl
from collections.abc import Collection
from typing import Any, Final, TypeAlias

import aiohttp
import httpx
from msgspec import Struct
from multidict import CIMultiDict
from yarl import URL

from butterbase.ai.providers.upstream import public_socket
from butterbase.api.functions.runtime.egress_requests import (
    Body,
    EgressError,
    EgressRequest,
    Origin,
    becomes_get,
    exactly,
    for_api,
    headers_of,
    method_of,
    parse_url,
    redirected,
)
from butterbase.api.functions.runtime.hosts import AllowList
from butterbase.api.functions.runtime.resolving import Resolver, resolver_threads
from butterbase.api.functions.settings import FunctionsSettings

Address: TypeAlias = tuple[str, int]
"""IP, port."""

REDIRECT_COUNT_MAX: Final = 20
_KEEPALIVE_S: Final = 15.0
_HEADER_BYTES_MAX: Final = 64 * 1024

_OF_ORIGIN: Final = ("authorization", "cookie")
_DECODED: Final = frozenset({"gzip", "x-gzip", "deflate"})


class ApiUrls(Struct, frozen=True):
    """Where functions find the platform's API, and where it is for the host."""

    public: str
    internal: str


class EgressAnswer:
    def __init__(self, response: aiohttp.ClientResponse, url: URL, *, is_redirected: bool) -> None:
        self._response = response
        is_decoded = response.headers.get("content-encoding", "").lower() in _DECODED
        left_out = {"content-encoding", "content-length"} if is_decoded else set()
        self.head: dict[str, Any] = {
            "status": response.status,
            "status_text": _bytes_of(response.reason or ""),
            "headers": [
                (str(name), _bytes_of(value))
                for name, value in response.headers.items()
                if name.lower() not in left_out
            ],
            "url": str(url),
            "redirected": is_redirected,
        }

    async def read(self) -> bytes:
        """The next part; empty at the end. Raises EgressError."""
        try:
            return await self._response.content.readany()
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise EgressError("the answer was cut off") from error

    def close(self) -> None:
        self._response.close()


class Egress:
    """Connections for all functions; none is kept for another app's requests."""

    def __init__(
        self, settings: FunctionsSettings, api: ApiUrls, *, refused: Collection[Address] = ()
    ) -> None:
        """`refused` are addresses of our own, public or not."""
        self._settings = settings
        self._internal = URL(api.internal)
        self._api_origins = {URL(api.public).origin(), self._internal.origin()}
        self._refused = frozenset(refused)
        self._sessions: dict[tuple[str, bool], aiohttp.ClientSession] = {}
        self._threads = resolver_threads()

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def request(
        self, asked: EgressRequest, body: Body, allowed: AllowList, *, origin: Origin
    ) -> EgressAnswer:
        """Raises EgressError."""
        method, headers, url = method_of(asked), headers_of(asked), parse_url(asked.url)
        first = url
        for hop in range(REDIRECT_COUNT_MAX + 1):
            response = await self._ask(method, url, headers, body, asked.length, allowed, origin)
            location = response.headers.get("location")
            is_redirect = response.status in (301, 302, 303, 307, 308) and location is not None
            if not is_redirect or asked.redirect == "manual":
                return EgressAnswer(response, url, is_redirected=hop > 0)
            response.close()
            if asked.redirect == "error":
                raise EgressError(f"{url.host} answered with a redirect")
            assert location is not None
            url = redirected(url, location)
            if becomes_get(method, response.status):
                method, body = "GET", b""
                headers.pop("content-type", None)
            elif not isinstance(body, bytes):
                raise EgressError("a request with a streamed body cannot follow a redirect")
            if url.origin() != first.origin():
                for name in _OF_ORIGIN:
                    headers.popall(name, None)
        raise EgressError(f"more than {REDIRECT_COUNT_MAX} redirects")

    async def _ask(
        self,
        method: str,
        url: URL,
        headers: "CIMultiDict[str]",
        body: Body,
        length: int | None,
        allowed: AllowList,
        origin: Origin,
    ) -> aiohttp.ClientResponse:
        host, port = url.raw_host or "", url.port or 0
        is_api = url.origin() in self._api_origins
        if is_api:
            headers = for_api(headers, origin)
            headers["host"] = url.authority
            url = url.with_scheme(self._internal.scheme).with_host(self._internal.raw_host or "")
            url = url.with_port(self._internal.port)
        elif not allowed.covers(host, port):
            raise EgressError(
                f'Requires net access to "{url.authority}"; allow it in the function\'s'
                " permissions.net",
                is_permission=True,
            )
        sent: Any = body
        if not isinstance(body, bytes):
            headers = headers.copy()
            sent = exactly(body, length)
            if length is not None:
                headers["content-length"] = str(length)
        elif not body and method not in ("POST", "PUT", "PATCH"):
            sent = None
        try:
            return await self._session(origin.app_id, is_api=is_api).request(
                method, url, data=sent, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _fault(error, url) from error

    def _session(self, app_id: str, *, is_api: bool) -> aiohttp.ClientSession:
        session = self._sessions.get((app_id, is_api))
        if session is None:
            connector = aiohttp.TCPConnector(
                # Each process has a limit of its own; a common one would be taken by one app.
                limit=0,
                keepalive_timeout=_KEEPALIVE_S,
                ssl=_tls(),
                resolver=Resolver(self._threads),
                socket_factory=None if is_api else self._public_socket,
            )
            timeout = aiohttp.ClientTimeout(
                total=None,
                # With the name's resolution.
                connect=2 * self._settings.functions_egress_timeout_s,
                sock_connect=self._settings.functions_egress_timeout_s,
            )
            session = self._sessions[app_id, is_api] = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=timeout,
                headers={
                    "accept": "*/*",
                    "accept-encoding": "gzip, deflate",
                    "user-agent": "butterbase-functions",
                },
                skip_auto_headers=("content-type",),
                max_line_size=_HEADER_BYTES_MAX,
                max_field_size=_HEADER_BYTES_MAX,
            )
        return session

    def _public_socket(self, address: aiohttp.AddrInfoType) -> socket.socket:
        """Raises OSError."""
        host, port = str(address[4][0]).partition("%")[0], int(address[4][1])
        if (_plain(host), port) in self._refused:
            raise PermissionError(errno.EACCES, f"{host}:{port} is not for functions")
        return public_socket(address)


def _bytes_of(value: str) -> str:
    """As `fetch` tells what need be no UTF-8: each byte a character."""
    return value.encode("utf-8", "surrogateescape").decode("latin-1")


def _plain(host: str) -> str:
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _fault(error: Exception, url: URL) -> EgressError:
    os_error = getattr(error, "os_error", error)
    causes = getattr(os_error, "exceptions", [os_error])
    for cause in (error, *causes):
        if isinstance(cause, PermissionError):
            return EgressError(
                f"{url.host} leads to an address that functions may not reach", is_permission=True
            )
    if isinstance(error, TimeoutError):
        return EgressError(f"{url.host} did not answer in time")
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return EgressError(f"{url.host} has no address")
    if isinstance(error, ssl.SSLError | aiohttp.ClientSSLError):
        return EgressError(f"{url.host} has no certificate that is trusted")
    return EgressError(f"{url.host} cannot be reached")


@functools.cache
def _tls() -> ssl.SSLContext:
    # Reading the authorities takes longer than all else in here together.
    return httpx.create_ssl_context()
