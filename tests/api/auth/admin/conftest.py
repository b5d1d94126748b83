"""The admin API over HTTP, as administrators and users call it."""

from typing import Any

import httpx

from tests.api.conftest import Api

ANA = {"email": "ana@example.com", "password": "correct horse"}


NOBODY = "7c9e6679-7425-40de-944b-e07fc1f90ae7"


async def call(
    api: Api, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
) -> httpx.Response:
    return await api.client.request(
        method,
        f"/auth/v1/{path}",
        json=body,
        headers=api.service if headers is None else headers,
    )


async def create(api: Api, **body: Any) -> dict[str, Any]:
    answer = await call(api, "POST", "admin/users", body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def modify(api: Api, user: dict[str, Any], **body: Any) -> dict[str, Any]:
    answer = await call(api, "PUT", f"admin/users/{user['id']}", body)
    assert answer.status_code == 200, answer.text
    return dict(answer.json())


async def sign_in(api: Api, email: str, password: str) -> httpx.Response:
    return await call(
        api, "POST", "token?grant_type=password", {"email": email, "password": password}, api.anon
    )


async def refresh(api: Api, session: dict[str, Any]) -> httpx.Response:
    body = {"refresh_token": session["refresh_token"]}
    return await call(api, "POST", "token?grant_type=refresh_token", body, api.anon)


def refused(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error_code"]
