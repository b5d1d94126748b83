"""The mails of an app that has no templates of its own, and the choice between them."""

from collections.abc import Mapping
from typing import Final

from butterbase.api.auth.config import Mail, MailTemplate
from butterbase.api.auth.errors import InvalidAuthBodyError
from butterbase.api.auth.mail.message import address_of
from butterbase.api.auth.mail.templates import Template, check

_PAGE: Final = """\
<!doctype html>
<html><body style="margin:0;padding:32px 16px;background:#f6f6f4;color:#1d1d1b;\
font:16px/1.5 system-ui,sans-serif">
<div style="max-width:480px;margin:0 auto;padding:32px;background:#fff;border-radius:8px">
<h1 style="margin:0 0 16px;font-size:20px">{title}</h1>
{body}
<p style="margin:24px 0 0;color:#6b6b66;font-size:13px">{footnote}</p>
</div></body></html>
"""
_BUTTON: Final = """\
<p style="margin:24px 0"><a href="{{{{ .ConfirmationURL }}}}" style="display:inline-block;\
padding:10px 18px;border-radius:6px;background:#1d1d1b;color:#fff;text-decoration:none">{label}</a>\
</p>
<p>Or enter this code:</p>
"""
_CODE: Final = """\
<p style="font:600 28px/1.2 ui-monospace,monospace;letter-spacing:4px">{{ .Token }}</p>"""


def _with_link(subject: str, lead: str, label: str, footnote: str) -> Template:
    return Template(
        subject,
        f"{lead}\n\n{label}: {{{{ .ConfirmationURL }}}}\n\n"
        f"Or enter this code: {{{{ .Token }}}}\n\n{footnote}\n",
        _PAGE.format(
            title=subject,
            body=f"<p>{lead}</p>\n" + _BUTTON.format(label=label) + _CODE,
            footnote=footnote,
        ),
    )


_NOT_YOU: Final = "If you did not ask for this, ignore this mail; nothing will change."

TEMPLATES: Final[dict[str, Template]] = {
    "confirmation": _with_link(
        "Confirm your e-mail address",
        "Confirm that this address is yours, and your account is ready.",
        "Confirm the address",
        _NOT_YOU,
    ),
    "invite": _with_link(
        "You have been invited",
        "Somebody has made an account for you. Accept the invitation to use it.",
        "Accept the invitation",
        "If you do not know what this is about, ignore this mail.",
    ),
    "magic_link": _with_link(
        "Your link to sign in",
        "Sign in with this link. It works once, and not for long.",
        "Sign in",
        _NOT_YOU,
    ),
    "recovery": _with_link(
        "Reset your password",
        "Choose a new password after following this link.",
        "Reset the password",
        _NOT_YOU,
    ),
    "email_change": _with_link(
        "Confirm the change of your e-mail address",
        "The address of your account is to change from {{ .Email }} to {{ .NewEmail }}.",
        "Confirm the change",
        "If you did not ask for this, do not confirm it, and change your password.",
    ),
    "reauthentication": Template(
        "{{ .Token }} is your verification code",
        "Enter this code to confirm that it is you: {{ .Token }}\n\n"
        "If you did not ask for this, change your password.\n",
        _PAGE.format(
            title="Your verification code",
            body="<p>Enter this code to confirm that it is you:</p>\n" + _CODE,
            footnote="If you did not ask for this, change your password.",
        ),
    ),
}
"""By the names that Supabase's settings have for them."""


def template_of(given: Mapping[str, MailTemplate], name: str) -> Template:
    """The app's own template where it has one, else ours. With a text alone it is a plain mail."""
    ours, own = TEMPLATES[name], given.get(name, MailTemplate())
    subject = ours.subject if own.subject is None else own.subject
    if own.html is None and own.text is None:
        return Template(subject, ours.text, ours.html)
    return Template(subject, ours.text if own.text is None else own.text, own.html)


def check_mail(mail: Mail) -> None:
    """Raises InvalidAuthBodyError, EmailInvalidError for settings that no mail can be sent by."""
    for name in mail.templates:
        if name not in TEMPLATES:
            raise InvalidAuthBodyError(f"{name!r} is no mail; mails are {', '.join(TEMPLATES)}")
        check(template_of(mail.templates, name))
    if mail.smtp is not None:
        address_of(mail.smtp.sender, mail.smtp.sender_name or "")
