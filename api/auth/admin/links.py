"""Links that administrators make: for a mail of their own, or an invitation that we send."""

from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import policy, users
from butterbase.api.auth.admin.users import QUERIES
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import EmailExistsError, InvalidAuthBodyError, UserNotFoundError
from butterbase.api.auth.mail import send
from butterbase.api.auth.mail.outbox import QUERIES as MAIL_QUERIES
from butterbase.api.auth.mail.send import Addressee, Asked
from butterbase.api.auth.one_time import Kind, OneTimeToken
from butterbase.api.auth.passwords import Passwords
from butterbase.api.auth.redirects import choose
from butterbase.api.auth.users import FoundUser
from butterbase.sql.pipeline import Result, Statement

LinkType: TypeAlias = Literal[
    "signup", "magiclink", "recovery", "invite", "email_change_current", "email_change_new"
]

_KINDS: dict[LinkType, Kind] = {
    "signup": "confirmation",
    "magiclink": "magiclink",
    "recovery": "recovery",
    "invite": "invite",
    "email_change_current": "email_change_current",
    "email_change_new": "email_change_new",
}


class LinkRequest(Struct, frozen=True):
    type: LinkType
    email: str
    new_email: str | None = None
    password: str | None = None
    data: dict[str, Any] | None = None
    redirect_to: str | None = None


class Link(Struct, frozen=True):
    user: bytes
    """The user's JSON."""
    type: LinkType
    """A magic link for somebody who is not there yet is one to sign up."""
    token: OneTimeToken
    redirect_to: str


async def make_link(
    app: AppRuntime,
    passwords: Passwords,
    asked: LinkRequest,
    *,
    caller: Caller,
    is_mailed: bool = False,
) -> Link:
    """Put a token, and the user if there is none of the address yet.

    Raises InvalidAuthBodyError, EmailInvalidError, WeakPasswordError, EmailExistsError when it is
    too late to sign up or be invited, UserNotFoundError, HookRefusedError.
    """
    config = await app.auth.configs.get()
    email = policy.check_email(asked.email)
    user = await users.find_by_email(app, email, now_s=caller.now_s)
    if user is None:
        link_type, to, statements = await _new_user(
            app, config, passwords, asked, email, caller=caller
        )
    else:
        link_type = asked.type
        to, statements = await _known_user(app, config, passwords, asked, user, caller=caller)
    redirect_to = choose(
        asked.redirect_to,
        site_url=send.site_url(app, config),
        allow_list=config.redirect_allow_list,
    )
    token = send.token_of(config, _KINDS[link_type], to)
    put = send.statement(
        app, config, token, to, Asked(redirect_to), caller=caller, is_mailed=is_mailed
    )
    read = Statement.of(QUERIES["find_any_user"], to.user_id)

    def check(results: list[Result]) -> None:
        if user is None:
            users.created(results[0])

    *_, put_result, read_result = await app.service.run(*statements, put, read, check=check)
    if is_mailed:
        send.sent(app, config, put_result)
    return Link(read_result.value() or b"{}", link_type, token, redirect_to)


async def _new_user(
    app: AppRuntime,
    config: AuthConfig,
    passwords: Passwords,
    asked: LinkRequest,
    email: str,
    *,
    caller: Caller,
) -> tuple[LinkType, Addressee, list[Statement]]:
    if asked.type not in ("signup", "magiclink", "invite"):
        raise UserNotFoundError("User with this email not found")
    password_hash = await _password_hash(config, passwords, asked)
    new = users.NewUser(
        id=users.new_id(),
        email=email,
        password_hash=password_hash,
        is_by_admin=True,
        user_metadata=asked.data or {},
    )
    await users.before_created(app, config, new, caller=caller)
    link_type: LinkType = "invite" if asked.type == "invite" else "signup"
    to = Addressee(new.id, email, asked.data or {}, is_confirmed=False)
    return link_type, to, [users.create_statement(new, caller=caller)]


async def _password_hash(
    config: AuthConfig, passwords: Passwords, asked: LinkRequest
) -> str | None:
    """Of who is to sign up; others have none. Raises InvalidAuthBodyError, WeakPasswordError."""
    if asked.type != "signup":
        return None
    if not asked.password:
        raise InvalidAuthBodyError("Signup requires a valid password")
    policy.check_password(asked.password, config.password)
    return await passwords.hash(asked.password)


async def _known_user(
    app: AppRuntime,
    config: AuthConfig,
    passwords: Passwords,
    asked: LinkRequest,
    user: FoundUser,
    *,
    caller: Caller,
) -> tuple[Addressee, list[Statement]]:
    to = Addressee.of(user)
    match asked.type:
        case "signup" | "invite":
            if user.is_email_confirmed:
                raise EmailExistsError
            # A stranger may have signed up with the address: nothing of that is to outlive this.
            password_hash = await _password_hash(config, passwords, asked)
            reclaims = users.reclaim_statements(user.id, password_hash, asked.data, caller=caller)
            metadata = asked.data or user.given_metadata
            return msgspec.structs.replace(to, metadata=metadata), reclaims
        case "email_change_current" | "email_change_new":
            if asked.type == "email_change_current" and not config.mail.is_email_change_double:
                raise InvalidAuthBodyError(
                    "Enable secure email change to generate link for current email"
                )
            return await _email_change(app, asked, to, caller=caller)
        case _:
            pass
    return to, []


async def _email_change(
    app: AppRuntime, asked: LinkRequest, to: Addressee, *, caller: Caller
) -> tuple[Addressee, list[Statement]]:
    new_email = policy.check_email(asked.new_email or "")
    if await users.find_by_email(app, new_email, now_s=caller.now_s) is not None:
        raise EmailExistsError
    if to.new_email == new_email:  # begun before, and the other address may have confirmed it
        return to, []
    start = Statement.of(MAIL_QUERIES["start_email_change"], to.user_id, new_email, caller.now_s)
    return msgspec.structs.replace(to, new_email=new_email), [start]
