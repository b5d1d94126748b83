"""`/verify`: links are followed by GET, codes and token hashes are sent by POST.

The browser that follows a link is led to where the one who asked for it wanted it, with the session
in the fragment, which no server sees, or with a code that only the asking client can exchange.
"""

from typing import Any

import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import limits, redirects
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    AuthError,
    InvalidAuthBodyError,
    PhoneProviderDisabledError,
)
from butterbase.api.auth.mail.redeem import Code, Link, Redeemed, redeem
from butterbase.api.auth.mail.send import site_url
from butterbase.api.auth.one_time import KINDS_OF_TYPE, PKCE_PREFIX
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.resources.evenly import evenly
from butterbase.api.auth.resources.requests import answer, app_of, lead, read
from butterbase.api.auth.session_json import fragment_of

HALF = "Confirmation link accepted. Please proceed to confirm link sent to the other email"

_HALF_ANSWER = msgspec.json.encode({"msg": HALF, "code": "200"})
_TEXT_LENGTH_MAX = 1000

# RFC 6749, section 4.1.2.1: by status.
_OAUTH_ERROR = {
    400: "invalid_request",
    401: "unauthorized_client",
    403: "access_denied",
    422: "invalid_request",
    500: "server_error",
    503: "temporarily_unavailable",
}


class Verification(Struct, frozen=True):
    type: str = ""
    token: str = ""
    token_hash: str = ""
    email: str = ""
    phone: str = ""
    redirect_to: str = ""


_VERIFICATION = msgspec.json.Decoder(Verification)


def add_routes(app: "App[Any, Any]", prefix: str, _parts: AuthParts) -> None:
    app.add_route(f"{prefix}/verify", VerifyResource())


class VerifyResource:
    is_keyless = True  # a link in a mail has no key

    @evenly
    async def on_post(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        given = _given(await read(req, _VERIFICATION))
        config = await _admit(app, caller)
        redeemed = await redeem(app, config, given, caller=caller)
        answer(resp, _HALF_ANSWER if redeemed.session is None else redeemed.session)

    async def on_get(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        token, type_ = req.get_param("token") or "", req.get_param("type") or ""
        if not type_:
            raise InvalidAuthBodyError("Verify requires a verification type")
        if not token:
            raise InvalidAuthBodyError("Verify requires a token or a token hash")
        config = await _admit(app, caller)
        asked = req.get_param("redirect_to")
        target = _target(app, config, asked)
        try:
            link = _link(token, type_)
            redeemed = await redeem(app, config, link, caller=caller, is_browser=True)
        except AuthError as error:
            failed = _with_error(target, error, is_flow=token.startswith(PKCE_PREFIX))
            lead(resp, failed, status=303)
            return
        if not asked:
            target = _target(app, config, redeemed.redirect_to)
        lead(resp, _with_redeemed(target, redeemed, type_), status=303)


def _given(asked: Verification) -> Link | Code:
    """Raises InvalidAuthBodyError, PhoneProviderDisabledError."""
    if not asked.type:
        raise InvalidAuthBodyError("Verify requires a verification type")
    if bool(asked.token) == bool(asked.token_hash):
        raise InvalidAuthBodyError("Verify requires either a token or a token hash")
    if asked.token_hash:
        if asked.email or asked.phone or asked.redirect_to:
            raise InvalidAuthBodyError("Only the token_hash and type should be provided")
        return _link(asked.token_hash, asked.type)
    if bool(asked.email) == bool(asked.phone):
        raise InvalidAuthBodyError(
            "Only an email address or phone number should be provided on verify"
        )
    if asked.phone:
        raise PhoneProviderDisabledError("Unsupported phone provider")
    _check(asked.type, asked.token, asked.email)
    return Code(asked.email, asked.token, asked.type)


def _link(token: str, type_: str) -> Link:
    _check(type_, token)
    return Link(token, type_)


def _check(type_: str, *texts: str) -> None:
    """Raises InvalidAuthBodyError."""
    if type_ not in KINDS_OF_TYPE:
        raise InvalidAuthBodyError("Invalid email verification type")
    if any("\0" in text or len(text) > _TEXT_LENGTH_MAX for text in texts):
        raise InvalidAuthBodyError("this is no token")


async def _admit(app: AppRuntime, caller: Caller) -> AuthConfig:
    """Raises OverRequestRateLimitError."""
    config = await app.auth.configs.get()
    await limits.admit(app, config, "verify", config.rate_limits.verify, caller=caller)
    return config


def _target(app: AppRuntime, config: AuthConfig, asked: str | None) -> str:
    return redirects.choose(
        asked, site_url=site_url(app, config), allow_list=config.redirect_allow_list
    )


def _with_redeemed(target: str, redeemed: Redeemed, type_: str) -> str:
    if redeemed.auth_code is not None:
        return redirects.with_query(target, {"code": redeemed.auth_code})
    if redeemed.session is None:
        return redirects.with_fragment(target, {"message": HALF, "sb": ""})
    members = {**fragment_of(redeemed.session), "type": type_, "sb": ""}
    return redirects.with_fragment(target, members)


def _with_error(target: str, error: AuthError, *, is_flow: bool) -> str:
    """In the fragment; in a flow whose code comes in the query, there as well."""
    members = {
        "error": _OAUTH_ERROR.get(error.status, "server_error"),
        "error_code": error.code,
        "error_description": error.message,
    }
    if is_flow:
        target = redirects.with_query(target, members)
    return redirects.with_fragment(target, {**members, "sb": ""})
