"""What a URL leads to, of the public internet alone, as far as is allowed.

The address is judged that is connected to, after names are resolved, for the first URL and each
that it is redirected to; so neither a name nor a redirect leads into a private network.
https://cheatsheetseries.owasp.org/cheatsheets/Server_Side_Request_Forgery_Prevention_Cheat_Sheet.html
"""

import asyncio
import errno
import functools
import ipaddress
import logging
import socket
import ssl
import zlib
from collections.abc import Iterator
from email.message import Message
from typing import Final
from urllib.parse import unquote

import aiohttp
import httpx
from msgspec import Struct
from yarl import URL

from butterbase.ai.documents.errors import (
    DocumentTooLargeError,
    FetchFailedError,
    FetchRefusedError,
)
from butterbase.ai.providers.upstream import is_public, public_socket

logger = logging.getLogger(__name__)

REDIRECT_COUNT_MAX: Final = 5
PIECE_BYTES: Final = 64 * 1024
_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_TRANSIENT: Final = frozenset({408, 425, 429})
_SCHEMES: Final = ("http", "https")
_HEADERS: Final = {
    "accept": "text/html, application/pdf, text/markdown, text/plain;q=0.9, */*;q=0.5",
    "accept-encoding": "gzip, deflate",
    "user-agent": "butterbase",
}


class Fetched(Struct, frozen=True):
    data: bytes
    content_type: str
    file_name: str
    """Empty where neither the server nor the URL has one."""


def check_url(text: str) -> URL:
    """Raises FetchRefusedError for what is no absolute HTTP URL of a host, without credentials."""
    try:
        url = URL(text)
        host, port = url.host, url.port
    except ValueError as error:
        raise FetchRefusedError("the URL cannot be read") from error
    if url.scheme not in _SCHEMES or not host or port is None:
        raise FetchRefusedError("the URL must begin with https:// or http:// and name a host")
    if url.user is not None or url.password is not None:
        raise FetchRefusedError("the URL must not have a user or a password in it")
    if any(not c.isprintable() for c in text):
        raise FetchRefusedError("the URL cannot be read")
    return url.with_fragment(None)


def check_address(url: URL) -> None:
    """Raises FetchRefusedError for what is a private address as it stands, however it is written.

    So much can be told at once. What a name leads to is judged when it is connected to.
    """
    host = (url.host or "").partition("%")[0].rstrip(".").lower()
    if host == "localhost" or host.endswith(".localhost"):
        raise _not_public()
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        try:
            address = ipaddress.IPv4Address(socket.inet_aton(host))  # 0x7f.1, 2130706433
        except (OSError, ValueError):
            return
    if not is_public(address):
        raise _not_public()


class Fetcher:
    """Without a state but open connections; nothing is kept from one URL for another."""

    def __init__(
        self, *, bytes_max: int, timeout_s: float, is_private_allowed: bool = False
    ) -> None:
        self._bytes_max = bytes_max
        self._timeout_s = timeout_s
        self._is_private_allowed = is_private_allowed

    async def fetch(self, text: str) -> Fetched:
        """Raises FetchRefusedError, FetchFailedError, DocumentTooLargeError."""
        url = check_url(text)
        # A connector for each: a connection that is kept would be used without asking again.
        connector = aiohttp.TCPConnector(
            force_close=True,
            ssl=_tls(),
            socket_factory=None if self._is_private_allowed else public_socket,
        )
        try:
            async with (
                asyncio.timeout(self._timeout_s),
                aiohttp.ClientSession(
                    connector=connector,
                    cookie_jar=aiohttp.DummyCookieJar(),
                    headers=_HEADERS,
                    auto_decompress=False,  # which would unpack without bound
                    timeout=aiohttp.ClientTimeout(total=None),
                    trust_env=False,
                ) as session,
            ):
                return await self._follow(session, url)
        except TimeoutError as error:
            raise FetchFailedError(f"it took longer than {self._timeout_s:g} seconds") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise _fault(error) from error

    async def _follow(self, session: aiohttp.ClientSession, url: URL) -> Fetched:
        for _ in range(REDIRECT_COUNT_MAX + 1):
            async with session.get(url, allow_redirects=False) as response:
                if response.status not in _REDIRECTS:
                    return await self._read(response)
                url = _redirected(url, response.headers.get("location", ""))
        raise FetchRefusedError(f"it redirects more than {REDIRECT_COUNT_MAX} times")

    async def _read(self, response: aiohttp.ClientResponse) -> Fetched:
        _check_status(response.status)
        if (response.content_length or 0) > self._bytes_max:
            raise self._too_large()
        unpack = _unpacker(response.headers.get("content-encoding", ""))
        data = bytearray()
        async for piece in response.content.iter_chunked(PIECE_BYTES):
            for part in unpack(piece):
                data += part
                if len(data) > self._bytes_max:
                    raise self._too_large()
        return Fetched(
            bytes(data), response.headers.get("content-type", "")[:255], _file_name(response)
        )

    def _too_large(self) -> DocumentTooLargeError:
        return DocumentTooLargeError(
            f"what the URL leads to is larger than {self._bytes_max} bytes"
        )


