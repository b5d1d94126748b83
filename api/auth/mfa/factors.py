"""A user's second factors: begun, challenged, verified, and given up. NIST SP 800-63B, 5.1.4.

A challenge is bound to the address it was asked from, and allows few tries. A code is good once:
the step it is of is kept with the factor, and no later code may be of the same or an earlier one.
"""

import uuid
from urllib.parse import urlsplit

from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import audit, limits, sessions
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    AuthError,
    AuthForbiddenError,
    OverRequestRateLimitError,
    SessionNotFoundError,
    UserBannedError,
)
from butterbase.api.auth.mfa import totp
from butterbase.api.auth.mfa.errors import (
    ChallengeExpiredError,
    ChallengeNotFoundError,
    EnrollAalError,
    FactorIpMismatchError,
    FactorNameConflictError,
    FactorNotFoundError,
    FactorVerificationError,
    TooManyFactorsError,
    TotpEnrollDisabledError,
    TotpVerifyDisabledError,
    UnenrollAalError,
)
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Statement, bytea

QUERIES = load_queries("auth_mfa")

TRIES_MAX = 5
"""Of a challenge."""

UNVERIFIED_LIFE_S = 300
"""How long a factor that was begun waits for its first code."""

_USED = "ZM001"

_REFUSALS: dict[bytes, type[AuthError]] = {
    b"gone": SessionNotFoundError,
    b"banned": UserBannedError,
    b"not_found": FactorNotFoundError,
    b"unknown": ChallengeNotFoundError,
    b"mismatch": FactorIpMismatchError,
    b"expired": ChallengeExpiredError,
    b"exhausted": ChallengeExpiredError,
    b"too_many": TooManyFactorsError,
}


class SignedIn(Struct, frozen=True):
    """Whose session it is that asks."""

    user_id: str
    session_id: str


class Totp(Struct, frozen=True):
    """What the user's app is to know. Told once."""

    qr_code: str
    """An SVG."""
    secret: str
    uri: str


class Enrolled(Struct, frozen=True):
    id: str
    type: str
    friendly_name: str
    totp: Totp


class Challenged(Struct, frozen=True):
    id: str
    type: str
    expires_at: int


async def enrol(
    app: AppRuntime, who: SignedIn, *, name: str, issuer: str | None, caller: Caller
) -> Enrolled:
    """Begin a factor; its first code will verify it.

    Raises TotpEnrollDisabledError, SessionNotFoundError, UserBannedError, AuthForbiddenError for
    anonymous users, EnrollAalError, FactorNameConflictError, TooManyFactorsError,
    OverRequestRateLimitError.
    """
    config = await app.auth.configs.get()
    if not config.mfa.is_totp_enroll_enabled:
        raise TotpEnrollDisabledError
    await limits.admit(app, config, "mfa", config.rate_limits.mfa, caller=caller)
    factor_id, secret = str(uuid.uuid4()), totp.new_secret()
    sealed = app.auth.master_key.seal(secret, purpose=_purpose(app, factor_id))
    (result,) = await app.service.run(
        Statement.of(
            QUERIES["enrol_factor"],
            who.user_id,
            who.session_id,
            factor_id,
            name,
            bytea(sealed),
            caller.now_s,
            UNVERIFIED_LIFE_S,
            config.mfa.factor_count_max,
            caller.ip,
        )
    )
    outcome, label = result.rows()[0]
    if label is None:
        match outcome:
            case b"anonymous":
                raise AuthForbiddenError("Anonymous user not allowed to perform these actions")
            case b"insufficient_aal":
                raise EnrollAalError
            case b"name_conflict":
                raise FactorNameConflictError(
                    f'A factor with the friendly name "{name}" for this user already exists'
                )
            case _:
                raise _refusal(outcome)
    uri = totp.provisioning_uri(secret, issuer=issuer or _host(app, config), account=label.decode())
    return Enrolled(
        factor_id, "totp", name, Totp(totp.qr_svg(uri), totp.format_secret(secret), uri)
    )


async def challenge(
    app: AppRuntime, who: SignedIn, factor_id: str, *, caller: Caller
) -> Challenged:
    """Raises TotpVerifyDisabledError, SessionNotFoundError, UserBannedError, FactorNotFoundError,
    OverRequestRateLimitError.
    """
    config = await app.auth.configs.get()
    if not config.mfa.is_totp_verify_enabled:
        raise TotpVerifyDisabledError
    await limits.admit(app, config, "mfa", config.rate_limits.mfa, caller=caller)
    challenge_id, life_s = str(uuid.uuid4()), config.mfa.challenge_expiry_s
    (result,) = await app.service.run(
        Statement.of(
            QUERIES["challenge_factor"],
            who.user_id,
            who.session_id,
            factor_id,
            challenge_id,
            caller.now_s,
            life_s,
            caller.ip,
        )
    )
    if result.value() != b"challenged":
        raise _refusal(result.value())
    return Challenged(challenge_id, "totp", int(caller.now_s) + life_s)


