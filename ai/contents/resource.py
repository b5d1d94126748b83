"""`ai/contents`: texts of an app's calls, for its service role and keys with the scope `admin`."""

from typing import Any
from uuid import UUID

import falcon.asgi
import msgspec
from falcon.asgi import Request, Response

from butterbase.ai.contents.store import ContentStore
from butterbase.ai.errors import ContentNotFoundError
from butterbase.ai.http.admin import check_is_service, errors_as_openais
from butterbase.ai.http.parameters import check_known, read_id, read_number

COUNT_MAX = 200
_COUNT = 50
_AGE_S_MAX = 10**9


def add_routes(
    app: "falcon.asgi.App[Any, Any]", store: ContentStore, *, prefix: str = "/v1/{app_id}"
) -> None:
    app.add_route(f"{prefix}/ai/contents", ContentsResource(store))
    app.add_route(f"{prefix}/ai/contents/{{call_id}}", ContentResource(store))


class ContentsResource:
    def __init__(self, store: ContentStore) -> None:
        self._store = store

    @errors_as_openais
    async def on_get(self, req: Request, resp: Response) -> None:
        check_is_service(req.context.claims)
        check_known(req, {"userId", "before", "limit"})
        calls = await self._store.list_calls(
            req.context.app_id,
            user_id=read_id(req, "userId", "user"),
            before=read_id(req, "before", "call"),
            count=read_number(req, "limit", most=COUNT_MAX) or _COUNT,
        )
        _answer(resp, {"calls": calls})

    @errors_as_openais
    async def on_delete(self, req: Request, resp: Response) -> None:
        check_is_service(req.context.claims)
        check_known(req, {"userId", "olderThanS"})
        deleted = await self._store.purge(
            req.context.app_id,
            user_id=read_id(req, "userId", "user"),
            older_than_s=read_number(req, "olderThanS", most=_AGE_S_MAX),
        )
        _answer(resp, {"deleted": deleted})


class ContentResource:
    def __init__(self, store: ContentStore) -> None:
        self._store = store

    @errors_as_openais
    async def on_get(self, req: Request, resp: Response, call_id: str) -> None:
        check_is_service(req.context.claims)
        found = await self._store.read(req.context.app_id, _call_id(call_id))
        if found is None:
            raise ContentNotFoundError
        _answer(resp, found)


def _call_id(text: str) -> UUID:
    """Raises ContentNotFoundError."""
    try:
        return UUID(text)
    except ValueError as error:
        raise ContentNotFoundError from error


def _answer(resp: Response, value: object) -> None:
    resp.data = msgspec.json.encode(value)
    resp.content_type = falcon.MEDIA_JSON
    # What people asked is in it.
    resp.set_header("Cache-Control", "no-store")