@functools.cache
def _tls() -> ssl.SSLContext:
    return httpx.create_ssl_context()


def _redirected(url: URL, location: str) -> URL:
    """Raises FetchRefusedError."""
    if not location:
        raise FetchRefusedError("it redirects to nowhere")
    target = check_url(str(url.join(URL(location))))
    if url.scheme == "https" and target.scheme != "https":
        raise FetchRefusedError("it redirects from https to http")
    return target


def _check_status(status: int) -> None:
    if 200 <= status < 300:
        return
    if status >= 500 or status in _TRANSIENT:
        raise FetchFailedError(f"the server answered {status}")
    raise FetchRefusedError(f"the server answered {status}")


class _Unpacker:
    def __init__(self, window_bits: int) -> None:
        self._stream = zlib.decompressobj(window_bits)

    def __call__(self, piece: bytes) -> Iterator[bytes]:
        """In pieces: one of these can hold a thousand times its size. Raises FetchRefusedError."""
        try:
            while piece:
                yield self._stream.decompress(piece, PIECE_BYTES)
                piece = self._stream.unconsumed_tail
        except zlib.error as error:
            raise FetchRefusedError("the answer's compression is broken") from error


class _AsItIs:
    def __call__(self, piece: bytes) -> Iterator[bytes]:
        yield piece


def _unpacker(encoding: str) -> _Unpacker | _AsItIs:
    match encoding.strip().lower():
        case "" | "identity":
            return _AsItIs()
        case "gzip" | "x-gzip" | "deflate":
            return _Unpacker(zlib.MAX_WBITS | 32)  # of either head
        case other:
            raise FetchRefusedError(f"the answer is compressed with {other[:40]!r}")


def _file_name(response: aiohttp.ClientResponse) -> str:
    message = Message()
    message["content-disposition"] = response.headers.get("content-disposition", "")
    given = message.get_filename() or unquote(response.url.path).rpartition("/")[2]
    return "".join(c for c in given.replace("\\", "/").rpartition("/")[2] if c.isprintable())[:255]


def _fault(error: Exception) -> FetchRefusedError | FetchFailedError:
    """Without an address: who sends URLs must not learn from us what a private network has."""
    os_error = getattr(error, "os_error", error)
    numbers = {getattr(one, "errno", None) for one in _causes(os_error)}
    if errno.EACCES in numbers:
        return _not_public()
    logger.info("a URL was not fetched: %s", type(error).__name__)
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return FetchFailedError("the URL's host has no address")
    if isinstance(error, aiohttp.ClientSSLError):
        return FetchFailedError("the server's certificate is not accepted")
    return FetchFailedError("the server cannot be reached, or broke off")


def _not_public() -> FetchRefusedError:
    return FetchRefusedError(
        "the URL leads to an address that is not public",
        hint="the operator can allow private networks with documents_private_urls",
    )


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    seen = 0
    while error is not None and seen < 10:
        yield error
        yield from getattr(error, "exceptions", ())
        error, seen = error.__cause__ or error.__context__, seen + 1
