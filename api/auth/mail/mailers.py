"""Which way an app's mail goes: its own function or URL, a mail server, or no further.

https://supabase.com/docs/guides/auth/auth-hooks/send-email-hook has the function's shape.
"""

from collections.abc import Callable
from typing import Any

import msgspec

from butterbase.api.auth import webhooks
from butterbase.api.auth.config import AuthConfig, Secret
from butterbase.api.auth.errors import HookError
from butterbase.api.auth.mail.errors import MailUnavailableError
from butterbase.api.auth.mail.message import Mail
from butterbase.api.auth.mail.outbox import Mailer
from butterbase.api.auth.mail.smtp import SmtpMailer
from butterbase.api.auth.webhooks import Web
from butterbase.sql.catalog import load_queries
from butterbase.sql.errors import DatabaseError
from butterbase.sql.pipeline import Executor, Statement

QUERIES = load_queries("auth_mail")
USERS = load_queries("auth_users")

_ANSWER = msgspec.json.Decoder(dict[str, Any])


class HookMailer:
    """Hands each mail to the developer's function, which is asked again when it fails."""

    def __init__(self, service: Executor, function: str) -> None:
        schema, name = function.split(".", 1)
        self._call = QUERIES["send_by_hook"].replace(b"hook(", f'"{schema}"."{name}"('.encode(), 1)
        self._service = service

    async def send(self, mail: Mail) -> None:
        """Raises MailUnavailableError, DatabaseUnavailableError."""
        details = {**mail.letter.details, "recipient": mail.recipient}
        ask = Statement.of(self._call, mail.letter.user_id, msgspec.json.encode(details))
        try:
            (result,) = await self._service.run(ask)
        except DatabaseError as error:
            raise MailUnavailableError(f"the hook failed: {error.message}") from error
        if (refusal := result.value()) is not None:
            raise MailUnavailableError(f"the hook refused: {refusal.decode()[:300]}")


class WebhookMailer:
    """Hands each mail to the developer's URL, which is asked again when it fails."""

    def __init__(self, service: Executor, web: Web, url: str, secret: Secret | None) -> None:
        self._service = service
        self._web = web
        self._url = url
        self._secret = secret

    async def send(self, mail: Mail) -> None:
        """Raises MailUnavailableError, DatabaseUnavailableError."""
        find = Statement.of(USERS["user_json"], mail.letter.user_id)
        (result,) = await self._service.run(find)
        payload = {
            "user": msgspec.Raw((result.value() if result.row_count else None) or b"{}"),
            "email_data": {**mail.letter.details, "recipient": mail.recipient},
        }
        try:
            answer = _ANSWER.decode(
                await webhooks.post(self._web, self._url, self._secret, payload)
            )
        except HookError as error:
            raise MailUnavailableError(error.message) from error
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise MailUnavailableError("the hook did not answer a JSON object") from error
        if (refusal := answer.get("error")) is not None:
            raise MailUnavailableError(f"the hook refused: {str(refusal)[:300]}")


def is_sent(config: AuthConfig) -> bool:
    """Whether mails leave the outbox at all."""
    return config.mail.smtp is not None or config.hooks.send_email is not None


def mailer_of(service: Executor, web: Web) -> Callable[[AuthConfig], Mailer | None]:
    def choose(config: AuthConfig) -> Mailer | None:
        hook = config.hooks.send_email
        if hook is not None and webhooks.is_url(hook):
            return WebhookMailer(service, web, hook, config.hooks.secret)
        if hook is not None:
            return HookMailer(service, hook)
        if config.mail.smtp is not None:
            return SmtpMailer(config.mail.smtp, is_private_allowed=web.is_private_allowed)
        return None

    return choose