async def verify(
    app: AppRuntime,
    who: SignedIn,
    factor_id: str,
    *,
    challenge_id: str,
    code: str,
    caller: Caller,
) -> bytes:
    """The session's JSON, of aal2 from now on, with new tokens. The user's other sessions of less
    than that have ended.

    Raises TotpVerifyDisabledError, SessionNotFoundError, UserBannedError, FactorNotFoundError,
    ChallengeNotFoundError, FactorIpMismatchError, ChallengeExpiredError, FactorVerificationError,
    OverRequestRateLimitError.
    """
    config = await app.auth.configs.get()
    if not config.mfa.is_totp_verify_enabled:
        raise TotpVerifyDisabledError
    sealed = await _try(app, config, who, factor_id, challenge_id, caller=caller)
    secret = app.auth.master_key.open(sealed, purpose=_purpose(app, factor_id))
    step = totp.matching_step(secret, code, now_s=caller.now_s)
    if step is None:
        traits = {"factor_id": factor_id, "challenge_id": challenge_id, "is_valid": False}
        await app.service.run(
            audit.entry("verification_attempted", user_id=who.user_id, caller=caller, traits=traits)
        )
        raise FactorVerificationError
    use = Statement.of(
        QUERIES["use_factor"],
        who.user_id,
        who.session_id,
        factor_id,
        challenge_id,
        step,
        caller.now_s,
        caller.ip,
    )
    try:
        return await sessions.upgrade(
            app,
            who.session_id,
            who.user_id,
            method="totp",
            aal="aal2",
            caller=caller,
            factor_id=factor_id,
            before=[use],
        )
    except DatabaseError as error:
        if error.sqlstate == _USED:
            raise FactorVerificationError from None
        raise


async def unenrol(
    app: AppRuntime, user_id: str, session_id: str | None, factor_id: str, *, caller: Caller
) -> bytes:
    """The factor's JSON as it was. Without a session it is an administrator who asks.

    Raises SessionNotFoundError, UserBannedError, FactorNotFoundError, UnenrollAalError.
    """
    (result,) = await app.service.run(
        Statement.of(
            QUERIES["unenrol_factor"], user_id, session_id, factor_id, caller.now_s, caller.ip
        )
    )
    outcome, factor = result.rows()[0]
    if factor is None:
        raise UnenrollAalError if outcome == b"insufficient_aal" else _refusal(outcome)
    return factor


async def _try(
    app: AppRuntime,
    config: AuthConfig,
    who: SignedIn,
    factor_id: str,
    challenge_id: str,
    *,
    caller: Caller,
) -> bytes:
    """Count a try, and answer the factor's sealed secret."""
    limit = config.rate_limits
    try_challenge = Statement.of(
        QUERIES["try_challenge"],
        who.user_id,
        who.session_id,
        factor_id,
        challenge_id,
        caller.now_s,
        config.mfa.challenge_expiry_s,
        TRIES_MAX,
        caller.ip,
        limits.key("mfa_account", who.user_id),
        limit.mfa_account.per_s / limit.mfa_account.count,
        limit.mfa_account.burst if limit.is_enabled else 0,
    )
    await limits.admit(app, config, "mfa", config.rate_limits.mfa, caller=caller)
    (result,) = await app.service.run(try_challenge)
    outcome, sealed, wait_s = result.rows()[0]
    if outcome == b"limited":
        raise OverRequestRateLimitError(retry_after_s=float(wait_s or 1))
    if sealed is None:
        raise _refusal(outcome)
    return bytes.fromhex(sealed[2:].decode())


def _refusal(outcome: bytes | None) -> AuthError:
    assert outcome is not None
    return _REFUSALS[outcome]()


def _purpose(app: AppRuntime, factor_id: str) -> str:
    # Of the factor alone, so that a secret that is moved to another user's factor opens nothing.
    return f"totp:{app.id}:{factor_id}"


def _host(app: AppRuntime, config: AuthConfig) -> str:
    return urlsplit(config.site_url or app.auth.url).hostname or "localhost"
