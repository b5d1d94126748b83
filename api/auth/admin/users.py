"""Users as administrators see and change them, also those that were softly deleted."""

import re
from typing import Annotated, Any, TypeAlias
from uuid import UUID

import msgspec
from msgspec import Meta, Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import policy, users
from butterbase.api.auth.admin.durations import parse_duration
from butterbase.api.auth.admin.paging import Page
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.errors import (
    ConflictError,
    EmailExistsError,
    InvalidAuthBodyError,
    PhoneExistsError,
    UserNotFoundError,
)
from butterbase.api.auth.passwords import Passwords, check_hash
from butterbase.sql.catalog import load_queries
from butterbase.sql.claims import AUTHENTICATED, SERVICE_ROLE
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Result, Statement

QUERIES = load_queries("auth_admin")

ROLES = frozenset({AUTHENTICATED, SERVICE_ROLE})
"""That a user's tokens may name. Of the second one it is an administrator."""

_FOREIGN_KEY_VIOLATION = "23503"

_PHONE = re.compile(r"[1-9][0-9]{1,14}")

Text: TypeAlias = Annotated[str, Meta(max_length=320)]


class UserChange(Struct, frozen=True):
    """What a new user has, or an old one gets; what is null or empty stays as it is."""

    id: UUID | None = None
    email: Text | None = None
    phone: Text | None = None
    password: str | None = None
    password_hash: Annotated[str, Meta(max_length=1000)] | None = None
    email_confirm: bool | None = None
    phone_confirm: bool | None = None
    role: Text | None = None
    user_metadata: dict[str, Any] | None = None
    app_metadata: dict[str, Any] | None = None
    ban_duration: Text | None = None
    """Go's text form, or none."""


def check_phone(phone: str) -> str:
    """The number's digits, E.164. Raises InvalidAuthBodyError."""
    digits = phone.strip().removeprefix("+").replace(" ", "")
    if not _PHONE.fullmatch(digits):
        raise InvalidAuthBodyError("Invalid phone number format (E.164 required)")
    return digits


async def listed(app: AppRuntime, page: Page, *, holding: str) -> tuple[int, bytes]:
    """How many users there are, and the page of them as a JSON array."""
    (result,) = await app.service.run(
        Statement.of(QUERIES["list_users"], page.size, page.offset, holding)
    )
    total, found = result.rows()[0]
    return int(total or 0), found or b"[]"


async def find(app: AppRuntime, user_id: str) -> bytes:
    """The user's JSON. Raises UserNotFoundError."""
    (result,) = await app.service.run(Statement.of(QUERIES["find_any_user"], user_id))
    if result.row_count == 0:
        raise UserNotFoundError
    return result.value() or b"{}"


async def create(
    app: AppRuntime, passwords: Passwords, asked: UserChange, *, caller: Caller
) -> bytes:
    """The new user's JSON; without a password it may sign in by mail.

    Raises InvalidAuthBodyError, EmailInvalidError, EmailExistsError, PhoneExistsError,
    WeakPasswordError, HookRefusedError.
    """
    if not asked.email and not asked.phone:
        raise InvalidAuthBodyError("Cannot create a user without either an email or phone")
    changes = await _changes(app, passwords, asked, caller=caller)
    new = users.NewUser(
        id=str(asked.id) if asked.id else users.new_id(),
        email=changes.pop("email", None),
        phone=changes.get("phone"),
        password_hash=changes.pop("password_hash", None),
        is_email_confirmed=changes.get("email_confirm", False),
        is_phone_confirmed=changes.get("phone_confirm", False),
        is_by_admin=True,
        role=changes.pop("role", AUTHENTICATED),
        user_metadata=changes.pop("user_metadata", {}),
        app_metadata=changes.pop("app_metadata", {}),
        provider="email" if asked.email else "phone",
    )
    if not asked.email:
        changes.pop("phone")
    await users.before_created(app, await app.auth.configs.get(), new, caller=caller)
    statements = [users.create_statement(new, caller=caller)]
    if changes:  # what a user who signs up cannot have: a ban, a second identity, both confirmed
        statements.append(modify_statement(new.id, changes, caller=caller))

    def check(results: list[Result]) -> None:
        users.created(results[0])

    *_, result = await app.service.run(*statements, check=check)
    return result.value(column=1) or b"{}"


async def modify(
    app: AppRuntime, passwords: Passwords, user_id: str, asked: UserChange, *, caller: Caller
) -> bytes:
    """The user's JSON as it is then.

    Raises UserNotFoundError, InvalidAuthBodyError, EmailInvalidError, EmailExistsError,
    PhoneExistsError, WeakPasswordError.
    """
    changes = await _changes(app, passwords, asked, caller=caller)
    (result,) = await app.service.run(modify_statement(user_id, changes, caller=caller))
    return _modified(result)


async def delete(app: AppRuntime, user_id: str, *, is_soft: bool, caller: Caller) -> None:
    """Raises UserNotFoundError, ConflictError when rows of the developer's refer to the user."""
    try:
        (result,) = await app.service.run(
            Statement.of(QUERIES["delete_user"], user_id, is_soft, caller.now_s, caller.ip)
        )
    except DatabaseError as error:
        if error.sqlstate == _FOREIGN_KEY_VIOLATION:
            raise ConflictError(f"the user is referred to: {error.detail}") from error
        raise
    if result.value() != b"deleted":
        raise UserNotFoundError


async def _changes(
    app: AppRuntime, passwords: Passwords, asked: UserChange, *, caller: Caller
) -> dict[str, Any]:
    """As auth.modify_user reads them."""
    changes = _plain_changes(asked)
    if asked.ban_duration == "none":
        changes["banned_until_s"] = None
    elif asked.ban_duration:
        changes["banned_until_s"] = caller.now_s + parse_duration(asked.ban_duration)
    if asked.password and asked.password_hash:
        raise InvalidAuthBodyError("Only a password or a password hash should be provided")
    if asked.password_hash:
        check_hash(asked.password_hash)
        changes["password_hash"] = asked.password_hash
    elif asked.password:
        config = await app.auth.configs.get()
        policy.check_password(asked.password, config.password)
        changes["password_hash"] = await passwords.hash(asked.password)
    return changes


def _plain_changes(asked: UserChange) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if asked.email:
        changes["email"] = policy.check_email(asked.email)
    if asked.phone:
        changes["phone"] = check_phone(asked.phone)
    if asked.role:
        if asked.role not in ROLES:
            raise InvalidAuthBodyError(f"role is none of {', '.join(sorted(ROLES))}")
        changes["role"] = asked.role
    for name in ("email_confirm", "phone_confirm"):
        if getattr(asked, name):
            changes[name] = True
    for name in ("user_metadata", "app_metadata"):
        if (metadata := getattr(asked, name)) is not None:
            users.encode_metadata(metadata)
            changes[name] = metadata
    return changes


def modify_statement(user_id: str, changes: dict[str, Any], *, caller: Caller) -> Statement:
    is_ban = changes.get("banned_until_s") is not None
    return Statement.of(
        QUERIES["modify_user"],
        user_id,
        msgspec.json.encode(changes),
        caller.now_s,
        caller.ip,
        "user_banned" if is_ban else "user_modified",
    )


def _modified(result: Result) -> bytes:
    outcome, account = result.rows()[0]
    match outcome:
        case b"modified":
            assert account is not None
            return account
        case b"email_exists":
            raise EmailExistsError
        case b"phone_exists":
            raise PhoneExistsError
        case _:
            raise UserNotFoundError
