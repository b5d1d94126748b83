"""Requests to providers: short, bounded, and only to where an app may send us.

An app's administrator names the addresses, so unless the operator allows it none leads to this
machine or its network, and all are HTTPS.
"""

import asyncio
import functools
import logging
import ssl
from collections.abc import Mapping
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any

import aiohttp
import httpx
import msgspec
from httpx_aiohttp import AiohttpTransport

from butterbase.ai.providers.upstream import public_socket
from butterbase.api.auth.oauth.errors import ProviderUnreachableError

CONNECT_TIMEOUT_S = 5.0
TIMEOUT_S = 10.0
"""Of a whole answer: what comes byte by byte does not hold a browser for longer."""

ANSWER_BYTES_MAX = 512 * 1024
CONNECTION_COUNT_MAX = 50

_HEADERS = {"accept": "application/json", "user-agent": "butterbase"}

_log = logging.getLogger(__name__)


class ProviderHttp:
    """Follows no redirect, and keeps no cookie: it serves many apps."""

    def __init__(self, *, is_private_allowed: bool) -> None:
        self._is_private_allowed = is_private_allowed
        self._client = _client(is_private_allowed=is_private_allowed)

    @property
    def is_private_allowed(self) -> bool:
        return self._is_private_allowed

    async def close(self) -> None:
        await self._client.aclose()

    def check(self, url: str) -> None:
        """Raises ProviderUnreachableError for an address where nobody is to be sent."""
        scheme = url.partition("://")[0].lower()
        if scheme != "https" and not (self._is_private_allowed and scheme == "http"):
            raise ProviderUnreachableError("the provider's address is not https")

    async def get(self, url: str, *, headers: Mapping[str, str] = {}) -> Any:
        """The JSON there. Raises ProviderUnreachableError."""
        return _decode(url, *await self._ask("GET", url, headers, None))

    async def post(
        self, url: str, form: Mapping[str, str], *, headers: Mapping[str, str] = {}
    ) -> Any:
        """The JSON answered, also with a status of refusal. Raises ProviderUnreachableError."""
        status, body = await self._ask("POST", url, headers, form)
        return _decode(url, 200 if 400 <= status < 500 else status, body)

    async def post_json(
        self, url: str, body: bytes, *, headers: Mapping[str, str]
    ) -> tuple[int, bytes]:
        """Status and body of the answer. Raises ProviderUnreachableError."""
        return await self._ask("POST", url, headers, None, body)

    async def _ask(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str],
        form: Mapping[str, str] | None,
        content: bytes | None = None,
    ) -> tuple[int, bytes]:
        self.check(url)
        try:
            request = self._client.build_request(
                method, url, data=form, content=content, headers={**_HEADERS, **headers}
            )
            async with asyncio.timeout(TIMEOUT_S):
                response = await self._client.send(request, stream=True)
                try:
                    return response.status_code, await _read(response)
                finally:
                    await response.aclose()
        # ValueError and InvalidURL are of addresses that are none.
        except (httpx.HTTPError, httpx.InvalidURL, aiohttp.ClientError, OSError, ValueError) as e:
            _log.warning("provider at %s: %s: %s", _host(url), type(e).__name__, e)
            raise ProviderUnreachableError("the provider cannot be reached") from e


async def _read(response: httpx.Response) -> bytes:
    body = bytearray()
    async for chunk in response.aiter_bytes():
        body += chunk
        if len(body) > ANSWER_BYTES_MAX:
            raise ProviderUnreachableError("the provider's answer is too large")
    return bytes(body)


def _decode(url: str, status: int, body: bytes) -> Any:
    if status != 200:
        _log.warning("provider at %s: status %d", _host(url), status)
        raise ProviderUnreachableError(f"the provider answered with status {status}")
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        _log.warning("provider at %s: its answer is not JSON", _host(url))
        raise ProviderUnreachableError("the provider's answer is not JSON") from error


def _host(url: str) -> str:
    """For the log: a path or query may hold a secret."""
    return ascii(url.partition("://")[2].partition("/")[0][:100])


def _client(*, is_private_allowed: bool) -> httpx.AsyncClient:
    def session() -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=CONNECTION_COUNT_MAX,
            ssl=_tls(),
            socket_factory=None if is_private_allowed else public_socket,
        )
        return aiohttp.ClientSession(connector=connector, cookie_jar=aiohttp.DummyCookieJar())

    return httpx.AsyncClient(
        transport=AiohttpTransport(client=session, verify=_tls()),
        timeout=httpx.Timeout(TIMEOUT_S, connect=CONNECT_TIMEOUT_S),
        cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
        follow_redirects=False,
    )


@functools.cache
def _tls() -> ssl.SSLContext:
    # Reading the authorities takes longer than all else in here together.
    return httpx.create_ssl_context()
