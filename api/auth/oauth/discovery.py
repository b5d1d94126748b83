"""What providers say of themselves: their endpoints and keys, kept for a while.

https://openid.net/specs/openid-connect-discovery-1_0.html
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final, Generic, TypeVar

import msgspec
from msgspec import Struct

from butterbase.api.auth.oauth.errors import BadIdTokenError, ProviderUnreachableError
from butterbase.api.auth.oauth.http import ProviderHttp
from butterbase.api.auth.oauth.id_tokens import Header, find_key
from butterbase.api.auth.oauth.providers import ClientAuth, Provider

FRESH_S: Final = 3600.0
STALE_S: Final = 24 * 3600.0
"""While a provider cannot be reached, what it last said is good for so long."""

REFETCH_S: Final = 30.0
"""A token of an unknown key has the keys fetched anew, not more often than this."""

_KEPT_COUNT_MAX = 200

T = TypeVar("T")


class Metadata(Struct, frozen=True):
    """Of an OIDC provider."""

    issuer: str
    jwks_uri: str
    authorization_endpoint: str | None = None
    token_endpoint: str | None = None
    userinfo_endpoint: str | None = None
    token_endpoint_auth_methods_supported: tuple[str, ...] = ("client_secret_basic",)
    authorization_response_iss_parameter_supported: bool = False

    @property
    def client_auth(self) -> ClientAuth:
        offered = self.token_endpoint_auth_methods_supported
        return "post" if "client_secret_basic" not in offered else "basic"


class _Kept(Struct, Generic[T]):
    value: T
    fetched_at_s: float


class _Cache(Generic[T]):
    """Values by address, fetched by one at a time; the least recently used go first."""

    def __init__(self, fetch: Callable[[str], Awaitable[T]], clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._clock = clock
        self._kept: OrderedDict[str, _Kept[T]] = OrderedDict()
        self._fetching: dict[str, asyncio.Lock] = {}

    async def get(self, url: str, *, fresh_s: float = FRESH_S) -> T:
        """Not older than `fresh_s`, or STALE_S where it cannot be had anew."""
        lock = self._fetching.setdefault(url, asyncio.Lock())
        try:
            async with lock:
                kept = self._kept.get(url)
                if kept is not None and self._clock() - kept.fetched_at_s < fresh_s:
                    self._kept.move_to_end(url)
                    return kept.value
                return await self._renew(url, kept)
        finally:
            if not lock.locked():
                self._fetching.pop(url, None)

    async def _renew(self, url: str, kept: _Kept[T] | None) -> T:
        now_s = self._clock()
        try:
            value = await self._fetch(url)
        except ProviderUnreachableError:
            if kept is None or now_s - kept.fetched_at_s >= STALE_S:
                raise
            return kept.value
        self._kept[url] = _Kept(value, now_s)
        self._kept.move_to_end(url)
        if len(self._kept) > _KEPT_COUNT_MAX:
            self._kept.popitem(last=False)
        return value


class Discovery:
    """A worker's: what a provider says is the same for all apps."""

    def __init__(self, http: ProviderHttp, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._http = http
        self._metadata = _Cache(self._fetch_metadata, clock)
        self._keys = _Cache(self._fetch_keys, clock)

    async def metadata(self, provider: Provider) -> Metadata:
        """Raises ProviderUnreachableError."""
        assert provider.issuer is not None
        url = f"{provider.issuer.rstrip('/')}/.well-known/openid-configuration"
        metadata = await self._metadata.get(url)
        # Section 4.3: else one provider could speak for another.
        if not provider.accepts_issuer(metadata.issuer):
            raise ProviderUnreachableError("the provider's discovery is of another issuer")
        return metadata

    async def key(self, jwks_uri: str, header: Header) -> Mapping[str, Any]:
        """The provider's key of that token. Raises BadIdTokenError, ProviderUnreachableError."""
        key = find_key(header, await self._keys.get(jwks_uri))
        if key is None:
            key = find_key(header, await self._keys.get(jwks_uri, fresh_s=REFETCH_S))
        if key is None:
            raise BadIdTokenError("Bad ID token: the provider has no such key")
        return key

    async def _fetch_metadata(self, url: str) -> Metadata:
        try:
            return msgspec.convert(await self._http.get(url), Metadata)
        except msgspec.ValidationError as error:
            raise ProviderUnreachableError("the provider's discovery cannot be read") from error

    async def _fetch_keys(self, url: str) -> Sequence[Mapping[str, Any]]:
        answer = await self._http.get(url)
        keys = answer.get("keys") if isinstance(answer, dict) else None
        if not isinstance(keys, list):
            raise ProviderUnreachableError("the provider's keys cannot be read")
        return [key for key in keys if isinstance(key, dict)]
