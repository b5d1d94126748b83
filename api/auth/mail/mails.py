"""Mail for the other groups of resources: sign-up, changes of a user. See parts.Mails."""

from butterbase.api.apps import AppRuntime
from butterbase.api.auth import limits, redirects, users
from butterbase.api.auth.auth_codes import read_challenge
from butterbase.api.auth.caller import Caller
from butterbase.api.auth.config import AuthConfig, Limit
from butterbase.api.auth.errors import (
    OverEmailSendRateLimitError,
    ReauthenticationNotValidError,
)
from butterbase.api.auth.mail import send
from butterbase.api.auth.mail.redeem import Code, redeem_statement
from butterbase.api.auth.mail.send import Addressee, Asked, site_url
from butterbase.api.auth.one_time import normal_address
from butterbase.api.auth.parts import Flow
from butterbase.api.auth.policy import check_email
from butterbase.api.auth.users import FoundUser

REQUESTERS_MIN = 3
"""How many networks it takes to use up what may be mailed to one address."""


class OutgoingMails:
    async def confirm_signup(
        self, app: AppRuntime, user_id: str, email: str, *, flow: Flow, caller: Caller
    ) -> bool:
        """Mail what confirms the address. False when the last one was just sent.

        The user may be nobody: where the address is taken, that takes as long. Raises
        EmailInvalidError, InvalidAuthBodyError.
        """
        config = await app.auth.configs.get()
        asked = asked_of(app, config, flow)
        email = check_email(email)
        try:
            await take_allowance(app, config, "signup", email, caller=caller)
        except OverEmailSendRateLimitError:
            return False
        user = await users.find(app, user_id, now_s=caller.now_s)
        to = Addressee.of(user) if user is not None else Addressee.nobody(email)
        await send.mail(app, config, "confirmation", to, asked, caller=caller)
        return True

    async def change_email(
        self, app: AppRuntime, user: FoundUser, email: str, *, flow: Flow, caller: Caller
    ) -> None:
        """Mail what confirms a change of address, to the new one and the current one.

        Raises EmailInvalidError, OverEmailSendRateLimitError, InvalidAuthBodyError.
        """
        config = await app.auth.configs.get()
        asked = asked_of(app, config, flow)
        email = check_email(email)
        await take_allowance(app, config, "change", email, of_user=user.id, caller=caller)
        known = Addressee.of(user)
        to = Addressee(user.id, known.email, known.metadata, email)
        await send.email_change(app, config, to, asked, caller=caller)

    async def spend_nonce(
        self, app: AppRuntime, user: FoundUser, nonce: str, *, caller: Caller
    ) -> None:
        """Use up the code of a reauthentication. Raises ReauthenticationNotValidError."""
        if not user.email:
            raise ReauthenticationNotValidError
        statement = redeem_statement(
            app,
            Code(user.email, nonce, "reauthentication"),
            ("reauthentication",),
            caller=caller,
            only_user=user.id,
        )
        (result,) = await app.service.run(statement)
        if result.value() != b"redeemed":
            raise ReauthenticationNotValidError


def asked_of(app: AppRuntime, config: AuthConfig, flow: Flow) -> Asked:
    """Where a link leads and how, checked. Raises InvalidAuthBodyError."""
    target = redirects.choose(
        flow.redirect_to,
        site_url=site_url(app, config),
        allow_list=config.redirect_allow_list,
    )
    return Asked(target, read_challenge(flow.code_challenge, flow.code_challenge_method))


async def take_allowance(
    app: AppRuntime,
    config: AuthConfig,
    purpose: str,
    address: str,
    *,
    caller: Caller,
    of_user: str | None = None,
) -> None:
    """For a mail that would be sent: by its address, whoever has it, and by the user who asks.

    So a refusal does not tell whether there is an account. Who asks for another's address is
    stopped long before the address is, and delays nobody but himself. Raises
    OverEmailSendRateLimitError.
    """
    rates = config.rate_limits
    if not rates.is_enabled:
        return
    address, all_sent = normal_address(address), rates.email_sent
    part = Limit(
        max(1, all_sent.count // REQUESTERS_MIN),
        all_sent.per_s,
        max(1, all_sent.burst // REQUESTERS_MIN),
    )
    of_requester = [(limits.key("mailed", caller.ip, address), part)]
    if rates.email_address_s > 0:
        pause = Limit(1, rates.email_address_s, 1)
        of_requester.append((limits.key("mail", purpose, caller.ip, address), pause))
        if of_user is not None:
            of_requester.append((limits.key("mail", purpose, of_user), pause))
    of_all = [(limits.key("mailed", address), all_sent)]
    if of_user is not None:
        of_all.append((limits.key("mailed", of_user), all_sent))
    # What a requester may not have is not taken from the others.
    for keys in (of_requester, of_all):
        taken = [limits.statement(key, limit, now_s=caller.now_s) for key, limit in keys]
        _check(max(map(limits.wait_s, await app.service.run(*taken))))


def _check(wait_s: float) -> None:
    if wait_s > 0:
        error = OverEmailSendRateLimitError(retry_after_s=wait_s)
        error.message = (
            f"For security purposes, you can only request this after {error.retry_after_s} seconds."
        )
        raise error
