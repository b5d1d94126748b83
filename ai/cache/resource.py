"""`GET` and `DELETE ai/cache`, for the app's service role."""

import time
from typing import Any

import falcon.asgi
import msgspec
from falcon.asgi import Request, Response

from butterbase.ai.cache.report import DAYS_MAX, CacheAdmin
from butterbase.ai.http.admin import check_is_service, errors_as_openais
from butterbase.ai.http.parameters import check_known, read_id, read_number, read_text

_DAYS = 30
_AGE_S_MAX = 10**9


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
        check_known(req, {"days"})
        day_count = read_number(req, "days", most=DAYS_MAX)
        report = await self._admin.report(req.context.app_id, day_count=day_count or _DAYS)
        _answer(resp, report)

    @errors_as_openais
    async def on_delete(self, req: Request, resp: Response) -> None:
        check_is_service(req.context.claims)
        check_known(req, {"userId", "model", "olderThanS"})
        older_than_s = read_number(req, "olderThanS", most=_AGE_S_MAX)
        deleted = await self._admin.purge(
            req.context.app_id,
            user_id=read_id(req, "userId", "user"),
            model=read_text(req, "model"),
            before_s=None if older_than_s is None else time.time() - older_than_s,
        )
        _answer(resp, {"deleted": deleted})


def _answer(resp: Response, value: object) -> None:
    resp.data = msgspec.json.encode(value)
    resp.content_type = falcon.MEDIA_JSON
    # Questions of people may be in it.
    resp.set_header("Cache-Control", "no-store")
