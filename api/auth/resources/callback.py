"""`/callback` takes a browser back from a provider, and leads it to the app.

What opens a session goes into the fragment, which no server is sent, or is a code that only the
asking client can exchange.
"""

import logging
from collections.abc import Mapping
from typing import Any, Final

import msgspec
from falcon.asgi import App, Request, Response

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import redirects
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import AuthError, SignupDisabledError, UserBannedError
from butterbase.api.auth.mail.send import site_url
from butterbase.api.auth.oauth import accounts, flows, linking, profiles
from butterbase.api.auth.oauth.asked import members
from butterbase.api.auth.oauth.browser import Browser
from butterbase.api.auth.oauth.errors import (
    BadOAuthCallbackError,
    ProviderEmailUnverifiedError,
    ProviderRefusedError,
)
from butterbase.api.auth.oauth.exchange import Exchange, SignIn
from butterbase.api.auth.oauth.flows import Flow
from butterbase.api.auth.oauth.providers import Provider, find_provider
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.problems import parts_of
from butterbase.api.auth.resources.requests import app_of, body_of, lead
from butterbase.api.auth.session_json import fragment_of
from butterbase.sql.errors import ButterbaseError, DatabaseError

_log = logging.getLogger(__name__)

# RFC 6749, section 4.1.2.1: by status, and of some errors by what they mean.
_OAUTH_ERRORS: Final = {
    400: "invalid_request",
    401: "unauthorized_client",
    403: "access_denied",
    502: "temporarily_unavailable",
    503: "temporarily_unavailable",
}
_DENIALS: Final = (SignupDisabledError, UserBannedError, ProviderEmailUnverifiedError)

_TOLD_LENGTH_MAX = 300


_APPLE_USER = msgspec.json.Decoder(dict[str, Any])


def add_routes(app: "App[Any, Any]", prefix: str, parts: AuthParts) -> None:
    callback = CallbackResource(parts)
    app.add_route(f"{prefix}/callback", callback)
    app.add_route(f"{prefix}/callback/{{at}}", callback)


class CallbackResource:
    is_keyless = True  # a browser comes by its address alone

    def __init__(self, parts: AuthParts) -> None:
        self._exchange = parts.exchange

    async def on_get(self, req: Request, resp: Response, at: str | None = None) -> None:
        browser = Browser(req, url=app_of(req).auth.url)
        lead(resp, await self._take_back(req, browser, members(req.query_string), at))

    async def on_post(self, req: Request, resp: Response, at: str | None = None) -> None:
        """As Apple answers."""
        browser = Browser(req, url=app_of(req).auth.url, is_form_post=True)
        answered = members((await body_of(req)).decode("utf-8", "replace"))
        lead(resp, await self._take_back(req, browser, answered, at), status=303)

    async def _take_back(
        self, req: Request, browser: Browser, answered: Mapping[str, str], at: str | None
    ) -> str:
        """Where the browser is led."""
        app, caller = app_of(req), Caller.of(req)
        config = await app.auth.configs.get()
        target = site_url(app, config)
        try:
            state = answered.get("state", "")
            flow = await flows.take(app, state, browser.secret, now_s=caller.now_s)
            target = flow.redirect_to or target
            provider = find_provider(flow.provider, config.providers)
            await _check_sender(self._exchange, provider, answered, at)
            signed_in = await self._redeem(app, provider, flow, answered, caller)
            return await _finish(app, config, provider, flow, signed_in, caller)
        # Of the database's are a developer's triggers: a person is not left with their JSON.
        except (AuthError, DatabaseError) as error:
            status, code, message = parts_of(error)
            if status >= 500:
                _log.warning("a sign-in failed: %s (%s)", error, type(error).__name__)
            return redirects.with_error(
                target, error=_oauth_error(error, status), code=code, description=message
            )

    async def _redeem(
        self,
        app: AppRuntime,
        provider: Provider,
        flow: Flow,
        answered: Mapping[str, str],
        caller: Caller,
    ) -> SignIn:
        """Raises AuthError."""
        if error := answered.get("error"):
            description = answered.get("error_description") or "the provider refused the sign-in"
            raise ProviderRefusedError(
                description[:_TOLD_LENGTH_MAX], error=error[:_TOLD_LENGTH_MAX]
            )
        if not (code := answered.get("code")):
            raise BadOAuthCallbackError("OAuth callback with missing authorization code missing")
        trip = flows.trip(app, provider, flow.id)
        signed_in = await self._exchange.redeem(provider, trip, code, now_s=caller.now_s)
        if not provider.known.is_form_post or "user" not in answered:
            return signed_in
        named = profiles.with_apple_name(signed_in.person, _apple_user(answered["user"]))
        return msgspec.structs.replace(signed_in, person=named)


async def _check_sender(
    exchange: Exchange, provider: Provider, answered: Mapping[str, str], at: str | None
) -> None:
    """Whoever answers must be who was asked: RFC 9700, section 4.4. Raises AuthError."""
    if provider.callback_path != ("/callback" if at is None else f"/callback/{at}"):
        raise BadOAuthCallbackError("the answer came in where another provider's does")
    has_issuer, must_tell = await exchange.tells_issuer(provider)
    told = answered.get("iss")
    if must_tell and told is None:
        raise BadOAuthCallbackError("the answer does not say of which provider it is")
    if has_issuer and told is not None and not provider.accepts_issuer(told):
        raise BadOAuthCallbackError("the answer is another provider's")


async def _finish(
    app: AppRuntime,
    config: AuthConfig,
    provider: Provider,
    flow: Flow,
    signed_in: SignIn,
    caller: Caller,
) -> str:
    """The app's address with what the flow has led to. Raises AuthError."""
    link_to, challenge, to = flow.linking, flow.challenge, flow.redirect_to
    if challenge is None:
        if link_to is None:
            session = await accounts.sign_in(app, config, provider, signed_in, caller=caller)
        else:
            session = await linking.link(app, config, provider, signed_in, link_to, caller=caller)
        return redirects.with_fragment(to, {**fragment_of(session), "sb": ""})
    if link_to is None:
        code = await accounts.sign_in_later(
            app, config, provider, signed_in, challenge, caller=caller
        )
    else:
        code = await linking.link_later(
            app, config, provider, signed_in, link_to, challenge, caller=caller
        )
    return redirects.with_query(to, {"code": code})


def _oauth_error(error: ButterbaseError, status: int) -> str:
    if isinstance(error, ProviderRefusedError):
        return error.error
    if isinstance(error, _DENIALS):
        return "access_denied"
    return _OAUTH_ERRORS.get(status, "server_error")


def _apple_user(text: str) -> dict[str, Any]:
    try:
        return _APPLE_USER.decode(text)
    except (msgspec.DecodeError, RecursionError):
        return {}
