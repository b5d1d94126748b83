"""`GET /user`, `PUT /user`: who is signed in, and what he changes of himself."""

from typing import Any

import msgspec
from falcon.asgi import App, Request, Response
from msgspec import UNSET, Struct, UnsetType

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import audit, limits, sessions, users
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    CurrentPasswordInvalidError,
    CurrentPasswordRequiredError,
    EmailExistsError,
    InsufficientAalError,
    InvalidAuthBodyError,
    NotAdminError,
    PhoneProviderDisabledError,
    ReauthenticationNeededError,
    SamePasswordError,
    SessionNotFoundError,
)
from butterbase.api.auth.parts import AuthParts, Flow
from butterbase.api.auth.policy import check_email, check_password
from butterbase.api.auth.resources.requests import SignedIn, answer, app_of, read, signed_in
from butterbase.sql.pipeline import Result, Statement

RECENT_S = 24 * 3600
"""A session that is younger needs no reauthentication."""

_DATA_BYTES_MAX = 2 * users.DATA_BYTES_MAX
"""Of what all updates come to."""


class UserUpdate(Struct, frozen=True):
    email: str | None = None
    phone: str | None = None
    password: str | None = None
    current_password: str | None = None
    nonce: str | None = None
    data: dict[str, Any] | None = None
    app_metadata: msgspec.Raw | UnsetType = UNSET
    code_challenge: str | None = None
    code_challenge_method: str | None = None


_UPDATE = msgspec.json.Decoder(UserUpdate)


def add_routes(app: "App[Any, Any]", prefix: str, parts: AuthParts) -> None:
    app.add_route(f"{prefix}/user", UserResource(parts))


class UserResource:
    def __init__(self, parts: AuthParts) -> None:
        self._parts = parts

    async def on_get(self, req: Request, resp: Response) -> None:
        answer(resp, bytes((await signed_in(req, Caller.of(req))).user.json))

    async def on_put(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        asked = await read(req, _UPDATE)
        config, who = await app.auth.configs.get(), await signed_in(req, caller)
        if config.rate_limits.is_enabled:
            key = limits.key("user", caller.ip, who.user.id)
            await limits.take(app, key, config.rate_limits.user, now_s=caller.now_s)
        flow = Flow(req.get_param("redirect_to"), asked.code_challenge, asked.code_challenge_method)
        email = _new_email(asked, who)
        _check_allowed(asked, email, who, config)
        if email is not None and who.user.is_anonymous:
            # As if it signed up now: it was nobody in particular when the hook was asked.
            upgraded = users.NewUser(id=who.user.id, email=email, user_metadata=asked.data or {})
            await users.before_created(app, config, upgraded, caller=caller)
        password_hash = None
        if asked.password:
            await self._check_password(app, asked, who, config, caller)
            password_hash = await self._parts.passwords.hash(asked.password, client=caller.ip)
        claimed = email if who.user.is_anonymous and config.is_email_autoconfirmed else None
        await _update(app, asked, who, password_hash, claimed, caller)
        if email is not None and claimed is None:
            await self._parts.mails.change_email(app, who.user, email, flow=flow, caller=caller)
        body = await users.json(app, who.user.id)
        if body is None:
            raise SessionNotFoundError
        answer(resp, body)

    async def _check_password(
        self,
        app: AppRuntime,
        asked: UserUpdate,
        who: SignedIn,
        config: AuthConfig,
        caller: Caller,
    ) -> None:
        """Whether this session may set the new password."""
        assert asked.password is not None
        check_password(asked.password, config.password)
        passwords, stored = self._parts.passwords, who.user.password_hash
        is_old = caller.now_s - who.started_at_s >= RECENT_S
        if config.is_reauthentication_required and is_old:
            if not asked.nonce:
                raise ReauthenticationNeededError
            await self._parts.mails.spend_nonce(app, who.user, asked.nonce, caller=caller)
        if stored is None:
            return
        if config.is_current_password_required and "recovery" not in who.methods:
            if not asked.current_password:
                raise CurrentPasswordRequiredError
            if not await passwords.verify(stored, asked.current_password, client=caller.ip):
                raise CurrentPasswordInvalidError
        if await passwords.verify(stored, asked.password, client=caller.ip):
            raise SamePasswordError


def _new_email(asked: UserUpdate, who: SignedIn) -> str | None:
    if not asked.email:
        return None
    email = check_email(asked.email)
    return None if email == (who.user.email or "").lower() else email


def _check_allowed(asked: UserUpdate, email: str | None, who: SignedIn, config: AuthConfig) -> None:
    if asked.app_metadata is not UNSET:
        raise NotAdminError("Updating app_metadata requires admin privileges")
    if asked.phone:
        raise PhoneProviderDisabledError("Phone logins are disabled")
    if who.user.has_verified_factor and who.aal != "aal2" and (asked.password or email):
        raise InsufficientAalError
    if asked.password and who.user.is_anonymous and email is None and who.user.email is None:
        raise InvalidAuthBodyError(
            "Updating password of an anonymous user without an email or phone is not allowed"
        )
    users.encode_metadata(asked.data or {})


async def _update(
    app: AppRuntime,
    asked: UserUpdate,
    who: SignedIn,
    password_hash: str | None,
    claimed: str | None,
    caller: Caller,
) -> None:
    """All that needs no mail, in one transaction: all of it or nothing."""
    user_id, now_s = who.user.id, caller.now_s
    statements = [_update_statement(asked, who, password_hash, now_s)]
    if claimed is not None:
        statements.append(_claim_statement(claimed, who, caller))
    if password_hash is not None:
        statements += [
            Statement.of(users.QUERIES["void_mailed"], user_id),
            Statement.of(users.QUERIES["add_password_identity"], user_id, now_s),
            audit.entry("user_updated_password", user_id=who.user.id, caller=caller),
            sessions.end_statement(who.user.id, who.session_id, "others"),
        ]
    if asked.data is not None:
        statements.append(audit.entry("user_modified", user_id=who.user.id, caller=caller))

    def check(results: list[Result]) -> None:
        if results[0].value() == b"too_much":
            raise InvalidAuthBodyError(f"data comes to more than {_DATA_BYTES_MAX} bytes")
        if results[0].value() != b"updated":
            raise SessionNotFoundError
        if claimed is not None and results[1].value() == b"email_exists":
            raise EmailExistsError
        if claimed is not None and results[1].value() != b"claimed":
            raise SessionNotFoundError

    await app.service.run(*statements, check=check)


def _update_statement(
    asked: UserUpdate, who: SignedIn, password_hash: str | None, now_s: float
) -> Statement:
    return Statement.of(
        users.QUERIES["update_user"],
        who.user.id,
        who.session_id,
        now_s,
        password_hash,
        who.user.password_hash,
        None if asked.data is None else msgspec.json.encode(asked.data),
        _DATA_BYTES_MAX,
    )


def _claim_statement(email: str, who: SignedIn, caller: Caller) -> Statement:
    return Statement.of(
        users.QUERIES["claim_email"],
        who.user.id,
        who.session_id,
        email,
        None,
        caller.now_s,
        caller.ip,
    )
