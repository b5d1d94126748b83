"""What every request gets before its resource: an id, its app, and its verified caller."""

import time
from typing import Any

from falcon.asgi import Request, Response

from butterbase.api.apps import Apps
from butterbase.api.auth.proxies import Proxies
from butterbase.api.callers import RequestIds, bearer_of, verify_caller
from butterbase.api.keys.key import scope_of
from butterbase.api.operators.operators import Operators
from butterbase.api.operators.runtime import ID, PREFIX
from butterbase.sql.apps import FIRST_APP
from butterbase.sql.claims import ANON, claims_for_role

NO_PROXIES = Proxies("")

_OPERATORS_ADMIN = (f"{PREFIX}/auth/v1/admin/", f"{PREFIX}/auth/v1/invite")
_ANYONE = claims_for_role(ANON)


class CallerMiddleware:
    """Sets `req.context.app`, `.app_id`, `.claims`, `.client` and `.request_id`.

    A resource with `is_open = True` is reached without a caller or an app; one with
    `is_keyless = True` without a caller, whom it takes for anon.
    """

    def __init__(
        self,
        apps: Apps,
        request_ids: RequestIds,
        operators: Operators | None = None,
        proxies: Proxies = NO_PROXIES,
    ) -> None:
        self._apps = apps
        self._request_ids = request_ids
        self._operators = operators
        self._proxies = proxies

    async def process_resource(
        self, req: Request, resp: Response, resource: object, params: dict[str, Any]
    ) -> None:
        request_id = self._request_ids.of(req.get_header("X-Request-Id"))
        req.context.request_id = request_id
        resp.set_header("X-Request-Id", request_id)
        req.context.client = self._proxies.client_of(
            req.remote_addr, req.get_header("X-Forwarded-For")
        )
        if getattr(resource, "is_open", False) or req.method == "OPTIONS":
            return
        template = req.uri_template or ""
        if self._operators is not None and template.startswith(f"{PREFIX}/"):
            req.context.app, req.context.app_id = self._operators.runtime, ID
            req.context.claims = await self._operators.caller(
                bearer_of(req.get_header("Authorization")),
                is_admin=template.startswith(_OPERATORS_ADMIN),
                now_s=time.time(),
            )
            return
        app_id = params.pop("app_id", FIRST_APP)
        app = await self._apps.find(app_id)
        req.context.app, req.context.app_id = app, app_id
        if getattr(resource, "is_keyless", False):
            req.context.claims = _ANYONE
            return
        req.context.claims = await verify_caller(
            app.tokens,
            app.keyring,
            scope=scope_of(template),
            authorization=req.get_header("Authorization"),
            key=req.get_header("apikey"),
            now_s=time.time(),
            operators=self._operators,
        )

    async def process_response(
        self, req: Request, _resp: Response, _resource: object, _is_answered: bool
    ) -> None:
        is_theirs = getattr(req.context, "app_id", None) == ID
        if self._operators is not None and is_theirs and req.method != "GET":
            self._operators.forget()
