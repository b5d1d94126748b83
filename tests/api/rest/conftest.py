"""The REST API over a schema of a test module's own: `SCHEMA`, made once, and `ROWS`, made anew.

A module may name `SETTINGS` as well. Its tests and fixtures share one loop:
`pytestmark = pytest.mark.asyncio(loop_scope="module")`.
"""

from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from typing import Any

import httpx
import psycopg
import pytest
import pytest_asyncio
from psycopg.rows import dict_row

from butterbase.api.settings import ApiSettings
from tests.api.conftest import Api, running
from tests.installation import Installation, installed
from tests.postgres import Databases

RETURN = "return=representation"
OBJECT = "application/vnd.pgrst.object+json"


@dataclass(frozen=True)
class Rest:
    """The API, called as the service role, and the database behind it."""

    api: Api
    owner: psycopg.Connection[dict[str, Any]]

    async def call(
        self,
        method: str,
        path: str,
        *,
        json: Any = None,
        content: bytes | str | None = None,
        prefer: str | None = None,
        accept: str | None = None,
        content_type: str | None = None,
        headers: dict[str, str] | None = None,
    ) -> httpx.Response:
        """`headers` stand in the place of the service role's key."""
        given = {"Prefer": prefer, "Accept": accept, "Content-Type": content_type}
        sent = dict(self.api.service if headers is None else headers)
        sent |= {name: value for name, value in given.items() if value is not None}
        return await self.api.client.request(
            method, f"/rest/v1/{path}", json=json, content=content, headers=sent
        )

    async def get(self, path: str, **options: Any) -> httpx.Response:
        return await self.call("GET", path, **options)

    async def post(self, path: str, json: Any = None, **options: Any) -> httpx.Response:
        return await self.call("POST", path, json=json, **options)

    async def rows(self, path: str, **options: Any) -> Any:
        """The JSON of an answer that must be 200 or 206."""
        answer = await self.get(path, **options)
        assert answer.status_code in (200, 206), answer.text
        return answer.json()

    async def refusal(self, path: str, method: str = "GET", **options: Any) -> tuple[int, str]:
        """Status and code of an answer that must be an error."""
        answer = await self.call(method, path, **options)
        assert answer.status_code == 300 or answer.status_code >= 400, answer.text
        return answer.status_code, answer.json()["code"]

    def sql(self, query: str) -> Any:
        """What a query answers in Postgres, as JSON."""
        wrapped = f"select coalesce(json_agg(q), '[]') as rows from ({query}) as q"  # noqa: S608
        row = self.owner.execute(wrapped.encode()).fetchone()
        assert row is not None
        return row["rows"]


@pytest.fixture(scope="module")
def module_installation(
    request: pytest.FixtureRequest, postgres: Databases, installation_template: Installation
) -> Iterator[Installation]:
    with installed(postgres, installation_template) as installation:
        installation.as_owner(request.module.SCHEMA)
        yield installation


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def module_rest(
    request: pytest.FixtureRequest, module_installation: Installation
) -> AsyncIterator[Rest]:
    settings = getattr(request.module, "SETTINGS", ApiSettings())
    with psycopg.connect(
        module_installation.owner_dsn, autocommit=True, row_factory=dict_row
    ) as owner:
        async with running(module_installation, settings) as api:
            yield Rest(api, owner)


@pytest.fixture
def rest(request: pytest.FixtureRequest, module_rest: Rest) -> Rest:
    """The module's API, its rows as they were."""
    rows = getattr(request.module, "ROWS", None)
    if rows is not None:
        module_rest.owner.execute(rows.encode())
    return module_rest
