"""`POST /token?grant_type=…`: a session for a password or a refresh token, or by another grant."""

from typing import Any

import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import limits, sessions, users
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    EmailNotConfirmedError,
    EmailProviderDisabledError,
    InvalidAuthBodyError,
    InvalidCredentialsError,
    PhoneProviderDisabledError,
    RefreshTokenError,
    UnsupportedGrantError,
    UserBannedError,
)
from butterbase.api.auth.parts import AuthParts
from butterbase.api.auth.policy import is_hashable, normal_email, weakness_of
from butterbase.api.auth.resources.requests import answer, app_of, read
from butterbase.api.auth.users import FoundUser


class Credentials(Struct, frozen=True):
    password: str
    email: str | None = None
    phone: str | None = None


class RefreshToken(Struct, frozen=True):
    refresh_token: str


_CREDENTIALS = msgspec.json.Decoder(Credentials)
_REFRESH = msgspec.json.Decoder(RefreshToken)


def add_routes(app: "App[Any, Any]", prefix: str, parts: AuthParts) -> None:
    app.add_route(f"{prefix}/token", TokenResource(parts))


class TokenResource:
    def __init__(self, parts: AuthParts) -> None:
        self._parts = parts

    async def on_post(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        grant = req.get_param("grant_type", default="")
        if grant == "refresh_token":
            body = await _refresh(app, (await read(req, _REFRESH)).refresh_token, caller)
        elif grant == "password":
            body = await self._sign_in(app, await read(req, _CREDENTIALS), caller)
        elif grant in self._parts.grants:
            await _take(app, caller)
            body = await self._parts.grants[grant](req, caller)
        else:
            raise UnsupportedGrantError(f"grant_type {grant[:50]!a} is not known")
        answer(resp, body)

    async def _sign_in(self, app: AppRuntime, asked: Credentials, caller: Caller) -> bytes:
        config = await app.auth.configs.get()
        if asked.phone:
            raise PhoneProviderDisabledError
        if not asked.email:
            raise InvalidAuthBodyError("missing email or phone")
        if not config.is_email_enabled:
            raise EmailProviderDisabledError
        email = normal_email(asked.email)
        if not is_hashable(asked.password) or not is_hashable(email) or "\0" in email:
            raise InvalidCredentialsError
        user = await _find(app, config, email, caller)
        stored = None if user is None else user.password_hash
        if not await self._parts.passwords.verify(stored, asked.password, client=caller.ip):
            raise InvalidCredentialsError
        assert user is not None
        assert stored is not None
        # Only who knows the password learns what else there is about the account.
        if user.is_banned:
            raise UserBannedError
        if not user.is_email_confirmed:
            raise EmailNotConfirmedError
        renewed = None
        if self._parts.passwords.is_outdated(stored):
            renewed = await self._parts.passwords.hash(asked.password, client=caller.ip)
        weakness = weakness_of(asked.password, config.password)
        return await sessions.issue(
            app,
            user.id,
            method="password",
            caller=caller,
            old_password_hash=stored,
            new_password_hash=renewed,
            extra={} if weakness is None else {"weak_password": weakness},
        )


async def _find(
    app: AppRuntime, config: AuthConfig, email: str, caller: Caller
) -> FoundUser | None:
    """One round trip with the limits. Raises OverRequestRateLimitError."""
    find = users.find_statement(email=email, now_s=caller.now_s)
    if not config.rate_limits.is_enabled:
        return users.found((await app.service.run(find))[0])
    # By address and account together: who guesses from elsewhere locks nobody out.
    rates = config.rate_limits
    *taken, found = await app.service.run(
        limits.statement(limits.key("token", caller.ip), rates.token, now_s=caller.now_s),
        limits.statement(
            limits.key("signin", caller.ip, email), rates.sign_in_account, now_s=caller.now_s
        ),
        find,
    )
    limits.check(*taken)
    return users.found(found)


async def _refresh(app: AppRuntime, refresh_token: str, caller: Caller) -> bytes:
    try:
        return await sessions.refresh(app, refresh_token, caller=caller)
    except RefreshTokenError:
        # A good one is limited by its session, so that guesses from its address do not stop it.
        await _take(app, caller)
        raise


async def _take(app: AppRuntime, caller: Caller) -> None:
    """Raises OverRequestRateLimitError."""
    config = await app.auth.configs.get()
    await limits.admit(app, config, "token", config.rate_limits.token, caller=caller)
