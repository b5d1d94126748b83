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
from butterbase.api.auth.errors import EmailExistsError, InvalidAuthBodyError, PhoneExistsError
from butterbase.api.auth.oauth.errors import IdentityExistsError
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
    password_hash: str | None
    is_email_confirmed: bool
    is_anonymous: bool
    is_banned: bool
    has_verified_factor: bool
    given_metadata: dict[str, Any]
    """What administrators have said of the user."""
    json: msgspec.Raw
    """As clients see it."""


_FOUND = msgspec.json.Decoder(FoundUser)


class NewUser(Struct, frozen=True, kw_only=True):
    """A user to be made. `provider` None is without an identity, as anonymous ones are."""

    id: str
    email: str | None = None
    phone: str | None = None
    password_hash: str | None = None
    is_email_confirmed: bool = False
    is_phone_confirmed: bool = False
    is_by_admin: bool = False
    """Then no stranger, who signs up with the address, replaces the metadata."""
    is_anonymous: bool = False
    role: str = AUTHENTICATED
    user_metadata: Mapping[str, Any] = {}
    app_metadata: Mapping[str, Any] = {}
    """Beside provider and providers, which are set here."""
    provider: str | None = "email"


def new_id() -> str:
    return str(uuid.uuid4())


def create_statement(new: NewUser, *, caller: Caller) -> Statement:
    """Makes the user; `created` reads its result. What is to stand on it can follow at once."""
    app_metadata = dict(new.app_metadata)
    if new.provider is not None:
        app_metadata = {"provider": new.provider, "providers": [new.provider], **app_metadata}
    return Statement.of(
        QUERIES["create_user"],
        new.id,
        new.email,
        new.phone,
        new.password_hash,
        new.is_email_confirmed,
        new.is_phone_confirmed,
        new.is_by_admin,
        new.is_anonymous,
        new.role,
        msgspec.json.encode(app_metadata),
        encode_metadata(new.user_metadata),
        new.provider,
        new.id,
        msgspec.json.encode(own_identity(new)),
        caller.now_s,
        caller.ip,
    )


def claim_statement(
    user_id: str, password_hash: str, metadata: Mapping[str, Any], *, caller: Caller
) -> Statement:
    """Where only a mail was asked for, who signs up first gets the account once it is confirmed."""
    return Statement.of(
        QUERIES["claim_user"], user_id, password_hash, encode_metadata(metadata), caller.now_s
    )


def reclaim_statements(
    user_id: str, password_hash: str | None, metadata: Mapping[str, Any] | None, *, caller: Caller
) -> list[Statement]:
    """An administrator takes an account that nobody has confirmed from whoever has made it.

    Without metadata the user keeps what administrators gave before.
    """
    reclaim = Statement.of(QUERIES["reclaim_user"], user_id, password_hash, caller.now_s)
    if not metadata:
        return [reclaim]
    give = Statement.of(QUERIES["give_metadata"], user_id, encode_metadata(metadata))
    return [give, reclaim]


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
    (result,) = await app.service.run(find_statement(user_id=user_id, now_s=now_s))
    return found(result)


async def find_by_email(app: AppRuntime, email: str, *, now_s: float) -> FoundUser | None:
    (result,) = await app.service.run(find_statement(email=normal_email(email), now_s=now_s))
    return found(result)


def find_statement(
    *, user_id: str | None = None, email: str | None = None, now_s: float
) -> Statement:
    """By a UUID or an address; `found` reads its result."""
    return Statement.of(QUERIES["find_user"], user_id, email, now_s)


def found(result: Result) -> FoundUser | None:
    """None when there is none."""
    return _FOUND.decode(result.value() or b"") if result.row_count else None


async def json(app: AppRuntime, user_id: str) -> bytes | None:
    """The user as clients see it; None when there is none."""
    (result,) = await app.service.run(Statement.of(QUERIES["user_json"], user_id))
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
        "sub": new.id,
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
