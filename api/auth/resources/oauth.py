"""`/authorize` leads a browser to a provider. https://www.rfc-editor.org/rfc/rfc9700"""

from typing import Any

import msgspec
from falcon.asgi import App, Request, Response

from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.oauth import flows
from butterbase.api.auth.oauth.asked import Asked, admit, asked_of, members
from butterbase.api.auth.oauth.browser import Browser
from butterbase.api.auth.oauth.errors import BadOAuthStateError, OAuthError
from butterbase.api.auth.oauth.page import confirmation_page
from butterbase.api.auth.oauth.providers import Provider, find_provider
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.resources.grants import IdTokens, exchange_code
from butterbase.api.auth.resources.requests import app_of, body_of, lead


def add_routes(app: "App[Any, Any]", prefix: str, parts: AuthParts) -> None:
    parts.grants["pkce"] = exchange_code
    parts.grants["id_token"] = IdTokens(parts.exchange)
    app.add_error_handler(OAuthError, _on_oauth_error)
    app.add_route(f"{prefix}/authorize", AuthorizeResource(parts))


class AuthorizeResource:
    is_keyless = True  # a browser comes by its address alone

    def __init__(self, parts: AuthParts) -> None:
        self._exchange = parts.exchange

    async def on_get(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        config = await admit(app, caller)
        if (start := req.get_param("flow")) is not None:
            await self._go_on(req, resp, config, start, caller)
            return
        asked = asked_of(req, app, config)
        provider = find_provider(asked.provider, config.providers)
        flow_id = flows.new_id()
        url = await self._url(req, provider, flow_id, asked)
        await flows.begin(
            app,
            flow_id,
            provider,
            redirect_to=asked.redirect_to,
            challenge=asked.challenge,
            browser=_browser(req, provider).remember(resp),
            caller=caller,
        )
        lead(resp, url)

    async def on_post(self, req: Request, resp: Response) -> None:
        """What the page of `_go_on` sends."""
        app, caller = app_of(req), Caller.of(req)
        config = await admit(app, caller)
        start = await flows.find_start(app, req.get_param("flow") or "", now_s=caller.now_s)
        provider = find_provider(start.provider, config.providers)
        browser = _browser(req, provider)
        form = members((await body_of(req)).decode("utf-8", "replace"))
        if not flows.is_confirmed(app, start, browser.secret, form.get("confirmation", "")):
            raise BadOAuthStateError
        url = await self._url(req, provider, start.id, asked_of(req, app, config))
        await flows.take_start(app, start.id, browser.remember(resp), now_s=caller.now_s)
        lead(resp, url, status=303)

    async def _go_on(
        self, req: Request, resp: Response, config: AuthConfig, token: str, caller: Caller
    ) -> None:
        """A flow that another request began: it links an identity to the account of its caller.

        The first browser that comes takes it. Whether it is the one of whoever began it shows when
        the code is exchanged; where there will be no code, a person has to look at the account.
        """
        app = app_of(req)
        start = await flows.find_start(app, token, now_s=caller.now_s)
        provider = find_provider(start.provider, config.providers)
        browser = _browser(req, provider)
        if not start.is_pkce:
            confirmation = flows.confirmation(app, start, browser.remember(resp))
            confirmation_page(
                resp, provider=start.provider, account=start.account, confirmation=confirmation
            )
            return
        url = await self._url(req, provider, start.id, asked_of(req, app, config))
        await flows.take_start(app, start.id, browser.remember(resp), now_s=caller.now_s)
        lead(resp, url)

    async def _url(self, req: Request, provider: Provider, flow_id: str, asked: Asked) -> str:
        """Of the provider."""
        trip = flows.trip(app_of(req), provider, flow_id)
        return await self._exchange.authorization_url(
            provider, trip, scopes=asked.scopes, extra=asked.extra
        )


def _browser(req: Request, provider: Provider) -> Browser:
    return Browser(req, url=app_of(req).auth.url, is_form_post=provider.known.is_form_post)


async def _on_oauth_error(
    _req: Request, resp: Response, error: OAuthError, _params: dict[str, object]
) -> None:
    """RFC 6749, section 5.2, and what the clients read of other errors."""
    resp.status = 400
    resp.set_header("X-Sb-Error-Code", error.code)
    resp.content_type = "application/json"
    resp.data = msgspec.json.encode(
        {"error": error.error, "error_description": error.message, "error_code": error.code}
    )
