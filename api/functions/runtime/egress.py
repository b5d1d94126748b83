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
from collections.abc import AsyncIterator, Collection
from typing import Any, Final, Literal, TypeAlias

import aiohttp
import httpx
from msgspec import Struct
from multidict import CIMultiDict
from yarl import URL

from butterbase.ai.providers.upstream import public_socket
from butterbase.api.functions.runtime.hosts import AllowList
from butterbase.api.functions.runtime.model import DEPTH_HEADER, FUNCTION_HEADER
from butterbase.api.functions.settings import FunctionsSettings

Address: TypeAlias = tuple[str, int]
"""IP, port."""
Body: TypeAlias = bytes | AsyncIterator[bytes]

REDIRECT_COUNT_MAX: Final = 20
_KEEPALIVE_S: Final = 15.0
_HEADER_BYTES_MAX: Final = 64 * 1024

# Of one connection, or what is ours to say. RFC 9110, 7.6.1.
_DROPPED: Final = frozenset(
    {
        *("connection", "keep-alive", "proxy-connection", "te", "trailer", "transfer-encoding"),
        *("upgrade", "host", "content-length", "expect", "accept-encoding", "proxy-authorization"),
        *(DEPTH_HEADER, FUNCTION_HEADER),
    }
)
# What the api believes of a proxy, as which the host would come to it.
_FORWARDED: Final = ("x-forwarded-", "forwarded", "x-real-ip", "x-original-")
_OF_ORIGIN: Final = ("authorization", "cookie")
_DECODED: Final = frozenset({"gzip", "x-gzip", "deflate"})


class EgressError(Exception):
    """Told to the function, as what `fetch` throws."""

    def __init__(self, message: str, *, is_permission: bool = False) -> None:
        super().__init__(message)
        self.message = message
        self.is_permission = is_permission


class EgressRequest(Struct, frozen=True):
    """As the function's process sends it."""

    call: int
    method: str
    url: str
    headers: list[tuple[str, str]]
    redirect: Literal["follow", "manual", "error"] = "follow"
    length: int | None = 0
    """Of the body, when it is known."""


class Origin(Struct, frozen=True):
    """Where a request comes from, as the platform's API is told."""

    depth: int = 0
    """How many functions it has come through before this one."""
    token: str | None = None
    """The function's own."""

    def __repr__(self) -> str:
        return f"Origin({self.depth})"


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
            "status_text": response.reason or "",
            "headers": [
                (str(name), value)
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
    """Connections for all functions."""

    def __init__(
        self, settings: FunctionsSettings, api: ApiUrls, *, refused: Collection[Address] = ()
    ) -> None:
        """`refused` are addresses of our own, public or not."""
        self._settings = settings
        self._internal = URL(api.internal)
        self._api_origins = {URL(api.public).origin(), self._internal.origin()}
        self._refused = frozenset(refused)
        self._sessions: dict[bool, aiohttp.ClientSession] = {}

    async def close(self) -> None:
        for session in self._sessions.values():
            await session.close()
        self._sessions.clear()

    async def request(
        self, asked: EgressRequest, body: Body, allowed: AllowList, *, origin: Origin
    ) -> EgressAnswer:
        """Raises EgressError."""
        method, headers, url = asked.method, _headers(asked.headers), _url(asked.url)
        asked_of = url
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
            url = _url(str(url.join(URL(location, encoded=True))))
            if _becomes_get(method, response.status):
                method, body = "GET", b""
                headers.pop("content-type", None)
            elif not isinstance(body, bytes):
                raise EgressError("a request with a streamed body cannot follow a redirect")
            if url.origin() != asked_of.origin():
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
            headers = _for_api(headers, origin)
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
            if length is not None:
                headers["content-length"] = str(length)
        elif not body and method not in ("POST", "PUT", "PATCH"):
            sent = None
        try:
            return await self._session(is_api=is_api).request(
                method, url, data=sent, headers=headers, allow_redirects=False
            )
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _fault(error, url) from error

    def _session(self, *, is_api: bool) -> aiohttp.ClientSession:
        session = self._sessions.get(is_api)
        if session is None:
            connector = aiohttp.TCPConnector(
                # Each process has a limit of its own; a common one would be taken by one app.
                limit=0,
                keepalive_timeout=_KEEPALIVE_S,
                ssl=_tls(),
                socket_factory=None if is_api else self._public_socket,
            )
            timeout = aiohttp.ClientTimeout(
                total=None, sock_connect=self._settings.functions_egress_timeout_s
            )
            session = self._sessions[is_api] = aiohttp.ClientSession(
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


def _plain(host: str) -> str:
    address = ipaddress.ip_address(host)
    mapped = getattr(address, "ipv4_mapped", None)
    return str(mapped or address)


def _url(text: str) -> URL:
    try:
        url = URL(text, encoded=True)
        if url.scheme in ("http", "https") and url.raw_host and url.port:
            return url.with_user(None).with_fragment(None)
    except ValueError:
        pass
    raise EgressError("only http and https URLs can be fetched")


def _headers(given: list[tuple[str, str]]) -> "CIMultiDict[str]":
    return CIMultiDict((name, value) for name, value in given if name.lower() not in _DROPPED)


def _for_api(headers: "CIMultiDict[str]", origin: Origin) -> "CIMultiDict[str]":
    own = CIMultiDict(
        (name, value) for name, value in headers.items() if not name.lower().startswith(_FORWARDED)
    )
    own[DEPTH_HEADER] = str(origin.depth + 1)
    if origin.token is not None:
        own[FUNCTION_HEADER] = origin.token
    return own


def _becomes_get(method: str, status: int) -> bool:
    """https://fetch.spec.whatwg.org/#http-redirect-fetch"""
    if status == 303:
        return method not in ("GET", "HEAD")
    return status in (301, 302) and method == "POST"


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
