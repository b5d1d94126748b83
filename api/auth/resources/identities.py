"""`/user/identities`: one more way to sign in, or one less."""

from typing import Any
from urllib.parse import urlencode

import msgspec
from falcon.asgi import App, Request, Response

from butterbase.api.auth.caller import Caller
from butterbase.api.auth.oauth import flows, linking
from butterbase.api.auth.oauth.asked import admit, asked_of
from butterbase.api.auth.oauth.errors import ManualLinkingDisabledError
from butterbase.api.auth.oauth.providers import find_provider
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.resources.paths import id_in_path
from butterbase.api.auth.resources.requests import answer, app_of, lead, require_strong, signed_in


def add_routes(app: "App[Any, Any]", prefix: str, _parts: AuthParts) -> None:
    app.add_route(f"{prefix}/user/identities/authorize", LinkResource())
    app.add_route(f"{prefix}/user/identities/{{identity_id}}", IdentityResource())


class LinkResource:
    """Begins to link. A request of a script, whose cookies browsers may drop, so the address that
    it answers is of ours, and it is there that the flow becomes a browser's.
    """

    async def on_get(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        config = await admit(app, caller)
        if not config.is_manual_linking_enabled:
            raise ManualLinkingDisabledError
        who = await signed_in(req, caller)
        require_strong(who)
        asked = asked_of(req, app, config)
        provider = find_provider(asked.provider, config.providers)
        flow_id = flows.new_id()
        await flows.begin(
            app,
            flow_id,
            provider,
            redirect_to=asked.redirect_to,
            challenge=asked.challenge,
            linking=flows.Linking(who.user.id, who.session_id),
            caller=caller,
        )
        start = {"flow": flows.flow_key(app).token(flow_id, "start"), **asked.extra}
        if asked.scopes:
            start["scopes"] = " ".join(asked.scopes)
        url = f"{app.auth.url}/authorize?{urlencode(start)}"
        if req.get_param("skip_http_redirect") == "true":
            answer(resp, msgspec.json.encode({"url": url}))
        else:
            lead(resp, url)


class IdentityResource:
    async def on_delete(self, req: Request, resp: Response, identity_id: str) -> None:
        app, caller = app_of(req), Caller.of(req)
        if not (await app.auth.configs.get()).is_manual_linking_enabled:
            raise ManualLinkingDisabledError
        who = await signed_in(req, caller)
        require_strong(who)
        identity_id = id_in_path(identity_id, "identity_id")
        await linking.unlink(app, who.user.id, who.session_id, identity_id, caller=caller)
        answer(resp, b"{}")
