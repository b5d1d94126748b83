"""The JSON of a session, as its client gets it: two tokens, their times, and the user."""

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import hooks
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import HookError
from butterbase.api.auth.refresh_tokens import RefreshToken
from butterbase.api.auth.tokens import TokenSubject


class Opened(Struct, frozen=True):
    """A session as a statement has left it."""

    account: bytes
    """Its user's JSON."""
    refresh_token: RefreshToken
    aal: str
    amr: list[dict[str, Any]]
    ends_at_s: float | None
    """At the latest."""


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


class _Fragment(Struct, frozen=True, omit_defaults=True):
    """What of a session goes into a fragment."""

    access_token: str
    token_type: str
    expires_in: int
    expires_at: int
    refresh_token: str
    provider_token: str | None = None
    provider_refresh_token: str | None = None


_USER = msgspec.json.Decoder(_User)
_FRAGMENT = msgspec.json.Decoder(_Fragment)


async def session_json(
    app: AppRuntime,
    config: AuthConfig,
    opened: Opened,
    *,
    method: str,
    now_s: float,
    extra: Mapping[str, object] = {},
) -> bytes:
    """With `extra` members. `method` is how the user came to it, for the developer's hook.

    Raises HookError, HookRefusedError.
    """
    auth, user = app.auth, _USER.decode(opened.account)
    issued_at_s = int(now_s)
    expires_at_s = issued_at_s + (config.jwt_expiry_s or auth.jwt_expiry_s)
    if opened.ends_at_s is not None:
        expires_at_s = max(issued_at_s + 1, min(expires_at_s, int(opened.ends_at_s)))
    claims = auth.tokens.claims_of(
        _subject(user, opened), issued_at_s=issued_at_s, expires_at_s=expires_at_s
    )
    if config.hooks.custom_access_token is not None:
        claims = await _customized(app, config, config.hooks.custom_access_token, claims, method)
    session = _Session(
        access_token=auth.tokens.sign_claims(
            claims, algorithm=config.jwt_algorithm, now_s=issued_at_s
        ),
        token_type="bearer",  # noqa: S106  a kind of token, not a secret (RFC 6750)
        expires_in=expires_at_s - issued_at_s,
        expires_at=expires_at_s,
        refresh_token=auth.refresh_tokens.encode(opened.refresh_token),
        user=msgspec.Raw(opened.account),
    )
    if extra:
        return msgspec.json.encode({**msgspec.structs.asdict(session), **extra})
    return msgspec.json.encode(session)


def fragment_of(session: bytes) -> dict[str, str]:
    """The members of a session's JSON that an address holds for a browser: all but the user."""
    members = msgspec.to_builtins(_FRAGMENT.decode(session))
    return {name: str(value) for name, value in members.items()}


def _subject(user: _User, opened: Opened) -> TokenSubject:
    return TokenSubject(
        user.id,
        user.email,
        opened.refresh_token.session_id,
        user.app_metadata,
        user.user_metadata,
        phone=user.phone,
        role=user.role,
        aud=user.aud,
        aal=opened.aal,
        amr=opened.amr,
        is_anonymous=user.is_anonymous,
    )


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
