"""`/otp`, `/magiclink`, `/recover`, `/resend`, `/reauthenticate`: mails that were asked for.

The first four answer the same, after the same work and evenly, whether or not an address has an
account.
"""

import logging
from typing import Any, Literal

import msgspec
from falcon.asgi import App, Request, Response
from msgspec import Struct

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import limits, users
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig
from butterbase.api.auth.errors import (
    EmailNotConfirmedError,
    EmailProviderDisabledError,
    HookError,
    HookRefusedError,
    InvalidAuthBodyError,
    PhoneProviderDisabledError,
)
from butterbase.api.auth.mail import send
from butterbase.api.auth.mail.mails import asked_of, take_allowance
from butterbase.api.auth.mail.send import Addressee, Asked
from butterbase.api.auth.parts import AuthParts, Flow
from butterbase.api.auth.policy import check_email
from butterbase.api.auth.resources.evenly import evenly
from butterbase.api.auth.resources.requests import answer, app_of, read, signed_in
from butterbase.api.auth.users import NewUser
from butterbase.sql.pipeline import Statement

logger = logging.getLogger(__name__)


class OtpRequest(Struct, frozen=True):
    email: str = ""
    phone: str = ""
    create_user: bool = True
    data: dict[str, Any] | None = None
    channel: str | None = None
    code_challenge: str | None = None
    code_challenge_method: str | None = None


class ResendRequest(Struct, frozen=True):
    type: Literal["signup", "email_change", "sms", "phone_change"]
    email: str = ""
    phone: str = ""
    code_challenge: str | None = None
    code_challenge_method: str | None = None


_OTP = msgspec.json.Decoder(OtpRequest)
_RESEND = msgspec.json.Decoder(ResendRequest)


def add_routes(app: "App[Any, Any]", prefix: str, _parts: AuthParts) -> None:
    app.add_route(f"{prefix}/otp", OtpResource())
    app.add_route(f"{prefix}/magiclink", OtpResource())
    app.add_route(f"{prefix}/recover", RecoverResource())
    app.add_route(f"{prefix}/resend", ResendResource())
    app.add_route(f"{prefix}/reauthenticate", ReauthenticateResource())


class OtpResource:
    """A link and a code to sign in by; whoever has no account gets one, if that is allowed."""

    @evenly
    async def on_post(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        body = await read(req, _OTP)
        users.encode_metadata(body.data or {})
        config, email, asked = await _admit(req, body, caller, purpose="otp")
        user = await users.find_by_email(app, email, now_s=caller.now_s)
        before: list[Statement] = []
        if user is not None:
            to = Addressee.of(user)
        else:
            to = Addressee(users.new_id(), email, body.data or {}, is_confirmed=False)
            new = NewUser(id=to.user_id, email=to.email, user_metadata=to.metadata)
            create = users.create_statement(new, caller=caller)
            if body.create_user and await _is_welcome(app, config, new, caller):
                before.append(create)
        await send.mail(
            app,
            config,
            "magiclink",
            to,
            asked,
            caller=caller,
            before=before,
            metadata=body.data or {},
        )
        answer(resp, b"{}")


class RecoverResource:
    @evenly
    async def on_post(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        body = await read(req, _OTP)
        config, email, asked = await _admit(req, body, caller, purpose="recover")
        user = await users.find_by_email(app, email, now_s=caller.now_s)
        to = Addressee.nobody(email) if user is None else Addressee.of(user)
        await send.mail(app, config, "recovery", to, asked, caller=caller)
        answer(resp, b"{}")


class ResendResource:
    @evenly
    async def on_post(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        body = await read(req, _RESEND)
        purpose = "signup" if body.type == "signup" else "change"
        config, email, asked = await _admit(req, body, caller, purpose=purpose)
        user = await users.find_by_email(app, email, now_s=caller.now_s)
        to = Addressee.nobody(email) if user is None else Addressee.of(user)
        if body.type == "email_change":
            if not to.new_email:
                to = Addressee(Addressee.nobody(email).user_id, email, {}, email)
            await send.email_change(app, config, to, asked, caller=caller, is_new=False)
        else:
            if to.is_confirmed:
                to = Addressee.nobody(email)
            await send.mail(app, config, "confirmation", to, asked, caller=caller)
        answer(resp, b"{}")


class ReauthenticateResource:
    """A code by which a signed-in user shows to be there still."""

    async def on_get(self, req: Request, resp: Response) -> None:
        app, caller = app_of(req), Caller.of(req)
        user = (await signed_in(req, caller)).user
        if not user.email:
            raise InvalidAuthBodyError(
                "Reauthentication requires the user to have an email or a phone number"
            )
        if not user.is_email_confirmed:
            raise EmailNotConfirmedError("Please verify your email first.")
        config = await app.auth.configs.get()
        await take_allowance(app, config, "reauthenticate", user.email, caller=caller)
        asked = asked_of(app, config, Flow())
        await send.mail(app, config, "reauthentication", Addressee.of(user), asked, caller=caller)
        answer(resp, b"{}")


async def _admit(
    req: Request, body: OtpRequest | ResendRequest, caller: Caller, *, purpose: str
) -> tuple[AuthConfig, str, Asked]:
    """The settings, the address and what the link is to do, when a mail may be sent there.

    Raises OverRequestRateLimitError, OverEmailSendRateLimitError, EmailInvalidError,
    EmailProviderDisabledError, PhoneProviderDisabledError, InvalidAuthBodyError.
    """
    app = app_of(req)
    config = await app.auth.configs.get()
    if body.email and body.phone:
        raise InvalidAuthBodyError("Only an email address or phone number should be provided")
    if body.phone or (isinstance(body, ResendRequest) and body.type in ("sms", "phone_change")):
        raise PhoneProviderDisabledError("Unsupported phone provider")
    if not body.email:
        raise InvalidAuthBodyError("One of email or phone must be set")
    if not config.is_email_enabled:
        raise EmailProviderDisabledError
    email = check_email(body.email)
    flow = Flow(
        req.get_param("redirect_to") or req.get_header("redirect_to"),
        body.code_challenge or None,
        body.code_challenge_method or None,
    )
    asked = asked_of(app, config, flow)
    await limits.admit(app, config, "otp", config.rate_limits.otp, caller=caller)
    await take_allowance(app, config, purpose, email, caller=caller)
    return config, email, asked


async def _is_welcome(app: AppRuntime, config: AuthConfig, new: NewUser, caller: Caller) -> bool:
    """Whether the user may be made. A refusal is not told: it would tell who is there already."""
    if not (config.is_signup_enabled and config.is_otp_signup_enabled):
        return False
    try:
        await users.before_created(app, config, new, caller=caller)
    except HookRefusedError:
        return False
    except HookError as error:  # nor does its failure tell that
        logger.warning("%s: nobody is made a user: %s", app.id, error)
        return False
    return True
