"""Users: the one place that makes them, and how they are found."""

import uuid
from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import hooks
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    EmailExistsError,
    IdentityExistsError,
    InvalidAuthBodyError,
    PhoneExistsError,
)
from butterbase.api.auth.policy import normal_email
from butterbase.sql.catalog import load_queries
from butterbase.sql.claims import AUTHENTICATED
from butterbase.sql.pipeline import Result, Statement

QUERIES = load_queries("auth_users")

DATA_BYTES_MAX = 4096
"""Of a user's own data: every access token carries it, and must fit into a header."""


DATA_DEPTH_MAX = 20
"""Of the same: what reads a token goes no deeper than it likes."""


class FoundUser(Struct, frozen=True):
    """A user that is not deleted, with what is nobody's to see."""

    id: str
    email: str | None
    phone: str | None
    password_hash: str | None
    is_email_confirmed: bool
    is_phone_confirmed: bool
    is_anonymous: bool
    is_banned: bool
    is_invited: bool
    has_verified_factor: bool
    json: msgspec.Raw
    """As clients see it."""


class NewUser(Struct, frozen=True, kw_only=True):
    """A user to be made. `provider` None is without an identity, as anonymous ones are."""

    id: str
    email: str | None = None
    phone: str | None = None
    password_hash: str | None = None
    is_email_confirmed: bool = False
    is_phone_confirmed: bool = False
    is_invited: bool = False
    is_anonymous: bool = False
    role: str = AUTHENTICATED
    user_metadata: Mapping[str, Any] = {}
    app_metadata: Mapping[str, Any] = {}
    """Beside provider and providers, which are set here."""
    provider: str | None = "email"
    provider_id: str | None = None
    """None: the user's own id, as for 'email'."""
    identity_data: Mapping[str, Any] | None = None
    """None: the sub, the address and what the user told of himself."""


def new_id() -> str:
    return str(uuid.uuid4())


def create_statement(new: NewUser, *, caller: Caller, action: str = "user_signedup") -> Statement:
    """Makes the user; `created` reads its result. What is to stand on it can follow at once."""
    app_metadata = dict(new.app_metadata)
    if new.provider is not None:
        app_metadata = {"provider": new.provider, "providers": [new.provider], **app_metadata}
    identity_data = new.identity_data
    if identity_data is None:
        identity_data = own_identity(new)
    return Statement(
        QUERIES["create_user"],
        (
            new.id.encode(),
            _text(new.email),
            _text(new.phone),
            _text(new.password_hash),
            _boolean(new.is_email_confirmed),
            _boolean(new.is_phone_confirmed),
            _boolean(new.is_invited),
            _boolean(new.is_anonymous),
            new.role.encode(),
            msgspec.json.encode(app_metadata),
            encode_metadata(new.user_metadata),
            _text(new.provider),
            (new.provider_id or new.id).encode(),
            msgspec.json.encode(identity_data),
            repr(caller.now_s).encode(),
            caller.ip.encode(),
            action.encode(),
        ),
    )


def claim_statement(
    user_id: str, password_hash: str, metadata: Mapping[str, Any], *, caller: Caller
) -> Statement:
    """Where only a mail was asked for, who signs up first gets the account once it is confirmed."""
    return _claim("claim_user", user_id, password_hash, metadata, caller)


def reclaim_statement(
    user_id: str, password_hash: str | None, metadata: Mapping[str, Any], *, caller: Caller
) -> Statement:
    """Takes an account that nobody has confirmed from whoever has made it."""
    return _claim("reclaim_user", user_id, password_hash, metadata, caller)


def _claim(
    query: str,
    user_id: str,
    password_hash: str | None,
    metadata: Mapping[str, Any],
    caller: Caller,
) -> Statement:
    return Statement(
        QUERIES[query],
        (
            user_id.encode(),
            _text(password_hash),
            encode_metadata(metadata),
            repr(caller.now_s).encode(),
        ),
    )


def created(result: Result) -> bytes:
    """The new user's JSON. Raises EmailExistsError, PhoneExistsError, IdentityExistsError."""
    outcome, account = result.rows()[0]
    match outcome:
        case b"created":
            assert account is not None
            return account
        case b"email_exists":
            raise EmailExistsError
        case b"phone_exists":
            raise PhoneExistsError
        case b"identity_exists":
            raise IdentityExistsError
        case _:
            raise InvalidAuthBodyError("a user of that id is there")


