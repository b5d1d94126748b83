"""From whom a provider vouches for to a user of the app: signing in, linking, unlinking.

An address links accounts only where the provider says that it is verified. An account of the same
address whose owner nobody has seen loses every way into it that it had: who made it may have
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
    BadCodeVerifierError,
    EmailExistsError,
    EmailNotProvidedError,
    FlowStateExpiredError,
    FlowStateNotFoundError,
    IdentityEmailConflictError,
    IdentityExistsError,
    IdentityNotFoundError,
    InsufficientAalError,
    ProviderEmailUnverifiedError,
    SessionNotFoundError,
    SignupDisabledError,
    SingleIdentityError,
    UserBannedError,
    UserNotFoundError,
)
from butterbase.api.auth.oauth.exchange import SignIn
from butterbase.api.auth.oauth.flows import QUERIES, Linking, bytea
from butterbase.api.auth.oauth.identity import Identity
from butterbase.api.auth.oauth.providers import Provider
from butterbase.api.auth.users import DATA_BYTES_MAX, NewUser
from butterbase.sql.claims import AUTHENTICATED
from butterbase.sql.pipeline import Result, Statement


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
        app, config, drafted, account, caller=caller, extra=_provider_tokens(signed_in)
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
    tokens = _sealed(app, signed_in)
    (result,) = await app.service.run(
        _sign_in_statement(
            config, provider, person, caller, code=code, challenge=challenge, tokens=tokens
        )
    )
    _signed_in(result, provider, person)
    return code


async def link(
    app: AppRuntime,
    config: AuthConfig,
    provider: Provider,
    signed_in: SignIn,
    linking: Linking,
    *,
    caller: Caller,
) -> bytes:
    """A new session's JSON, of the user who has the identity now.

    Raises IdentityExistsError, EmailExistsError, InsufficientAalError, UserNotFoundError,
    UserBannedError.
    """
    await _ask_hook_again(app, config, provider, signed_in.person, linking, caller)
    drafted = sessions.draft("oauth", provider=provider.name)

    def check(results: list[Result]) -> None:
        _linked(results[0].value())

    _, result = await app.service.run(
        _link_statement(provider, signed_in.person, linking, caller),
        sessions.start_statement(config, linking.user_id, drafted, caller=caller),
        check=check,
    )
    return await sessions.started(
        app, config, drafted, result, caller=caller, extra=_provider_tokens(signed_in)
    )


async def link_later(
    app: AppRuntime,
    config: AuthConfig,
    provider: Provider,
    signed_in: SignIn,
    linking: Linking,
    challenge: Challenge,
    *,
    caller: Caller,
) -> str:
    """A code that links the identity when it is exchanged: by who has asked for it, nobody else.

    Raises IdentityExistsError, SessionNotFoundError.
    """
    person, code = signed_in.person, new_code()
    await _ask_hook_again(app, config, provider, person, linking, caller)
    access_token, refresh_token = _sealed(app, signed_in)
    told = {
        "provider_id": person.subject,
        "data": person.data,
        "verified_email": person.verified_email,
    }
    owner, kept = await app.service.run(
        Statement(QUERIES["find_owner"], (provider.name.encode(), person.subject.encode())),
        Statement(
            QUERIES["keep_link"],
            (
                bytea(code_hash(code)),
                provider.name.encode(),
                linking.user_id.encode(),
                msgspec.json.encode(told),
                challenge.text.encode(),
                challenge.method.encode(),
                access_token,
                refresh_token,
                repr(caller.now_s).encode(),
                b"%d" % LIFE_S,
                linking.session_id.encode(),
            ),
        ),
    )
    if owner.row_count:
        is_own = owner.value() == linking.user_id.encode()
        raise IdentityExistsError("Identity is already linked" if is_own else "")
    if kept.row_count == 0:
        raise SessionNotFoundError
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
        Statement(
            QUERIES["exchange_code"],
            (
                bytea(code_hash(code)),
                s256(verifier).encode(),
                verifier.encode(),
                b"%d" % DATA_BYTES_MAX,
                repr(caller.now_s).encode(),
                caller.ip.encode(),
                caller.user_agent.encode("utf-8", "replace"),
                drafted.id.encode(),
                bytea(drafted.nonce),
                _boolean(config.sessions.is_single_per_user),
            ),
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
        "provider_token": _opened(app, access_token),
        "provider_refresh_token": _opened(app, refresh_token),
    }
    extra = {name: token for name, token in opened.items() if token is not None}
    return await sessions.opened(app, config, drafted, account, caller=caller, extra=extra)


async def unlink(
    app: AppRuntime, user_id: str, session_id: str, identity_id: str, *, caller: Caller
) -> None:
    """Raises SingleIdentityError, IdentityNotFoundError, InsufficientAalError,
    IdentityEmailConflictError for the one that has the user's address, UserNotFoundError.
    """
    (result,) = await app.service.run(
        Statement(
            QUERIES["unlink_identity"],
            (
                user_id.encode(),
                session_id.encode(),
                identity_id.encode(),
                repr(caller.now_s).encode(),
                caller.ip.encode(),
            ),
        )
    )
    outcome = result.value()
    if outcome == b"email_conflict":
        raise IdentityEmailConflictError(
            "Unable to unlink identity due to email conflict: change the email address first"
        )
    if outcome != b"unlinked":
        raise _UNLINK_REFUSALS.get(outcome or b"", UserNotFoundError)


_EXCHANGE_REFUSALS: Mapping[bytes, type[AuthError]] = {
    b"not_found": FlowStateNotFoundError,
    b"expired": FlowStateExpiredError,
    b"bad_verifier": BadCodeVerifierError,
    b"already": IdentityExistsError,
    b"taken": IdentityExistsError,
    b"email_exists": EmailExistsError,
    b"banned": UserBannedError,
    b"insufficient_aal": InsufficientAalError,
}

_UNLINK_REFUSALS: Mapping[bytes, type[AuthError]] = {
    b"single": SingleIdentityError,
    b"not_found": IdentityNotFoundError,
    b"insufficient_aal": InsufficientAalError,
}


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
        Statement(
            QUERIES["is_known"],
            (
                provider.name.encode(),
                person.subject.encode(),
                None if email is None else email.encode(),
            ),
        )
    )
    if result.value() == b"t":
        return
    new = _new_user(users.new_id(), provider, person)
    await users.before_created(app, config, new, caller=caller)


async def _ask_hook_again(
    app: AppRuntime,
    config: AuthConfig,
    provider: Provider,
    person: Identity,
    linking: Linking,
    caller: Caller,
) -> None:
    """The developer's, before an anonymous user becomes somebody. Raises HookRefusedError,
    HookError.
    """
    if config.hooks.before_user_created is None:
        return
    user = await users.find(app, linking.user_id, now_s=caller.now_s)
    if user is not None and user.is_anonymous:
        new = _new_user(user.id, provider, person)
        await users.before_created(app, config, new, caller=caller)


def _new_user(user_id: str, provider: Provider, person: Identity) -> NewUser:
    return NewUser(
        id=user_id,
        email=person.verified_email,
        role=AUTHENTICATED,
        user_metadata=person.data,
        app_metadata={"provider": provider.name, "providers": [provider.name]},
        provider=provider.name,
        provider_id=person.subject,
    )


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
    return Statement(
        QUERIES["sign_in_with_identity"],
        (
            provider.name.encode(),
            person.subject.encode(),
            msgspec.json.encode(person.data),
            None if email is None else email.encode(),
            _boolean(provider.settings.email_optional),
            _boolean(config.is_signup_enabled),
            b"%d" % DATA_BYTES_MAX,
            repr(caller.now_s).encode(),
            caller.ip.encode(),
            caller.user_agent.encode("utf-8", "replace"),
            None if code is None else bytea(code_hash(code)),
            b"%d" % LIFE_S,
            None if challenge is None else challenge.text.encode(),
            None if challenge is None else challenge.method.encode(),
            *tokens,
            None if drafted is None else drafted.id.encode(),
            None if drafted is None else bytea(drafted.nonce),
            _boolean(config.sessions.is_single_per_user),
        ),
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


def _link_statement(
    provider: Provider, person: Identity, linking: Linking, caller: Caller
) -> Statement:
    email = person.verified_email
    return Statement(
        QUERIES["link_identity"],
        (
            linking.user_id.encode(),
            linking.session_id.encode(),
            provider.name.encode(),
            person.subject.encode(),
            msgspec.json.encode(person.data),
            None if email is None else email.encode(),
            b"%d" % DATA_BYTES_MAX,
            repr(caller.now_s).encode(),
            caller.ip.encode(),
        ),
    )


def _linked(outcome: bytes | None) -> None:
    if outcome == b"already":
        raise IdentityExistsError("Identity is already linked")
    if outcome != b"linked":
        raise _EXCHANGE_REFUSALS.get(outcome or b"", UserNotFoundError)


def _provider_tokens(signed_in: SignIn) -> dict[str, object]:
    tokens = {
        "provider_token": signed_in.access_token,
        "provider_refresh_token": signed_in.refresh_token,
    }
    return {name: token for name, token in tokens.items() if token is not None}


def _sealed(app: AppRuntime, signed_in: SignIn) -> tuple[bytes | None, bytes | None]:
    """The provider's tokens as they wait for the client, as parameters."""
    access_token, refresh_token = (
        None
        if token is None
        else bytea(app.auth.master_key.seal(token.encode(), purpose=_purpose(app)))
        for token in (signed_in.access_token, signed_in.refresh_token)
    )
    return access_token, refresh_token


def _opened(app: AppRuntime, sealed: bytes | None) -> str | None:
    if sealed is None:
        return None
    raw = bytes.fromhex(sealed.decode().removeprefix("\\x"))
    return app.auth.master_key.open(raw, purpose=_purpose(app)).decode()


def _purpose(app: AppRuntime) -> str:
    return f"oauth-tokens:{app.id}"


def _boolean(value: bool) -> bytes:
    return b"t" if value else b"f"
