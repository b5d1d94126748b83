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
from butterbase.api.auth import hooks
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    AuthError,
    HookError,
    InvalidCredentialsError,
    OverRequestRateLimitError,
    RefreshTokenError,
    RefreshTokenReusedError,
    SessionExpiredError,
    SessionNotFoundError,
    UserBannedError,
)
from butterbase.api.auth.refresh_tokens import RefreshToken, new_nonce
from butterbase.api.auth.tokens import TokenSubject
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Result, Statement

QUERIES = load_queries("auth_sessions")

Aal: TypeAlias = Literal["aal1", "aal2"]
Scope: TypeAlias = Literal["global", "local", "others"]

_EXPIRED = {
    b"expired": "Invalid Refresh Token: Session Expired",
    b"inactive": "Invalid Refresh Token: Session Expired (Inactivity)",
    b"superseded": "Invalid Refresh Token: Session Expired (Revoked by Newer Login)",
}


class _User(Struct, frozen=True):
    """What a token needs of the user; the rest of its JSON is passed on."""

    id: str
    aud: str
    role: str
    email: str
    phone: str
    app_metadata: dict[str, Any]
    user_metadata: dict[str, Any]
    is_anonymous: bool


class _Session(Struct, frozen=True):
    access_token: str
    token_type: str
    expires_in: int
    expires_at: int
    refresh_token: str
    user: msgspec.Raw


class Draft(Struct, frozen=True):
    """A session that a statement is to start."""

    id: str
    nonce: bytes
    method: str
    provider: str | None
    aal: Aal


_USER = msgspec.json.Decoder(_User)
_AMR = msgspec.json.Decoder(list[dict[str, Any]])


def draft(method: str, *, provider: str | None = None, aal: Aal = "aal1") -> Draft:
    """`method` is the amr's: password, otp, magiclink, recovery, oauth, anonymous, totp, …"""
    return Draft(str(uuid.uuid4()), new_nonce(), method, provider, aal)


def start_statement(
    config: AuthConfig,
    user_id: str,
    drafted: Draft,
    *,
    caller: Caller,
    factor_id: str | None = None,
    old_password_hash: str | None = None,
    new_password_hash: str | None = None,
) -> Statement:
    """Starts the session; `started` reads its result.

    `old_password_hash` must still be the user's, and is replaced where a new one is given.
    """
    return Statement(
        QUERIES["start_session"],
        (
            user_id.encode(),
            drafted.id.encode(),
            _bytea(drafted.nonce),
            repr(caller.now_s).encode(),
            drafted.method.encode(),
            _text(drafted.provider),
            drafted.aal.encode(),
            _text(factor_id),
            None,
            b"t" if config.sessions.is_single_per_user else b"f",
            caller.ip.encode(),
            caller.user_agent.encode("utf-8", "replace"),
            None,
            _text(old_password_hash),
            _text(new_password_hash),
        ),
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
    return await opened(app, config, drafted, _account(result), caller=caller, extra=extra)


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
    return await _answer(
        app,
        config,
        account,
        RefreshToken(drafted.id, drafted.nonce, 0),
        aal=drafted.aal,
        amr=[amr],
        ends_at_s=_end_of(config, caller.now_s),
        method=drafted.method,
        now_s=caller.now_s,
        extra=extra,
    )


async def issue(
    app: AppRuntime,
    user_id: str,
    *,
    method: str,
    caller: Caller,
    aal: Aal = "aal1",
    provider: str | None = None,
    factor_id: str | None = None,
    old_password_hash: str | None = None,
    new_password_hash: str | None = None,
    before: Sequence[Statement] = (),
    extra: Mapping[str, object] = {},
) -> bytes:
    """Start a session of a user who has proved to be one; its JSON.

    `before` is run in the same transaction, and undone when the session does not start. `extra` are
    members beside those of a session. Raises UserBannedError, InvalidCredentialsError when the user
    is gone or has another password than the old one.
    """
    config = await app.auth.configs.get()
    drafted = draft(method, provider=provider, aal=aal)
    start = start_statement(
        config,
        user_id,
        drafted,
        caller=caller,
        factor_id=factor_id,
        old_password_hash=old_password_hash,
        new_password_hash=new_password_hash,
    )
    # Alone it needs no check, which would cost a second round trip: it does all or nothing.
    check = _check_started if before else None
    *_, result = await app.service.run(*before, start, check=check)
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
        Statement(
            QUERIES["refresh_session"],
            (
                token.session_id.encode(),
                b"%d" % token.counter,
                _bytea(token.nonce),
                repr(caller.now_s).encode(),
                b"%d" % config.refresh_reuse_s,
                *_ends(config),
                repr(limits.refresh.per_s / limits.refresh.count).encode(),
                b"%d" % (limits.refresh.burst if limits.is_enabled else 0),
                caller.ip.encode(),
                caller.user_agent.encode("utf-8", "replace"),
            ),
        )
    )
    outcome, wait_s, counter, aal, amr, ends_at, account = result.rows()[0]
    if account is None or counter is None or aal is None or amr is None:
        raise _refusal(outcome, wait_s)
    return await _answer(
        app,
        config,
        account,
        RefreshToken(token.session_id, token.nonce, int(counter)),
        aal=aal.decode(),
        amr=_AMR.decode(amr),
        ends_at_s=None if ends_at is None else float(ends_at),
        method="token_refresh",
        now_s=caller.now_s,
    )


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
        Statement(
            QUERIES["upgrade_session"],
            (
                session_id.encode(),
                user_id.encode(),
                _bytea(nonce),
                repr(caller.now_s).encode(),
                method.encode(),
                aal.encode(),
                _text(factor_id),
                *_ends(config),
            ),
        ),
        check=check,
    )
    _, counter, new_aal, amr, ends_at, account = result.rows()[0]
    assert counter is not None
    assert new_aal is not None
    assert amr is not None
    assert account is not None
    return await _answer(
        app,
        config,
        account,
        RefreshToken(session_id, nonce, int(counter)),
        aal=new_aal.decode(),
        amr=_AMR.decode(amr),
        ends_at_s=None if ends_at is None else float(ends_at),
        method=method,
        now_s=caller.now_s,
    )


