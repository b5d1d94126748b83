"""PyPI's `postgrest`: its two clients have the same methods, one set of them is awaited."""

import inspect
from typing import Any

import pytest
from postgrest import AsyncPostgrestClient, SyncPostgrestClient
from postgrest.exceptions import APIError

from tests.clients.library import Library

Client = Any  # AsyncPostgrestClient | SyncPostgrestClient

CLIENTS = {"sync": SyncPostgrestClient, "async": AsyncPostgrestClient}


def client_of(name: str, library: Library, token: str | None = None) -> Client:
    """As the service role, or as a user."""
    return CLIENTS[name](f"{library.url}/rest/v1", headers=library.headers(token))


async def close(client: Client) -> None:
    closed = client.aclose()
    if inspect.isawaitable(closed):
        await closed


async def run(request: Any) -> Any:
    """Execute with either client."""
    answer = request.execute()
    return await answer if inspect.isawaitable(answer) else answer


async def rows(request: Any) -> Any:
    return (await run(request)).data


async def ids(request: Any) -> list[int]:
    return [row["id"] for row in await rows(request)]


async def refusal(request: Any) -> APIError:
    with pytest.raises(APIError) as caught:
        await run(request)
    return caught.value