async def create(
    app: AppRuntime, new: NewUser, *, caller: Caller, action: str = "user_signedup"
) -> bytes:
    """The new user's JSON, after the developer's hook agreed. Raises what `created` does."""
    await before_created(app, await app.auth.configs.get(), new, caller=caller)
    (result,) = await app.service.run(create_statement(new, caller=caller, action=action))
    return created(result)


async def before_created(
    app: AppRuntime, config: AuthConfig, new: NewUser, *, caller: Caller
) -> None:
    """Ask the developer's hook. Raises HookRefusedError, HookError."""
    if config.hooks.before_user_created is None:
        return
    payload = {
        "metadata": {
            "uuid": new_id(),
            "time": caller.now_s,
            "name": "before-user-created",
            "ip_address": caller.ip,
        },
        "user": {
            "id": new.id,
            "aud": AUTHENTICATED,
            "role": new.role,
            "email": new.email or "",
            "phone": new.phone or "",
            "app_metadata": new.app_metadata,
            "user_metadata": new.user_metadata,
            "identities": [],
            "is_anonymous": new.is_anonymous,
        },
    }
    await hooks.call(app, config, config.hooks.before_user_created, payload)


async def find(app: AppRuntime, user_id: str, *, now_s: float) -> FoundUser | None:
    """By a UUID."""
    return await _find(app, "find_user", user_id, now_s)


async def find_by_email(app: AppRuntime, email: str, *, now_s: float) -> FoundUser | None:
    return await _find(app, "find_user_by_email", normal_email(email), now_s)


def found(result: Result) -> FoundUser | None:
    """Of a statement that selects what `find_user` does."""
    if result.row_count == 0:
        return None
    row = result.rows()[0]
    user_id, *texts, account = row[0], row[1], row[2], row[3], row[-1]
    assert user_id is not None
    assert account is not None
    email, phone, password_hash = (None if text is None else text.decode() for text in texts)
    confirmed, phone_confirmed, anonymous, banned, invited, verified = (
        value == b"t" for value in row[4:-1]
    )
    return FoundUser(
        user_id.decode(),
        email,
        phone,
        password_hash,
        is_email_confirmed=confirmed,
        is_phone_confirmed=phone_confirmed,
        is_anonymous=anonymous,
        is_banned=banned,
        is_invited=invited,
        has_verified_factor=verified,
        json=msgspec.Raw(account),
    )


async def json(app: AppRuntime, user_id: str) -> bytes | None:
    """The user as clients see it; None when there is none."""
    (result,) = await app.service.run(Statement(QUERIES["user_json"], (user_id.encode(),)))
    return result.value() if result.row_count else None


def encode_metadata(metadata: Mapping[str, Any]) -> bytes:
    """Raises InvalidAuthBodyError when it is too much for a token."""
    if _is_deeper(metadata, DATA_DEPTH_MAX):
        raise InvalidAuthBodyError(f"data is nested more than {DATA_DEPTH_MAX} deep")
    encoded = msgspec.json.encode(metadata)
    if len(encoded) > DATA_BYTES_MAX:
        raise InvalidAuthBodyError(f"data takes more than {DATA_BYTES_MAX} bytes")
    if rb"\u0000" in encoded:
        raise InvalidAuthBodyError("data holds a NUL character")
    return encoded


def own_identity(new: NewUser) -> dict[str, Any]:
    """The identity data of who signs up without a provider."""
    known: dict[str, Any] = {
        "sub": new.provider_id or new.id,
        "email_verified": False,
        "phone_verified": False,
    }
    if new.email is not None:
        known["email"] = new.email.lower()
    if new.phone is not None:
        known["phone"] = new.phone
    return {**new.user_metadata, **known}


def _is_deeper(value: object, depth: int) -> bool:
    if isinstance(value, Mapping):
        value = list(value.values())
    if not isinstance(value, list):
        return False
    return depth == 0 or any(_is_deeper(member, depth - 1) for member in value)


async def _find(app: AppRuntime, query: str, value: str, now_s: float) -> FoundUser | None:
    (result,) = await app.service.run(
        Statement(QUERIES[query], (value.encode(), repr(now_s).encode()))
    )
    return found(result)


def _text(value: str | None) -> bytes | None:
    return None if value is None else value.encode()


def _boolean(value: bool) -> bytes:
    return b"t" if value else b"f"
