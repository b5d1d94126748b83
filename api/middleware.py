"""What every request gets before its resource: an id, its app, and its verified caller."""

import time
from typing import Any

from falcon.asgi import Request, Response

from butterbase.api.apps import Apps
from butterbase.api.callers import RequestIds, verify_caller
from butterbase.sql.apps import FIRST_APP


class CallerMiddleware:
    """Sets `req.context.app`, `.app_id`, `.claims` and `.request_id`.

    A resource with `is_open = True` is reached without a caller.
    """

    def __init__(self, apps: Apps, request_ids: RequestIds) -> None:
        self._apps = apps
        self._request_ids = request_ids

    async def process_resource(
        self, req: Request, resp: Response, resource: object, params: dict[str, Any]
    ) -> None:
        request_id = self._request_ids.of(req.get_header("X-Request-Id"))
        req.context.request_id = request_id
        resp.set_header("X-Request-Id", request_id)
        if getattr(resource, "is_open", False) or req.method == "OPTIONS":
            return
        app_id = params.pop("app_id", FIRST_APP)
        app = await self._apps.find(app_id)
        req.context.claims = verify_caller(
            app.tokens,
            authorization=req.get_header("Authorization"),
            key=req.get_header("apikey"),
            now_s=time.time(),
        )
        req.context.app = app
        req.context.app_id = app_id
