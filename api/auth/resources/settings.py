"""`/admin/settings`: an app's settings of auth, for the service role."""

from typing import Any

import msgspec
from falcon.asgi import App, Request, Response

from butterbase.api.auth import audit
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config_changes import shown
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.resources.app_keys import check_settings
from butterbase.api.auth.resources.requests import answer, app_of, read, require_admin

_PATCH = msgspec.json.Decoder(dict[str, Any])


def add_routes(app: "App[Any, Any]", prefix: str, _parts: AuthParts) -> None:
    app.add_route(f"{prefix}/admin/settings", AdminSettingsResource())


class AdminSettingsResource:
    async def on_get(self, req: Request, resp: Response) -> None:
        require_admin(req)
        answer(resp, shown(await app_of(req).auth.configs.get()))

    async def on_put(self, req: Request, resp: Response) -> None:
        """Members that are not sent stay as they are; null is the default."""
        require_admin(req)
        patch, caller = await read(req, _PATCH), Caller.of(req)
        await check_settings(req, patch)
        audited = audit.entry(
            "settings_changed", user_id=None, caller=caller, traits={"members": sorted(patch)}
        )
        configs = app_of(req).auth.configs
        answer(resp, shown(await configs.change(patch, audited=audited, now_s=caller.now_s)))
