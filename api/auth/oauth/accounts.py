"""From whom a provider vouches for to a user of the app, and a session.

An address leads to an account only where the provider says that it is verified. An account of the
same address whose owner nobody has seen loses every way into it that it had: who made it may have
waited for its owner to come.
"""

from collections.abc import Mapping

import msgspec

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import sessions, users
from butterbase.api.auth.auth_codes import LIFE_S, Challenge, code_hash, new_code, s256
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    AuthError,
    SignupDisabledError,
    UserBannedError,
    UserNotFoundError,
)
from butterbase.api.auth.oauth import provider_tokens
from butterbase.api.auth.oauth.errors import (
    LINK_REFUSALS,
    BadCodeVerifierError,
    EmailNotProvidedError,
    FlowStateExpiredError,
    FlowStateNotFoundError,
    ProviderEmailUnverifiedError,
)
from butterbase.api.auth.oauth.exchange import SignIn
from butterbase.api.auth.oauth.flows import QUERIES
from butterbase.api.auth.oauth.identity import Identity
from butterbase.api.auth.oauth.providers import Provider
from butterbase.api.auth.users import DATA_BYTES_MAX, NewUser
from butterbase.sql.pipeline import Result, Statement, bytea

_EXCHANGE_REFUSALS: Mapping[bytes, type[AuthError]] = {
    b"not_found": FlowStateNotFoundError,
    b"expired": FlowStateExpiredError,
    b"bad_verifier": BadCodeVerifierError,
    **LINK_REFUSALS,
}


async def sign_in(
    app: AppRuntime, config: AuthConfig, provider: Provider, signed_in: SignIn, *, caller: Caller
) -> bytes:
    """A new session's JSON, with the provider's tokens.

    Raises UserBannedError, SignupDisabledError, ProviderEmailUnverifiedError,
    EmailNotProvidedError, and what a hook does.
    """
    person = signed_in.person
    await _ask_hook(app, config, provider, person, caller)
    drafted = sessions.draft("oauth", provider=provider.name)
    (result,) = await app.service.run(
        _sign_in_statement(config, provider, person, caller, drafted=drafted)
    )
    account = _signed_in(result, provider, person)
    assert account is not None
    return await sessions.opened(
        app, config, drafted, account, caller=caller, extra=provider_tokens.told(signed_in)
    )


async def sign_in_later(
    app: AppRuntime,
    config: AuthConfig,
    provider: Provider,
    signed_in: SignIn,
    challenge: Challenge,
    *,
    caller: Caller,
) -> str:
    """A code that `exchange` makes a session of. Raises what `sign_in` does."""
    person, code = signed_in.person, new_code()
    await _ask_hook(app, config, provider, person, caller)
    tokens = provider_tokens.sealed(app, signed_in)
    (result,) = await app.service.run(
        _sign_in_statement(
            config, provider, person, caller, code=code, challenge=challenge, tokens=tokens
        )
    )
    _signed_in(result, provider, person)
    return code


async def exchange(
    app: AppRuntime, config: AuthConfig, code: str, verifier: str, *, caller: Caller
) -> bytes:
    """The session's JSON that a code is worth, with the provider's tokens.

    Raises FlowStateNotFoundError, FlowStateExpiredError, BadCodeVerifierError, UserBannedError,
    and what `link` does.
    """
    drafted = sessions.draft("oauth")
    (result,) = await app.service.run(
        Statement.of(
            QUERIES["exchange_code"],
            bytea(code_hash(code)),
            s256(verifier),
            verifier,
            DATA_BYTES_MAX,
            caller.now_s,
            caller.ip,
            caller.user_agent,
            drafted.id,
            bytea(drafted.nonce),
            config.sessions.is_single_per_user,
        )
    )
    outcome, account, method, provider, access_token, refresh_token = result.rows()[0]
    if account is None:
        raise _EXCHANGE_REFUSALS.get(outcome or b"", UserNotFoundError)()
    assert method is not None
    drafted = msgspec.structs.replace(
        drafted, method=method.decode(), provider=None if provider is None else provider.decode()
    )
    opened = {
        "provider_token": provider_tokens.opened(app, access_token),
        "provider_refresh_token": provider_tokens.opened(app, refresh_token),
    }
    extra = {name: token for name, token in opened.items() if token is not None}
    return await sessions.opened(app, config, drafted, account, caller=caller, extra=extra)


def new_user(user_id: str, provider: Provider, person: Identity) -> NewUser:
    return NewUser(
        id=user_id,
        email=person.verified_email,
        user_metadata=person.data,
        app_metadata={"provider": provider.name, "providers": [provider.name]},
    )


async def _ask_hook(
    app: AppRuntime, config: AuthConfig, provider: Provider, person: Identity, caller: Caller
) -> None:
    """The developer's, before a user is made. Raises HookRefusedError, HookError."""
    if config.hooks.before_user_created is None or not config.is_signup_enabled:
        return
    email = person.verified_email
    if email is None and not provider.settings.email_optional:
        return
    (result,) = await app.service.run(
        Statement.of(QUERIES["is_known"], provider.name, person.subject, email)
    )
    if result.value() == b"t":
        return
    new = new_user(users.new_id(), provider, person)
    await users.before_created(app, config, new, caller=caller)


def _sign_in_statement(
    config: AuthConfig,
    provider: Provider,
    person: Identity,
    caller: Caller,
    *,
    drafted: sessions.Draft | None = None,
    code: str | None = None,
    challenge: Challenge | None = None,
    tokens: tuple[bytes | None, bytes | None] = (None, None),
) -> Statement:
    """With a draft it starts that session, with a code and a challenge it keeps the code."""
    email = person.verified_email
    return Statement.of(
        QUERIES["sign_in_with_identity"],
        provider.name,
        person.subject,
        msgspec.json.encode(person.data),
        email,
        provider.settings.email_optional,
        config.is_signup_enabled,
        DATA_BYTES_MAX,
        caller.now_s,
        caller.ip,
        caller.user_agent,
        None if code is None else bytea(code_hash(code)),
        LIFE_S,
        None if challenge is None else challenge.text,
        None if challenge is None else challenge.method,
        *tokens,
        None if drafted is None else drafted.id,
        None if drafted is None else bytea(drafted.nonce),
        config.sessions.is_single_per_user,
    )


def _signed_in(result: Result, provider: Provider, person: Identity) -> bytes | None:
    """The user's JSON where the session was started. Raises what `sign_in` does."""
    outcome, account = result.rows()[0]
    match outcome:
        case b"known" | b"linked" | b"created":
            return account
        case b"banned":
            raise UserBannedError
        case b"signup_disabled":
            raise SignupDisabledError
        case _ if person.email is None:
            raise EmailNotProvidedError("Error getting user email from external provider")
        case _:
            raise ProviderEmailUnverifiedError(
                f"Unverified email with {provider.name}. Verify the email with {provider.name} in"
                " order to sign in"
            )
