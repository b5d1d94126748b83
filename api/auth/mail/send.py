"""What is mailed to users: one-time tokens, each written to the database together with its mail.

A statement for nobody, whose address no user has, is made and run like one for a user, and leaves
a line in the trail alone: neither the answer nor its time tells who has an account.
"""

import logging
import uuid
from collections.abc import Mapping, Sequence
from typing import Any, Final
from urllib.parse import urlencode, urlsplit

import msgspec
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth.auth_codes import Challenge
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.mail.defaults import template_of
from butterbase.api.auth.mail.mailers import is_sent
from butterbase.api.auth.mail.message import Letter
from butterbase.api.auth.mail.outbox import QUERIES
from butterbase.api.auth.mail.templates import render
from butterbase.api.auth.one_time import (
    LINK_TYPE,
    Kind,
    OneTimeToken,
    code_hash,
    link_hash,
    make,
)
from butterbase.api.auth.proxies import subscriber_of
from butterbase.api.auth.users import FoundUser, encode_metadata
from butterbase.sql.pipeline import Result, Statement, bytea

logger = logging.getLogger(__name__)

_TEMPLATE: Final[dict[Kind, str]] = {
    "confirmation": "confirmation",
    "invite": "invite",
    "magiclink": "magic_link",
    "recovery": "recovery",
    "email_change_current": "email_change",
    "email_change_new": "email_change",
    "reauthentication": "reauthentication",
}

_ACTION: Final[dict[Kind, str]] = {
    "confirmation": "user_confirmation_requested",
    "invite": "user_invited",
    "magiclink": "user_recovery_requested",
    "recovery": "user_recovery_requested",
    "email_change_current": "user_modified",
    "email_change_new": "user_modified",
    "reauthentication": "user_reauthenticate_requested",
}
"""In the trail."""


class Addressee(Struct, frozen=True):
    """Who gets a mail."""

    user_id: str
    email: str
    """The address that is stored; a mail never goes to one that was only typed."""
    metadata: Mapping[str, Any] = {}
    new_email: str = ""
    """That the user asked to change to."""
    is_confirmed: bool = True

    @classmethod
    def nobody(cls, address: str) -> "Addressee":
        return cls(str(uuid.uuid4()), address)

    @classmethod
    def of(cls, user: FoundUser) -> "Addressee":
        known = _KNOWN.decode(user.json)
        return cls(
            user.id, user.email or "", known.user_metadata, known.new_email, user.is_email_confirmed
        )


class _Known(Struct, frozen=True):
    user_metadata: dict[str, Any] = {}
    new_email: str = ""


_KNOWN = msgspec.json.Decoder(_Known)


class Asked(Struct, frozen=True):
    """What a link does beside its purpose."""

    redirect_to: str
    """Where it leads; one that is allowed."""
    challenge: Challenge | None = None


def otp_key(app: AppRuntime) -> bytes:
    return app.auth.master_key.derive_bytes(f"otp:{app.id}", length=32)


def token_of(
    config: AuthConfig, kind: Kind, to: Addressee, asked: Asked | None = None
) -> OneTimeToken:
    return make(
        kind,
        to.new_email if kind == "email_change_new" else to.email,
        code_length=config.mail.otp_length,
        is_pkce=asked is not None and asked.challenge is not None,
    )


def statement(
    app: AppRuntime,
    config: AuthConfig,
    token: OneTimeToken,
    to: Addressee,
    asked: Asked,
    *,
    caller: Caller,
    is_mailed: bool = True,
    metadata: Mapping[str, Any] | None = None,
) -> Statement:
    """Puts the token in the place of an older one, and its mail into the outbox.

    `metadata` becomes the user's where the token is what confirms the address.

    Of its result `sent` takes notice. It can follow a statement that makes the user.
    """
    key, kind = otp_key(app), token.kind
    sealed = None
    if is_mailed:
        sealed = app.auth.outbox.seal(_letter(app, config, token, to, asked))
    challenge = asked.challenge
    return Statement.of(
        QUERIES["put_one_time_token"],
        to.user_id,
        kind,
        bytea(link_hash(key, token.link)),
        bytea(code_hash(key, kind, token.address, token.code)),
        token.address,
        asked.redirect_to,
        challenge.text if challenge else None,
        challenge.method if challenge else None,
        caller.now_s,
        config.mail.otp_expiry_s,
        _TEMPLATE[kind],
        bytea(sealed) if sealed else None,
        caller.now_s if is_sent(config) else None,
        caller.ip,
        _ACTION[kind],
        subscriber_of(caller.ip),
        encode_metadata(metadata) if metadata is not None else None,
    )


