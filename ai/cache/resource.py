"""`GET` and `DELETE ai/cache`, for the app's service role."""

import re
import time
from typing import Any
from uuid import UUID

import falcon.asgi
import msgspec
from falcon.asgi import Request, Response

from butterbase.ai.cache.report import DAYS_MAX, CacheAdmin
from butterbase.ai.errors import AiRequestError
from butterbase.ai.resource import check_is_service, errors_as_openais

_DAYS = 30
_AGE_S_MAX = 10**9
_NUMBER = re.compile(r"[0-9]{1,9}")


def add_routes(
    app: "falcon.asgi.App[Any, Any]", admin: CacheAdmin, *, prefix: str = "/v1/{app_id}"
) -> None:
    app.add_route(f"{prefix}/ai/cache", CacheResource(admin))


class CacheResource:
    def __init__(self, admin: CacheAdmin) -> None:
        self._admin = admin

    @errors_as_openais
    async def on_get(self, req: Request, resp: Response) -> None:
        check_is_service(req.context.claims)
        _check_known(req, {"days"})
        day_count = _number(req, "days", most=DAYS_MAX)
        report = await self._admin.report(req.context.app_id, day_count=day_count or _DAYS)
        _answer(resp, report)

    @errors_as_openais
    async def on_delete(self, req: Request, resp: Response) -> None:
        check_is_service(req.context.claims)
        _check_known(req, {"userId", "model", "olderThanS"})
        older_than_s = _number(req, "olderThanS", most=_AGE_S_MAX)
        deleted = await self._admin.purge(
            req.context.app_id,
            user_id=_user_id(req),
            model=_text(req, "model"),
            before_s=None if older_than_s is None else time.time() - older_than_s,
        )
        _answer(resp, {"deleted": deleted})


def _answer(resp: Response, value: object) -> None:
    resp.data = msgspec.json.encode(value)
    resp.content_type = falcon.MEDIA_JSON
    # Questions of people may be in it.
    resp.set_header("Cache-Control", "no-store")


def _check_known(req: Request, names: set[str]) -> None:
    """A misspelt filter must not delete everything."""
    for name in set(req.params) - names:
        raise AiRequestError(f"it is none of {', '.join(sorted(names))}", param=name[:100])


def _number(req: Request, name: str, *, most: int) -> int | None:
    text = req.get_param(name)
    if text is None:
        return None
    if not _NUMBER.fullmatch(text) or not 1 <= int(text) <= most:
        raise AiRequestError(f"it must be a number from 1 to {most}", param=name)
    return int(text)


def _text(req: Request, name: str) -> str | None:
    text = req.get_param(name)
    if text is not None and "\0" in text:
        raise AiRequestError("it has characters that are none", param=name)
    return text


def _user_id(req: Request) -> UUID | None:
    text = req.get_param("userId")
    try:
        return None if text is None else UUID(text)
    except ValueError as error:
        raise AiRequestError("it must be a user's id", param="userId") from error