def end_statement(user_id: str, session_id: str | None, scope: Scope) -> Statement:
    """Ends sessions of the user: the one, all others but it, or all of them (global)."""
    return Statement(QUERIES["end_sessions"], (user_id.encode(), _text(session_id), scope.encode()))


async def listed(app: AppRuntime, user_id: str) -> bytes:
    """The user's sessions as a JSON array, the newest first, without what makes tokens."""
    (result,) = await app.service.run(Statement(QUERIES["list_sessions"], (user_id.encode(),)))
    return result.value() or b"[]"


def _check_started(results: list[Result]) -> None:
    _account(results[-1])


def _account(result: Result) -> bytes:
    outcome, account = result.rows()[0]
    if outcome == b"banned":
        raise UserBannedError
    if account is None:
        raise InvalidCredentialsError
    return account


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


def _ends(config: AuthConfig) -> tuple[bytes | None, bytes | None, bytes]:
    """What ends a session, as parameters."""
    limits = config.sessions
    return (
        _number(limits.timebox_s),
        _number(limits.inactivity_s),
        b"t" if limits.is_single_per_user else b"f",
    )


def _end_of(config: AuthConfig, started_at_s: float) -> float | None:
    timebox_s = config.sessions.timebox_s
    return None if timebox_s is None else started_at_s + timebox_s


async def _answer(
    app: AppRuntime,
    config: AuthConfig,
    account: bytes,
    refresh_token: RefreshToken,
    *,
    aal: str,
    amr: list[dict[str, Any]],
    ends_at_s: float | None,
    method: str,
    now_s: float,
    extra: Mapping[str, object] = {},
) -> bytes:
    auth = app.auth
    user = _USER.decode(account)
    subject = TokenSubject(
        user.id,
        user.email,
        refresh_token.session_id,
        user.app_metadata,
        user.user_metadata,
        phone=user.phone,
        role=user.role,
        aud=user.aud,
        aal=aal,
        amr=amr,
        is_anonymous=user.is_anonymous,
    )
    issued_at_s = int(now_s)
    expires_at_s = issued_at_s + (config.jwt_expiry_s or auth.jwt_expiry_s)
    if ends_at_s is not None:
        expires_at_s = max(issued_at_s + 1, min(expires_at_s, int(ends_at_s)))
    claims = auth.tokens.claims_of(subject, issued_at_s=issued_at_s, expires_at_s=expires_at_s)
    if config.hooks.custom_access_token is not None:
        claims = await _customized(app, config, config.hooks.custom_access_token, claims, method)
    session = _Session(
        access_token=auth.tokens.sign_claims(
            claims, algorithm=config.jwt_algorithm, now_s=issued_at_s
        ),
        token_type="bearer",  # noqa: S106  a kind of token, not a secret (RFC 6750)
        expires_in=expires_at_s - issued_at_s,
        expires_at=expires_at_s,
        refresh_token=auth.refresh_tokens.encode(refresh_token),
        user=msgspec.Raw(account),
    )
    if extra:
        return msgspec.json.encode({**msgspec.structs.asdict(session), **extra})
    return msgspec.json.encode(session)


async def _customized(
    app: AppRuntime, config: AuthConfig, hook: str, claims: dict[str, Any], method: str
) -> dict[str, Any]:
    """The claims the developer's hook makes of ours; whose token it is, it does not change."""
    answer = await hooks.call(
        app,
        config,
        hook,
        {"user_id": claims["sub"], "claims": claims, "authentication_method": method},
    )
    changed = answer.get("claims")
    if not isinstance(changed, dict):
        raise HookError("the hook answered no claims")
    hooks.check_role(claims, changed)
    fixed = {name: claims[name] for name in ("iss", "sub", "aud", "iat", "exp", "session_id")}
    return {**changed, **fixed}


def _bytea(value: bytes) -> bytes:
    """In the text format."""
    return b"\\x" + value.hex().encode()


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode()


def _number(value: float | None) -> bytes | None:
    return None if value is None else repr(value).encode()