def sent(app: AppRuntime, config: AuthConfig, *results: Result) -> None:
    """Of statements that were committed: send what they wrote, after the answer."""
    mails = [value.decode() for result in results if (value := result.value()) is not None]
    if mails and is_sent(config):
        app.auth.outbox.kick()
    elif mails:
        logger.info(
            "mail %s of %s stays in the outbox, GET %s/admin/outbox: there is no mail server",
            ", ".join(mails),
            app.id,
            app.auth.url,
        )


async def mail(
    app: AppRuntime,
    config: AuthConfig,
    kind: Kind,
    to: Addressee,
    asked: Asked,
    *,
    caller: Caller,
    before: Sequence[Statement] = (),
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Put a token and mail it. `before` is run in the same transaction."""
    token = token_of(config, kind, to, asked)
    put = statement(app, config, token, to, asked, caller=caller, metadata=metadata)
    results = await app.service.run(*before, put)
    sent(app, config, results[-1])


async def email_change(
    app: AppRuntime,
    config: AuthConfig,
    to: Addressee,
    asked: Asked,
    *,
    caller: Caller,
    is_new: bool = True,
) -> None:
    """Ask for the change of `to.email` to `to.new_email`: at the new one, and the current one.

    One that was begun before, and is asked for again, keeps what was confirmed of it. Whether the
    new one is another user's is not told: nothing is mailed to it then.
    """
    kinds: list[Kind] = ["email_change_new"]
    if config.mail.is_email_change_double and to.email:
        kinds.append("email_change_current")
    starts = []
    if is_new:
        start = QUERIES["start_email_change"]
        starts.append(Statement.of(start, to.user_id, to.new_email, caller.now_s))
    puts = [
        statement(app, config, token_of(config, kind, to, asked), to, asked, caller=caller)
        for kind in kinds
    ]
    results = await app.service.run(*starts, *puts)
    sent(app, config, *results[len(starts) :])


def link_of(app: AppRuntime, token: OneTimeToken, redirect_to: str) -> str:
    """Of the app's configured URL: what a request says of its host is anybody's word."""
    query = {"token": token.link, "type": LINK_TYPE[token.kind], "redirect_to": redirect_to}
    return f"{app.auth.url}/verify?{urlencode(query)}"


def site_url(app: AppRuntime, config: AuthConfig) -> str:
    return config.site_url or "{0.scheme}://{0.netloc}".format(urlsplit(app.auth.url))


def _letter(
    app: AppRuntime, config: AuthConfig, token: OneTimeToken, to: Addressee, asked: Asked
) -> Letter:
    kind = token.kind
    # A first sign-in by link is what confirms the address: it gets that mail.
    template = _TEMPLATE[kind] if kind != "magiclink" or to.is_confirmed else "confirmation"
    link = "" if kind == "reauthentication" else link_of(app, token, asked.redirect_to)
    values: dict[str, Any] = {
        "ConfirmationURL": link,
        "Token": token.code,
        "TokenHash": token.link,
        "SiteURL": site_url(app, config),
        "RedirectTo": asked.redirect_to,
        "Email": to.email,
        "NewEmail": to.new_email,
        "SendingTo": token.address,
        "Data": to.metadata,
    }
    details = {
        "token": token.code,
        "token_hash": token.link,
        "redirect_to": asked.redirect_to,
        "email_action_type": LINK_TYPE.get(kind, kind),
        "site_url": app.auth.url,
        "token_new": "",
        "token_hash_new": "",
    }
    return Letter(to.user_id, render(template_of(config.mail.templates, template), values), details)
