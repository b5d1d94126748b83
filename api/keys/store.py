"""An app's keys in the control database: made, listed, revoked, by the API and the command line."""

from typing import Annotated

import msgspec
from msgspec import Meta, Struct

from butterbase.api.keys.errors import InsufficientScopeError, KeyNotFoundError
from butterbase.api.keys.key import Scope, hash_key, hint_of, new_key
from butterbase.sql.catalog import load_queries
from butterbase.sql.pipeline import Executor, Statement, bytea

QUERIES = load_queries("keys")

LISTED_COUNT_MAX = 1000
_DAY_S = 24 * 3600


class NewKey(Struct, frozen=True, forbid_unknown_fields=True):
    """What is asked for."""

    name: Annotated[str, Meta(pattern=r"\A[^\x00-\x1f\x7f]+\Z", max_length=100)]
    scopes: Annotated[list[Scope], Meta(min_length=1)]
    expires_in_days: Annotated[int, Meta(ge=1, le=3650)] = 90


class StoredKey(Struct, frozen=True):
    """A key as it is listed; times as ISO 8601."""

    id: str
    name: str
    hint: str
    scopes: list[Scope]
    created_at: str
    expires_at: str
    revoked_at: str | None
    last_used_at: str | None


class MadeKey(StoredKey, frozen=True, kw_only=True):
    key: str
    """The key itself, here and never again."""


_STORED = msgspec.json.Decoder(StoredKey)
_STORED_LIST = msgspec.json.Decoder(list[StoredKey])


async def create_key(
    control: Executor,
    app_id: str,
    new: NewKey,
    *,
    made_by: str | None = None,
    request_id: str | None = None,
) -> MadeKey:
    """`made_by` is the id of the key that asks, which gives away no more than it has.

    Raises InsufficientScopeError.
    """
    key = new_key()
    (result,) = await control.run(
        Statement.of(
            QUERIES["create_key"],
            app_id,
            new.name,
            bytea(hash_key(key)),
            hint_of(key),
            msgspec.json.encode(new.scopes),
            new.expires_in_days * _DAY_S,
            made_by,
            request_id,
        )
    )
    if result.row_count == 0:
        raise InsufficientScopeError("a key makes keys with its own scopes at most")
    stored = _STORED.decode(result.value() or b"")
    return MadeKey(**msgspec.structs.asdict(stored), key=key)


async def list_keys(control: Executor, app_id: str) -> list[StoredKey]:
    """The newest first, with those that expired or were revoked."""
    (result,) = await control.run(Statement.of(QUERIES["list_keys"], app_id, LISTED_COUNT_MAX))
    return _STORED_LIST.decode(result.value() or b"")


async def revoke_key(
    control: Executor, app_id: str, key_id: str, *, request_id: str | None = None
) -> None:
    """Revoke the key, and those it made. Raises KeyNotFoundError."""
    (result,) = await control.run(Statement.of(QUERIES["revoke_key"], app_id, key_id, request_id))
    if result.row_count == 0:
        raise KeyNotFoundError
