"""PyPI's `supabase_functions`, both of its clients."""

import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from supabase_functions import AsyncFunctionsClient, SyncFunctionsClient
from supabase_functions.errors import FunctionsHttpError

from tests.clients.library import Library

CODE = Path(__file__).with_name("functions.ts").read_text()


class Client:
    """Either client, awaited."""

    def __init__(self, client: Any) -> None:
        self._client = client

    async def invoke(self, name: str, **options: Any) -> Any:
        answer = self._client.invoke(name, options)
        return await answer if inspect.isawaitable(answer) else answer


@pytest.fixture(params=["sync", "async"])
async def functions(request: pytest.FixtureRequest, library: Library) -> AsyncIterator[Client]:
    async with httpx.AsyncClient(timeout=30) as http:
        answer = await http.post(
            f"{library.url}/v1/main/functions",
            json={"name": "pyfn", "code": CODE, "env": {"GREETING": "hello"}},
            headers=library.headers(),
        )
    assert answer.status_code == 201, answer.text
    url, headers = f"{library.url}/functions/v1", {"apikey": library.keys.anon}
    if request.param == "sync":
        with httpx.Client(timeout=30, follow_redirects=True) as sync_http:
            yield Client(SyncFunctionsClient(url, headers, http_client=sync_http))
    else:
        async with httpx.AsyncClient(timeout=30, follow_redirects=True) as http:
            yield Client(AsyncFunctionsClient(url, headers, http_client=http))


async def test_json_text_and_bytes(functions: Client) -> None:
    data = await functions.invoke("pyfn", body={"n": 1}, responseType="json")
    assert (data["body"], data["env"]) == ({"n": 1}, "hello")
    assert await functions.invoke("pyfn?as=text", body="abc") == b"ABC"
    assert await functions.invoke("pyfn?as=bytes", body=b"\x00\xff") == b"\x00\xff"


@pytest.mark.parametrize(
    ("name", "status"), [("pyfn?as=refusal", 418), ("pyfn?as=throw", 500), ("nope", 404)]
)
async def test_errors_have_their_status(functions: Client, name: str, status: int) -> None:
    with pytest.raises(FunctionsHttpError) as caught:
        await functions.invoke(name)
    assert caught.value.status == status
