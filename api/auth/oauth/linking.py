"""Linking what a provider vouches for to a user who is signed in, and unlinking it."""

from collections.abc import Mapping

import msgspec

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import sessions, users
from butterbase.api.auth.auth_codes import LIFE_S, Challenge, code_hash, new_code
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    AuthError,
    InsufficientAalError,
    SessionNotFoundError,
    UserNotFoundError,
)
from butterbase.api.auth.oauth import provider_tokens
from butterbase.api.auth.oauth.accounts import new_user
from butterbase.api.auth.oauth.errors import (
    LINK_REFUSALS,
    IdentityEmailConflictError,
    IdentityExistsError,
    IdentityNotFoundError,
    SingleIdentityError,
)
from butterbase.api.auth.oauth.exchange import SignIn
from butterbase.api.auth.oauth.flows import QUERIES, Linking
from butterbase.api.auth.oauth.identity import Identity
from butterbase.api.auth.oauth.providers import Provider
from butterbase.api.auth.users import DATA_BYTES_MAX
from butterbase.sql.pipeline import Result, Statement, bytea

_UNLINK_REFUSALS: Mapping[bytes, type[AuthError]] = {
    b"single": SingleIdentityError,
    b"not_found": IdentityNotFoundError,
    b"insufficient_aal": InsufficientAalError,
}


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
        app, config, drafted, result, caller=caller, extra=provider_tokens.told(signed_in)
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
    access_token, refresh_token = provider_tokens.sealed(app, signed_in)
    told = {
        "provider_id": person.subject,
        "data": person.data,
        "verified_email": person.verified_email,
    }
    owner, kept = await app.service.run(
        Statement.of(QUERIES["find_owner"], provider.name, person.subject),
        Statement.of(
            QUERIES["keep_link"],
            bytea(code_hash(code)),
            provider.name,
            linking.user_id,
            msgspec.json.encode(told),
            challenge.text,
            challenge.method,
            access_token,
            refresh_token,
            caller.now_s,
            LIFE_S,
            linking.session_id,
        ),
    )
    if owner.row_count:
        is_own = owner.value() == linking.user_id.encode()
        raise IdentityExistsError("Identity is already linked" if is_own else "")
    if kept.row_count == 0:
        raise SessionNotFoundError
    return code


async def unlink(
    app: AppRuntime, user_id: str, session_id: str, identity_id: str, *, caller: Caller
) -> None:
    """Raises SingleIdentityError, IdentityNotFoundError, InsufficientAalError,
    IdentityEmailConflictError for the one that has the user's address, UserNotFoundError.
    """
    (result,) = await app.service.run(
        Statement.of(
            QUERIES["unlink_identity"], user_id, session_id, identity_id, caller.now_s, caller.ip
        )
    )
    outcome = result.value()
    if outcome == b"email_conflict":
        raise IdentityEmailConflictError(
            "Unable to unlink identity due to email conflict: change the email address first"
        )
    if outcome != b"unlinked":
        raise _UNLINK_REFUSALS.get(outcome or b"", UserNotFoundError)


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
        new = new_user(user.id, provider, person)
        await users.before_created(app, config, new, caller=caller)


def _link_statement(
    provider: Provider, person: Identity, linking: Linking, caller: Caller
) -> Statement:
    email = person.verified_email
    return Statement.of(
        QUERIES["link_identity"],
        linking.user_id,
        linking.session_id,
        provider.name,
        person.subject,
        msgspec.json.encode(person.data),
        email,
        DATA_BYTES_MAX,
        caller.now_s,
        caller.ip,
    )


def _linked(outcome: bytes | None) -> None:
    if outcome == b"already":
        raise IdentityExistsError("Identity is already linked")
    if outcome != b"linked":
        raise LINK_REFUSALS.get(outcome or b"", UserNotFoundError)
