"""PyPI's `supabase_auth`: its two clients have the same methods, one set of them is awaited."""

import inspect
from collections.abc import Awaitable
from typing import Any

import pytest
from supabase_auth import (
    AsyncGoTrueAdminAPI,
    AsyncGoTrueClient,
    SyncGoTrueAdminAPI,
    SyncGoTrueClient,
)
from supabase_auth.errors import AuthApiError

from tests.clients.auth import ANA, PASSWORD, Auth

CLIENTS = {
    "sync": (SyncGoTrueClient, SyncGoTrueAdminAPI),
    "async": (AsyncGoTrueClient, AsyncGoTrueAdminAPI),
}

# The certificates of the world take 30 ms to read, and nothing here is HTTPS.
_OPTIONS: dict[str, Any] = {"verify": False}


class Client:
    """Either client: all methods are awaited."""

    def __init__(self, client: Any) -> None:
        self._client = client

    def __getattr__(self, name: str) -> Any:
        member = getattr(self._client, name)
        if not callable(member):
            return Client(member)  # `mfa`, `admin`

        async def call(*arguments: Any, **named: Any) -> Any:
            answer = member(*arguments, **named)
            return await answer if inspect.isawaitable(answer) else answer

        return call


class Clients:
    """Makes clients of one of the two kinds, and closes them."""

    def __init__(self, auth: Auth, kind: str) -> None:
        self._auth = auth
        self._client, self._admin = CLIENTS[kind]
        self._made: list[Client] = []

    def new(self, **options: Any) -> Client:
        """Of somebody at another device."""
        headers = {"apikey": self._auth.library.keys.anon}
        options = {**_OPTIONS, "auto_refresh_token": False, **options}
        return self._keep(self._client(url=self._auth.url, headers=headers, **options))

    def admin(self, key: str | None = None) -> Client:
        key = key or self._auth.library.keys.service_role
        headers = {"apikey": key, "Authorization": f"Bearer {key}"}
        return self._keep(self._admin(url=self._auth.url, headers=headers, **_OPTIONS))

    async def member(self) -> Client:
        """Ana, who has just signed up."""
        client = self.new()
        await client.sign_up({"email": ANA, "password": PASSWORD})
        code = self._auth.mail(ANA).code
        await client.verify_otp({"type": "signup", "email": ANA, "token": code})
        return client

    async def signed_in(self, password: str = PASSWORD) -> Client:
        """Ana, at another device."""
        client = self.new()
        await client.sign_in_with_password({"email": ANA, "password": password})
        return client

    def _keep(self, client: Any) -> Client:
        self._made.append(Client(client))
        return self._made[-1]

    async def close(self) -> None:
        for client in self._made:
            await client.close()


async def events_of(client: Client) -> list[str]:
    """Grows as the client tells of them."""
    events: list[str] = []
    await client.on_auth_state_change(lambda event, _session: events.append(event))
    return events


async def refusal(request: Awaitable[Any]) -> AuthApiError:
    with pytest.raises(AuthApiError) as caught:
        await request
    return caught.value


async def refused_with(code: str, request: Awaitable[Any]) -> None:
    error = await refusal(request)
    assert error.code == code, error
