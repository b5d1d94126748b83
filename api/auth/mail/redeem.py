"""What a link or a code of a mail opens: one statement, so that it opens it once."""

import msgspec
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import auth_codes, limits, sessions
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import EmailExistsError, OtpExpiredError
from butterbase.api.auth.mail.outbox import QUERIES
from butterbase.api.auth.mail.send import otp_key
from butterbase.api.auth.one_time import (
    CODE_TRIES_MAX,
    FAILURES_MAX,
    KINDS_OF_TYPE,
    Kind,
    code_hash,
    link_hash,
    normal_address,
)
from butterbase.sql.pipeline import Statement, bytea


class Link(Struct, frozen=True):
    """The token of a link, and its type."""

    token: str
    type: str


class Code(Struct, frozen=True):
    """A code that was typed, and the address it was mailed to."""

    address: str
    code: str
    type: str


class Redeemed(Struct, frozen=True):
    """One of: half a change of address, a code to exchange, a session's JSON."""

    redirect_to: str
    auth_code: str | None = None
    session: bytes | None = None


async def redeem(
    app: AppRuntime,
    config: AuthConfig,
    given: Link | Code,
    *,
    caller: Caller,
    is_browser: bool = False,
) -> Redeemed:
    """`is_browser`: a flow with PKCE gets a code, since it is no client that asks.

    Raises OtpExpiredError, EmailExistsError.
    """
    drafted = sessions.draft("otp")
    auth_code = auth_codes.new_code() if is_browser else None
    statement = redeem_statement(
        app,
        given,
        KINDS_OF_TYPE[given.type],
        caller=caller,
        is_change_double=config.mail.is_email_change_double,
        auth_code=auth_code,
        drafted=drafted,
        is_single=config.sessions.is_single_per_user,
    )
    (result,) = await app.service.run(statement)
    outcome, _, _, redirect_to, is_flow, method, account = result.rows()[0]
    target = (redirect_to or b"").decode()
    match outcome:
        case b"half":
            return Redeemed(target)
        case b"email_exists":
            raise EmailExistsError
        case b"redeemed" if is_flow == b"t":
            return Redeemed(target, auth_code=auth_code)
        case b"redeemed" if account is not None and method is not None:
            drafted = msgspec.structs.replace(drafted, method=method.decode())
            session = await sessions.opened(app, config, drafted, account, caller=caller)
            return Redeemed(target, session=session)
        case _ if isinstance(given, Link):
            raise OtpExpiredError("Email link is invalid or has expired")
        case _:
            raise OtpExpiredError


def redeem_statement(
    app: AppRuntime,
    given: Link | Code,
    kinds: tuple[Kind, ...],
    *,
    caller: Caller,
    only_user: str | None = None,
    is_change_double: bool = True,
    auth_code: str | None = None,
    drafted: sessions.Draft | None = None,
    is_single: bool = False,
) -> Statement:
    """A wrong code is counted by it, so it is not to be undone."""
    key = otp_key(app)
    if isinstance(given, Link):
        link, address, codes = bytea(link_hash(key, given.token)), None, []
    else:
        link, address = None, normal_address(given.address)
        codes = [code_hash(key, kind, given.address, given.code).hex() for kind in kinds]
    return Statement.of(
        QUERIES["redeem_one_time_token"],
        link,
        address,
        "{" + ",".join(kinds) + "}",
        "{" + ",".join(f'"\\\\x{code}"' for code in codes) + "}",
        CODE_TRIES_MAX,
        limits.key("code", address or ""),
        FAILURES_MAX,
        only_user,
        is_change_double,
        bytea(auth_codes.code_hash(auth_code)) if auth_code else None,
        auth_codes.LIFE_S,
        caller.now_s,
        caller.ip,
        caller.user_agent,
        drafted.id if drafted else None,
        bytea(drafted.nonce) if drafted else None,
        is_single,
    )
