"""What every request gets before its resource: an id, its app, and its verified caller."""

import itertools
import re
import secrets
import time
from typing import Any

from falcon.asgi import Request, Response

from butterbase.api.apps import Apps
from butterbase.api.errors import MissingKeyError
from butterbase.sql.apps import FIRST_APP

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
_BEARER = "bearer "


class CallerMiddleware:
    """Sets `req.context.app`, `.app_id`, `.claims` and `.request_id`.

    The token of `Authorization: Bearer` speaks for the caller, else the `apikey`; both must be
    valid where both are sent. A resource with `is_open = True` is reached without either.
    """

    def __init__(self, apps: Apps) -> None:
        self._apps = apps
        # Made in the worker, after the fork: an id a request without asking for randomness each.
        self._worker_id = secrets.token_hex(4)
        self._request_count = itertools.count(1)

    async def process_resource(
        self, req: Request, resp: Response, resource: object, params: dict[str, Any]
    ) -> None:
        request_id = req.get_header("X-Request-Id")
        if request_id is None or not _REQUEST_ID.fullmatch(request_id):
            request_id = f"{self._worker_id}-{next(self._request_count):x}"
        req.context.request_id = request_id
        resp.set_header("X-Request-Id", request_id)
        if getattr(resource, "is_open", False) or req.method == "OPTIONS":
            return
        app_id = params.pop("app_id", FIRST_APP)
        app = await self._apps.find(app_id)
        authorization = req.get_header("Authorization") or ""
        key = req.get_header("apikey")
        token = authorization[len(_BEARER) :].strip()
        now_s = time.time()
        if key:
            claims = app.tokens.verify(key, now_s=now_s)
        elif not token or authorization[: len(_BEARER)].lower() != _BEARER:
            raise MissingKeyError
        if token and authorization[: len(_BEARER)].lower() == _BEARER and token != key:
            claims = app.tokens.verify(token, now_s=now_s)
        req.context.app = app
        req.context.app_id = app_id
        req.context.claims = claims
