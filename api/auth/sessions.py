"""Sessions: the only place that starts, refreshes and ends them.

A session is a row; its access tokens carry its id, and its refresh tokens are made of its id and
counter under a key that is not in the database. Each of the operations is one statement.
"""

import math
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    AuthError,
    InvalidCredentialsError,
    OverRequestRateLimitError,
    RefreshTokenError,
    RefreshTokenReusedError,
    SessionExpiredError,
    SessionNotFoundError,
    UserBannedError,
)
from butterbase.api.auth.refresh_tokens import RefreshToken, new_nonce
from butterbase.api.auth.session_json import Opened, session_json
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Result, Statement, bytea

QUERIES = load_queries("auth_sessions")

Aal: TypeAlias = Literal["aal1", "aal2"]
Scope: TypeAlias = Literal["global", "local", "others"]

_EXPIRED = {
    b"expired": "Invalid Refresh Token: Session Expired",
    b"inactive": "Invalid Refresh Token: Session Expired (Inactivity)",
    b"superseded": "Invalid Refresh Token: Session Expired (Revoked by Newer Login)",
}


class Draft(Struct, frozen=True):
    """A session that a statement is to start."""

    id: str
    nonce: bytes
    method: str
    provider: str | None


_AMR = msgspec.json.Decoder(list[dict[str, Any]])


def draft(method: str, *, provider: str | None = None) -> Draft:
    """`method` is the amr's: password, otp, recovery, oauth, anonymous."""
    return Draft(str(uuid.uuid4()), new_nonce(), method, provider)


def start_statement(
    config: AuthConfig,
    user_id: str,
    drafted: Draft,
    *,
    caller: Caller,
    old_password_hash: str | None = None,
    new_password_hash: str | None = None,
) -> Statement:
    """Starts the session; `started` reads its result.

    `old_password_hash` must still be the user's, and is replaced where a new one is given.
    """
    return Statement.of(
        QUERIES["start_session"],
        user_id,
        drafted.id,
        bytea(drafted.nonce),
        caller.now_s,
        drafted.method,
        drafted.provider,
        config.sessions.is_single_per_user,
        caller.ip,
        caller.user_agent,
        old_password_hash,
        new_password_hash,
    )


async def started(
    app: AppRuntime,
    config: AuthConfig,
    drafted: Draft,
    result: Result,
    *,
    caller: Caller,
    extra: Mapping[str, object] = {},
) -> bytes:
    """The session's JSON, with `extra` members. Raises UserBannedError, InvalidCredentialsError."""
    outcome, account = result.rows()[0]
    if outcome == b"banned":
        raise UserBannedError
    if account is None:
        raise InvalidCredentialsError
    return await opened(app, config, drafted, account, caller=caller, extra=extra)


async def opened(
    app: AppRuntime,
    config: AuthConfig,
    drafted: Draft,
    account: bytes,
    *,
    caller: Caller,
    extra: Mapping[str, object] = {},
) -> bytes:
    """The JSON of a session that a statement has started; `account` is its user's."""
    amr: dict[str, Any] = {"method": drafted.method, "timestamp": math.floor(caller.now_s)}
    if drafted.provider is not None:
        amr["provider"] = drafted.provider
    timebox_s = config.sessions.timebox_s
    new = Opened(
        account,
        RefreshToken(drafted.id, drafted.nonce, 0),
        aal="aal1",
        amr=[amr],
        ends_at_s=None if timebox_s is None else caller.now_s + timebox_s,
    )
    return await session_json(
        app, config, new, method=drafted.method, now_s=caller.now_s, extra=extra
    )


async def issue(
    app: AppRuntime,
    user_id: str,
    *,
    method: str,
    caller: Caller,
    old_password_hash: str | None = None,
    new_password_hash: str | None = None,
    extra: Mapping[str, object] = {},
) -> bytes:
    """Start a session of a user who has proved to be one; its JSON, with `extra` members.

    Raises UserBannedError, InvalidCredentialsError when the user is gone or has another password
    than the old one.
    """
    config, drafted = await app.auth.configs.get(), draft(method)
    (result,) = await app.service.run(
        start_statement(
            config,
            user_id,
            drafted,
            caller=caller,
            old_password_hash=old_password_hash,
            new_password_hash=new_password_hash,
        )
    )
    return await started(app, config, drafted, result, caller=caller, extra=extra)


async def refresh(app: AppRuntime, refresh_token: str, *, caller: Caller) -> bytes:
    """A session's JSON for its refresh token, with the next one.

    Raises RefreshTokenError, RefreshTokenReusedError, SessionExpiredError, UserBannedError,
    OverRequestRateLimitError.
    """
    auth = app.auth
    token = auth.refresh_tokens.decode(refresh_token)
    config = await auth.configs.get()
    limits = config.rate_limits
    (result,) = await app.service.run(
        Statement.of(
            QUERIES["refresh_session"],
            token.session_id,
            token.counter,
            bytea(token.nonce),
            caller.now_s,
            config.refresh_reuse_s,
            *_ends(config),
            limits.refresh.per_s / limits.refresh.count,
            limits.refresh.burst if limits.is_enabled else 0,
            caller.ip,
            caller.user_agent,
        )
    )
    outcome, wait_s, *session = result.rows()[0]
    if outcome not in (b"rotated", b"reissued"):
        raise _refusal(outcome, wait_s)
    opened = _opened(token.session_id, token.nonce, *session)
    return await session_json(app, config, opened, method="token_refresh", now_s=caller.now_s)


async def upgrade(
    app: AppRuntime,
    session_id: str,
    user_id: str,
    *,
    method: str,
    aal: Aal,
    caller: Caller,
    factor_id: str | None = None,
    before: Sequence[Statement] = (),
) -> bytes:
    """The same session with one more method, and new tokens; those it had are void.

    `before` is run in the same transaction. Raises SessionNotFoundError, UserBannedError.
    """
    config = await app.auth.configs.get()
    nonce = new_nonce()

    def check(results: list[Result]) -> None:
        outcome = results[-1].value()
        if outcome == b"banned":
            raise UserBannedError
        if outcome != b"upgraded":
            raise SessionNotFoundError

    *_, result = await app.service.run(
        *before,
        Statement.of(
            QUERIES["upgrade_session"],
            session_id,
            user_id,
            bytea(nonce),
            caller.now_s,
            method,
            aal,
            factor_id,
            *_ends(config),
        ),
        check=check,
    )
    _, *session = result.rows()[0]
    opened = _opened(session_id, nonce, *session)
    return await session_json(app, config, opened, method=method, now_s=caller.now_s)


def end_statement(user_id: str, session_id: str | None, scope: Scope) -> Statement:
    """Ends sessions of the user: the one, all others but it, or all of them (global)."""
    return Statement.of(QUERIES["end_sessions"], user_id, session_id, scope)


async def listed(app: AppRuntime, user_id: str) -> bytes:
    """The user's sessions as a JSON array, the newest first, without what makes tokens."""
    (result,) = await app.service.run(Statement.of(QUERIES["list_sessions"], user_id))
    return result.value() or b"[]"


def _opened(
    session_id: str,
    nonce: bytes,
    counter: bytes | None,
    aal: bytes | None,
    amr: bytes | None,
    ends_at_s: bytes | None,
    account: bytes | None,
) -> Opened:
    """Of the row of a session that goes on."""
    assert counter is not None
    assert aal is not None
    assert amr is not None
    assert account is not None
    return Opened(
        account,
        RefreshToken(session_id, nonce, int(counter)),
        aal=aal.decode(),
        amr=_AMR.decode(amr),
        ends_at_s=None if ends_at_s is None else float(ends_at_s),
    )


def _refusal(outcome: bytes | None, wait_s: bytes | None) -> AuthError:
    if outcome == b"limited":
        return OverRequestRateLimitError(retry_after_s=float(wait_s or 1))
    if outcome == b"banned":
        return UserBannedError("Invalid Refresh Token: User Banned")
    if outcome == b"reused":
        return RefreshTokenReusedError()
    if outcome in _EXPIRED:
        return SessionExpiredError(_EXPIRED[outcome])
    return RefreshTokenError()


def _ends(config: AuthConfig) -> tuple[int | None, int | None, bool]:
    """What ends a session, as parameters."""
    limits = config.sessions
    return limits.timebox_s, limits.inactivity_s, limits.is_single_per_user
